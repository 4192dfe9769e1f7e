"""What became of the rules of a gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from gcaudit.gate.rules import Level
from gcaudit.report import printed

Outcome = Literal["passed", "failed", "unsure", "missing", "off"]
Status = Literal["passed", "undecided", "warned", "failed", "off"]


@final
@dataclass(frozen=True)
class Verdict:
    """What became of a rule.

    Attributes:
        rule: the rule as text.
        metric: `ROLE.METRIC`, or `warning.KIND`.
        level: of the rule.
        outcome: what the interval says; `missing` where there is nothing to judge.
        status: what that means at the rule's level; `undecided` where the interval holds the limit.
        value: of the report.
        ci95: its 95% interval.
        baseline: value of the baseline, for a regression.
        comparison: `interval` (threshold), `paired`, `unpaired`, or `none`.
        message: one line for people, with enough digits to see why.
        p_value: of a regression, one-sided, after Holm's correction for the number of regressions; at most 0.025 fails.
        fails: whether it fails the gate: status `failed`, and `undecided` where that was asked for.
        warns: whether it is to be looked at all the same: status `warned`, and `undecided` where that was asked for.
        origin: where the rule was written, for people.
        needed: about how many images or episodes would decide it, were the value to stay; None where it is decided, or no number would.
        unit: of these: `images` or `episodes`.
    """

    rule: str
    metric: str
    level: Level
    outcome: Outcome
    status: Status
    value: float | None
    ci95: tuple[float, float] | None
    baseline: float | None
    comparison: Literal["interval", "paired", "unpaired", "none"]
    message: str
    p_value: float | None = None
    fails: bool = False
    warns: bool = False
    origin: str = ""
    needed: int | None = None
    unit: Literal["images", "episodes"] | None = None


@final
@dataclass(frozen=True)
class GateResult:
    """All verdicts. Printed, they are the lines of the command line.

    Attributes:
        verdicts: one a rule, in the order of the rules; those on warnings have one for each warning.
        warnings: what should be known beside them: differences that were let pass, rules that make no sense, a baseline that was not used.
        model: what was judged.
        baseline: what it was compared with; None where no rule did so.

    Example:
        >>> result = gcaudit.gate("report.json", ["target.probe_accuracy >= 0.6"])  # doctest: +SKIP
        >>> result.passed, [verdict.status for verdict in result.verdicts]  # doctest: +SKIP
        (True, ['undecided'])
    """

    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...]
    model: str
    baseline: str | None

    def __str__(self) -> str:
        return printed(self, "render_verdicts")

    @property
    def passed(self) -> bool:
        """Whether no rule of level `error` failed, nor was undecided where that fails."""
        return not any(verdict.fails for verdict in self.verdicts)

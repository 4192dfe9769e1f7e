"""Rules + report (+ baseline) -> verdicts: may this checkpoint be released?

A rule is a threshold (`target.probe_accuracy >= 0.6`) or forbids a regression against a baseline (`source.cdnv regression <= 5%`). The 95%
interval decides: a rule is passed when the whole interval is on the good side, failed when it is all on the bad side, and too
close to call otherwise; `when_unsure` says what that means.

Against a baseline the contrast is new - (1 +- r) old, in the metric's worse direction. Its standard error comes from the influences of
the same images or episodes when both reports kept them (paired), and from the two standard errors otherwise (unpaired). With several regressions
each has its chance to fail by accident: they fail by Holm's procedure, so that a release that is no worse fails the gate in at most 2.5% of cases. A value
without an interval cannot be judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from gcaudit.errors import RequestError, telling_paths
from gcaudit.gate.comparable import differences, find_value, pool_part
from gcaudit.gate.regression import Contrast, Incomparable, contrast_of, holm
from gcaudit.gate.rules import EXAMPLE, UNSURE, Level, Rule, RuleFile, Unsure, parse_rule, parse_share, project_rules, read_rules
from gcaudit.report import MetricValue, Report, ReportWarning

Status = Literal["passed", "warned", "failed", "off"]
Outcome = Literal["passed", "failed", "unsure", "missing", "off"]
_FAILS = 0.025
HEADLINES = ("source.geometric_collapse", "target.probe_accuracy")
"""What `max_regression` is applied to when no rule says otherwise."""


@final
@dataclass(frozen=True)
class Verdict:
    """What became of a rule.

    Attributes:
        rule: the rule as text.
        metric: `ROLE.METRIC`.
        level: of the rule.
        outcome: what the interval says.
        status: what that means, with level and `when_unsure` applied.
        value: of the report.
        ci95: its 95% interval.
        baseline: value of the baseline, for a regression.
        p_value: of a regression, one-sided, after Holm's correction for the number of regressions; at most 0.025 fails.
        comparison: `interval` (threshold), `paired` or `unpaired`.
        message: one line for people, with enough digits to see why.
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


@final
@dataclass(frozen=True)
class GateResult:
    """All verdicts.

    Attributes:
        verdicts: one a rule, in the order of the rules.
        warnings: differences that were let pass.
        model: what was judged.
        baseline: what it was judged against, or None.
    """

    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...]
    model: str
    baseline: str | None

    @property
    def passed(self) -> bool:
        """Whether no rule of level `error` failed."""
        return all(verdict.status != "failed" for verdict in self.verdicts)


def regression_rules(report: Report, baseline: Report | None, share: float, rules: Sequence[Rule]) -> list[Rule]:
    """Make the rules that `max_regression` stands for: the headline metrics that no rule treats already.

    Args:
        report: the report to judge.
        baseline: the old one; a headline that only it has fails as missing.
        share: largest allowed regression.
        rules: those that were given.

    Returns:
        Rules of level `error`.
    """
    roles = {role for each in (report, baseline) if each is not None for role in each.blocks()}
    taken = {rule.name for rule in rules if rule.regression}
    return [
        parse_rule(f"{name} regression <= {share!r}") for name in HEADLINES if name not in taken and name.split(".")[0] in roles
    ]


def _number(value: float, other: float) -> str:
    """Write a number with enough digits to tell it from another."""
    for digits in range(4, 18):
        text = f"{value:.{digits}g}"
        if value == other or text != f"{other:.{digits}g}":
            return text
    return repr(value)


def _pair(value: float, other: float) -> tuple[str, str]:
    return _number(value, other), _number(other, value)


def _status(outcome: Outcome, level: Level, when_unsure: Unsure) -> Status:
    if level == "off":
        return "off"
    if outcome == "passed" or (outcome == "unsure" and when_unsure == "pass"):
        return "passed"
    if level == "warn" or (outcome == "unsure" and when_unsure == "warn"):
        return "warned"
    return "failed"


def _without_value(rule: Rule, reason: str, value: float | None = None) -> Verdict:
    status: Status = "warned" if rule.level == "warn" else "failed"
    message = f"{rule.name} could not be judged: {reason}"
    return Verdict(rule.text, rule.name, rule.level, "missing", status, value, None, None, "none", message)


def _judge_threshold(rule: Rule, value: MetricValue, when_unsure: Unsure) -> Verdict:
    assert value.value is not None
    interval = pool_part(value)[1] if rule.pool else value.ci95
    if interval is None:
        return _without_value(rule, f"it has no interval ({value.reason or 'none was kept'})", value.value)
    low, high = interval
    good = {">=": (low >= rule.limit, high >= rule.limit), ">": (low > rule.limit, high > rule.limit)}
    good |= {"<=": (high <= rule.limit, low <= rule.limit), "<": (high < rule.limit, low < rule.limit)}
    surely, possibly = good[rule.sign]
    outcome: Outcome = "passed" if surely else "unsure" if possibly else "failed"
    shown, limit = _pair(value.value, rule.limit)
    ends = f"[{_number(low, rule.limit)}, {_number(high, rule.limit)}]"
    verb = {"passed": "meets", "failed": "violates", "unsure": "is too close to call against"}[outcome]
    message = f"{rule.name} = {shown} {ends} {verb} {rule.sign} {limit}" + (" given the pool" if rule.pool else "")
    status = _status(outcome, rule.level, when_unsure)
    return Verdict(rule.text, rule.name, rule.level, outcome, status, value.value, interval, None, "interval", message)


def _judge_regression(rule: Rule, contrast: Contrast, adjusted: float, count: int, when_unsure: Unsure) -> Verdict:
    new, old = contrast.new, contrast.old
    excess, error = contrast.excess, contrast.error
    low, high = excess - contrast.student * error, excess + contrast.student * error
    outcome: Outcome = "passed" if high <= 0 else "failed" if adjusted < _FAILS else "unsure"
    shown, before = _pair(new, old)
    change = f"{100 * (new / old - 1):+.3g}%" if old else f"{new - old:+.4g}"
    how: Literal["paired", "unpaired"] = "paired" if contrast.paired else "unpaired"
    verb = {"passed": "stays within", "failed": "is worse by more than", "unsure": "is too close to call against"}[outcome]
    several = f", p = {adjusted:.2g} by Holm over {count} regressions" if count > 1 else ""
    message = (
        f"{rule.name} = {shown} against {before} ({change}) {verb} the allowed {100 * rule.limit:g}%: "
        f"excess {_number(excess, 0.0)} [{_number(low, 0.0)}, {_number(high, 0.0)}], {how}{several}"
        + (", given the pool" if rule.pool else "")
    )
    status = _status(outcome, rule.level, when_unsure)
    return Verdict(rule.text, rule.name, rule.level, outcome, status, new, contrast.ci95, old, how, message, adjusted)


def _judge_warning(warning: ReportWarning) -> Verdict:
    return Verdict(
        f"no warning: {warning.kind}",
        f"warning.{warning.kind}",
        "error",
        "failed",
        "failed",
        None,
        None,
        None,
        "none",
        str(warning),
    )


def judge(
    report: Report,
    rules: Sequence[Rule],
    baseline: Report | None,
    *,
    when_unsure: Unsure,
    allow_mismatch: bool,
    no_warnings: bool = False,
) -> GateResult:
    """Judge a report.

    Args:
        report: the new one.
        rules: conditions; those of level `off` are listed and not judged.
        baseline: the old one, for regressions.
        when_unsure: what too close to call means.
        allow_mismatch: make differences that forbid a comparison a warning.
        no_warnings: fail on each warning of the report.

    Returns:
        The verdicts.

    Raises:
        RequestError: no rules, a regression without baseline, or reports that may not be compared.
    """
    if not rules and not no_warnings:
        raise RequestError(f"expected at least one rule such as {EXAMPLE}, found none; pass --rule, --rules or --max-regression")
    if when_unsure not in UNSURE:
        raise RequestError(f"expected --when-unsure of {', '.join(UNSURE)}, found {when_unsure!r}")
    regressions = [rule for rule in rules if rule.regression and rule.level != "off"]
    if regressions and baseline is None:
        raise RequestError(f"expected --baseline OLD.json for {regressions[0].text!r}, found none")
    unlike = [] if baseline is None else differences(report, baseline, regressions)
    if regressions and unlike and not allow_mismatch:
        raise RequestError(
            f"expected reports that may be compared, found other {'; other '.join(unlike)}; pass --allow-mismatch to go on"
        )
    contrasts = {} if baseline is None else {rule: contrast_of(rule, report, baseline) for rule in regressions}
    judged = {rule: found for rule, found in contrasts.items() if isinstance(found, Contrast)}
    adjusted = dict(zip(judged, holm([contrast.p_value for contrast in judged.values()]), strict=True))
    verdicts = []
    for rule in rules:
        found = find_value(report, rule)
        if rule.level == "off":
            text = f"{rule.name} is not judged"
            verdicts.append(Verdict(rule.text, rule.name, "off", "off", "off", None, None, None, "none", text))
        elif rule in judged:
            verdicts.append(_judge_regression(rule, judged[rule], adjusted[rule], len(judged), when_unsure))
        elif isinstance(kept := contrasts.get(rule), Incomparable):
            verdicts.append(_without_value(rule, kept.reason, kept.value))
        elif isinstance(found, str) or found.value is None:
            verdicts.append(_without_value(rule, found if isinstance(found, str) else found.reason or "it is null"))
        else:
            verdicts.append(_judge_threshold(rule, found, when_unsure))
    if no_warnings:
        verdicts += [_judge_warning(warning) for warning in report.warnings]
    warnings = tuple(f"compared in spite of other {line}" for line in unlike) if regressions else ()
    return GateResult(tuple(verdicts), warnings, report.model.spec, None if baseline is None else baseline.model.spec)


def gate(
    report: Report | str | Path,
    rules: Iterable[str | Rule] = (),
    baseline: Report | str | Path | None = None,
    *,
    max_regression: float | str | None = None,
    when_unsure: Unsure = "pass",
    allow_mismatch: bool = False,
    no_warnings: bool = False,
) -> GateResult:
    """Judge a report by rules, and against a baseline.

    Args:
        report: from `gcaudit.score`, or the path of one.
        rules: such as `target.probe_accuracy >= 0.6`, `warn: source.gc <= 1e4`, `source.cdnv regression <= 5%`.
        baseline: the report of the last release, or its path.
        max_regression: largest allowed regression of the headline metrics, as `"2%"` or 0.02.
        when_unsure: `pass`, `warn` or `fail` when the interval contains the limit.
        allow_mismatch: make differences that forbid a comparison a warning.
        no_warnings: fail on each warning of the report.

    Returns:
        The verdicts; `passed` says whether all rules of level `error` hold.

    Raises:
        RequestError: a rule that cannot be read, or reports that may not be compared.
    """
    new = report if isinstance(report, Report) else Report.read(report)
    old = baseline if isinstance(baseline, Report) or baseline is None else Report.read(baseline)
    read = [rule if isinstance(rule, Rule) else parse_rule(rule) for rule in rules]
    if max_regression is not None:
        read += regression_rules(new, old, parse_share(max_regression), read)
    return judge(new, read, old, when_unsure=when_unsure, allow_mismatch=allow_mismatch, no_warnings=no_warnings)


@final
@dataclass(frozen=True)
class GateRequest:
    """A gate that is ready to judge.

    Attributes:
        rules: from options and files.
        max_regression: share, or None.
        baseline: the report of the last release, or None.
        when_unsure: `pass`, `warn` or `fail`.
        allow_mismatch: make differences that forbid a comparison a warning.
        no_warnings: fail on each warning of the report.
    """

    rules: tuple[Rule, ...]
    max_regression: float | None
    baseline: Report | None
    when_unsure: Unsure
    allow_mismatch: bool
    no_warnings: bool = False

    def judge(self, report: Report) -> GateResult:
        """Judge a report.

        Args:
            report: the new one.

        Returns:
            The verdicts.
        """
        return gate(
            report,
            self.rules,
            self.baseline,
            max_regression=self.max_regression,
            when_unsure=self.when_unsure,
            allow_mismatch=self.allow_mismatch,
            no_warnings=self.no_warnings,
        )


def gate_request(
    texts: Sequence[str],
    *,
    baseline: Path | None = None,
    max_regression: str | None = None,
    when_unsure: str | None = None,
    allow_mismatch: bool = False,
    no_warnings: bool = False,
) -> GateRequest:
    """Collect what options and files ask for; options win over files.

    Args:
        texts: rules, or paths of files of rules; when there are none and no `max_regression`, the project's are taken.
        baseline: path of a report.
        max_regression: such as `2%`.
        when_unsure: `pass`, `warn` or `fail`.
        allow_mismatch: make differences that forbid a comparison a warning.
        no_warnings: fail on each warning of the report.

    Returns:
        The request; every file in it has been read.

    Raises:
        RequestError: something cannot be read, or nothing is asked.
    """
    files = [read_rules(Path(text)) if _is_file(text) else RuleFile((parse_rule(text),)) for text in texts]
    if not texts and max_regression is None:
        files = [project_rules(Path())]
    rules = tuple(rule for file in files for rule in file.rules)
    shares = [file.max_regression for file in files if file.max_regression is not None]
    share = parse_share(max_regression) if max_regression is not None else shares[-1] if shares else None
    unsure = when_unsure or next((file.when_unsure for file in reversed(files) if file.when_unsure), "pass")
    if unsure not in UNSURE:
        raise RequestError(f"expected --when-unsure of {', '.join(UNSURE)}, found {unsure!r}")
    if not rules and share is None and not no_warnings:
        raise RequestError(
            "expected rules, found none; pass --rule 'target.probe_accuracy >= 0.6' or --baseline OLD.json --max-regression 2%, "
            "or write [tool.gcaudit.gate] into pyproject.toml"
        )
    if baseline is None and (share is not None or any(rule.regression and rule.level != "off" for rule in rules)):
        raise RequestError("expected --baseline OLD.json to judge regressions, found none")
    old = None if baseline is None else Report.read(baseline)
    return GateRequest(rules, share, old, unsure, allow_mismatch, no_warnings)


def _is_file(text: str) -> bool:
    with telling_paths("a rule or a file of rules", RequestError):
        return Path(text).suffix in (".yaml", ".yml", ".toml") or Path(text).is_file()

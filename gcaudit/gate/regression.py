"""A regression as a test: how much worse a value is than a baseline allows, and how sure that is beside other regressions.

With several regressions each has its chance to look worse by accident. Holm's procedure holds all of them to one chance: the smallest p-value counts as
many times as there are regressions, the next one time less, and so on.

Reference: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from gcaudit.gate.comparable import find_value, pool_part
from gcaudit.gate.contrast import contrast_error, student_of
from gcaudit.gate.rules import Rule
from gcaudit.geometry import NORMAL_95
from gcaudit.metrics import find_metric
from gcaudit.report import Report


@final
@dataclass(frozen=True)
class Contrast:
    """A value against a baseline's, before it is judged beside others.

    Attributes:
        new: value of the report.
        old: value of the baseline.
        ci95: of the new value.
        excess: new - (1 +- r) old, positive where it is worse.
        error: its standard error.
        paired: whether it is on the same images or episodes.
        factor: of the old value, 1 +- r.
        student: 97.5% point of the error's distribution, in standard errors.
    """

    new: float
    old: float
    ci95: tuple[float, float] | None
    excess: float
    error: float
    paired: bool
    factor: float
    student: float = NORMAL_95

    @property
    def p_value(self) -> float:
        """One-sided: how likely such an excess is where there is none."""
        if self.error == 0:
            return 0.0 if self.excess > 0 else 1.0
        return 0.5 * math.erfc(self.excess / self.error * (NORMAL_95 / self.student) / math.sqrt(2))


@final
@dataclass(frozen=True)
class Incomparable:
    """Why a value could not be compared.

    Attributes:
        reason: one line.
        value: of the report, or None.
    """

    reason: str
    value: float | None = None


def contrast_of(rule: Rule, report: Report, baseline: Report) -> Contrast | Incomparable:
    """Compare a metric of two reports.

    Args:
        rule: a regression.
        report: the new one.
        baseline: the old one.

    Returns:
        The contrast, or why there is none.
    """
    new, old = find_value(report, rule), find_value(baseline, rule)
    if isinstance(new, str) or new.value is None:
        return Incomparable(new if isinstance(new, str) else new.reason or "it is null")
    if isinstance(old, str) or old.value is None:
        reason = old if isinstance(old, str) else old.reason or "it is null"
        return Incomparable(f"in the baseline, {reason}", new.value)
    worse = 1.0 if find_metric(rule.metric).direction == "lower" else -1.0
    factor = 1 + worse * rule.limit if old.value >= 0 else 1 - worse * rule.limit
    error, paired = contrast_error(report, baseline, rule, factor, (new, old))
    if error is None:
        where, value = ("", new) if (pool_part(new)[0] if rule.pool else new.stderr) is None else ("in the baseline, ", old)
        return Incomparable(f"{where}it has no standard error ({value.reason or 'none was kept'})", new.value)
    interval = pool_part(new)[1] if rule.pool else new.ci95
    student = NORMAL_95 if rule.pool else student_of((new, old))
    return Contrast(new.value, old.value, interval, worse * (new.value - factor * old.value), error, paired, factor, student)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number.

    Args:
        p_values: one a test.

    Returns:
        Adjusted p-values in the same order: that of a family in which none is true stays below p in at most a share p of cases.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    found, running = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[place]))
        found[place] = running
    return found

"""How many images or episodes make an interval short enough.

The squared standard error of a value of n images falls as 1/n; that of a mean over episodes has a part that more images make smaller and one that only more
episodes do, which stays.
"""

from __future__ import annotations

import math
from typing import Literal

from gcaudit.gate.contrast import contrast_error
from gcaudit.gate.rules import Rule, parse_rule
from gcaudit.report import MetricValue, Report

Unit = Literal["images", "episodes"]
MOST = 10**12
"""More images than this are none at all."""


def how_many(have: int, wanted: float, room: float) -> int | None:
    """Say how many are needed.

    Args:
        have: how many there are.
        wanted: what more of them make smaller, squared: in units in which `room` is what may be left of it.
        room: what may be left.

    Returns:
        At least 2; None where no number is enough.
    """
    if room <= 0 or not math.isfinite(wanted / room) or have * wanted / room > MOST:
        return None
    return max(2, math.ceil(have * wanted / room))


def about(number: int) -> int:
    """Round a number up to two digits that count.

    Args:
        number: of images.

    Example:
        >>> about(2_422_289)
        2500000
    """
    step = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // step) * step


def unit_of(value: MetricValue, rule: Rule) -> tuple[Unit, int]:
    """Say what makes a value surer, and how many of them it has.

    Args:
        value: of a report.
        rule: that names it.

    Returns:
        `images` or `episodes`, and their number.
    """
    return ("episodes", value.episodes or 0) if rule.pool else ("images", value.n)


def fixed_error(value: MetricValue, rule: Rule) -> float:
    """Return the part of the standard error that more images do not make smaller.

    Args:
        value: of a report.
        rule: that names it.
    """
    return 0.0 if rule.pool or value.pool_stderr is None else value.pool_stderr


def paired_fixed_error(
    report: Report, baseline: Report, rule: Rule, pair: tuple[MetricValue, MetricValue], factor: float = 1.0
) -> float:
    """Return the part of the difference's standard error that more images do not make smaller.

    Args:
        report: the new one.
        baseline: the old one.
        rule: that names the metric.
        pair: the new value and the old.
        factor: of the old value.
    """
    if rule.pool or pair[0].pool_stderr is None:
        return 0.0
    error, _ = contrast_error(report, baseline, parse_rule(f"{rule.name} regression <= 0% given the pool"), factor, pair)
    return 0.0 if error is None else error


def needed_for(have: int, distance: float, half: float, fixed: float) -> int | None:
    """Say about how many would decide a rule, were the value to stay where it is.

    Args:
        have: how many there are.
        distance: from the value, or the excess, to the limit.
        half: length of the interval from the value to its end on the limit's side, at least `distance`.
        fixed: the part of it that more of them do not make shorter.

    Returns:
        Their number; None where no number would.
    """
    found = how_many(have, max(0.0, half**2 - fixed**2), distance**2 - fixed**2) if have else None
    return None if found is None else about(found)

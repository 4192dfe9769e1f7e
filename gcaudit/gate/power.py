"""How many images or episodes a gate needs to see a change.

A regression rule fails where the excess is above 1.96 standard errors e of the difference, so a true change of c times the value is seen in 80% of cases when
c |value| = (1.96 + 0.84) e. The standard error falls as one over the root of the number of images: from e at n images follows how many are needed. For
reports of independent images e^2 is twice the squared standard error; against a baseline on the same images, whose evidence was kept, it is that of the
paired difference, which is far less.

A mean over episodes has a part that more images make smaller and a part that more episodes make smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from gcaudit.gate.comparable import differences, find_value, pool_part
from gcaudit.gate.contrast import contrast_error
from gcaudit.gate.needs import fixed_error, how_many, paired_fixed_error, unit_of
from gcaudit.gate.rules import Rule, parse_rule
from gcaudit.geometry import NORMAL_95
from gcaudit.metrics import METRICS
from gcaudit.report import MetricValue, Report

CHANGES = (0.01, 0.02, 0.05)
_LARGEST = 1e6
_NAMES = {metric.name: metric for metric in METRICS}
_DETECTED = 0.8416212335729143  # the 80% point of the standard normal distribution


@final
@dataclass(frozen=True)
class PowerRow:
    """What one metric needs.

    Attributes:
        metric: `ROLE.METRIC`, with `given the pool` for episodes of the same images.
        value: of the report, or None.
        unit: `images` or `episodes`.
        have: how many there are.
        needed: how many are needed for each of `CHANGES`; None where no number of them is enough.
        paired: whether the baseline is on the same images.
        reason: why there are no numbers.
    """

    metric: str
    value: float | None
    unit: str
    have: int
    needed: tuple[int | None, ...]
    paired: bool
    reason: str | None = None


def power_rows(report: Report, baseline: Report | None = None) -> list[PowerRow]:
    """Say what each metric of a report needs.

    Args:
        report: the report.
        baseline: of another model on the same images, with evidence, for paired comparison; None takes independent images.

    Returns:
        One row a metric that has a better side; two for a mean over episodes.
    """
    rows = []
    for role, block in report.blocks().items():
        for name, value in block.metrics.items():
            known = _NAMES.get(name)
            if known is None or known.direction == "none" or any(point.n_shot is None for point in value.curve or ()):
                continue  # of another version
            if not known.episodes and (value.curve or value.n_way is not None):
                continue
            texts = [f"{role}.{name}"] if value.curve is None else [f"{role}.{name}@{point.n_shot}" for point in value.curve]
            for text in texts:
                rule = parse_rule(f"{text} regression <= 0%")
                rows.append(_row(report, baseline, rule))
                if value.n_way is not None:
                    rows.append(_row(report, baseline, parse_rule(f"{text} regression <= 0% given the pool")))
    return rows


def _row(report: Report, baseline: Report | None, rule: Rule) -> PowerRow:
    name = rule.name + (" given the pool" if rule.pool else "")
    value = find_value(report, rule)
    assert isinstance(value, MetricValue)
    if value.n_way is not None and value.pool_stderr is None and not rule.pool:
        return PowerRow(
            name, value.value, "images", 0, (None,) * len(CHANGES), False, "score again: this version knew no error of images"
        )
    unit, have = unit_of(value, rule)

    def without(reason: str) -> PowerRow:
        return PowerRow(name, value.value, unit, have, (None,) * len(CHANGES), False, reason)

    stderr = pool_part(value)[0] if rule.pool else value.stderr
    if value.value is None or stderr is None:
        return without(value.reason or "it has no standard error")
    if value.value == 0:
        return without("no share of 0 is a change")
    if stderr == 0:
        return without("it has no error that more of them could make smaller")
    if not 0 < abs(stderr / value.value) < _LARGEST:
        return without("its error is beyond all measure of it")
    scale = abs(value.value)
    squares, fixed, paired = 2 * (stderr / scale) ** 2, 2 * (fixed_error(value, rule) / scale) ** 2, False
    if baseline is not None:
        if unlike := differences(report, baseline, [rule]):
            return without(f"the baseline has other {unlike[0]}")
        other = find_value(baseline, rule)
        if not isinstance(other, MetricValue) or other.value is None:
            return without("the baseline has no value")
        error, paired = contrast_error(report, baseline, rule, 1.0, (value, other))
        if error is None:
            return without("the baseline has no standard error")
        squares, fixed = (
            (error / scale) ** 2,
            0.0 if rule.pool else (paired_fixed_error(report, baseline, rule, (value, other)) / scale) ** 2,
        )
    factor = (NORMAL_95 + _DETECTED) ** 2
    needed = tuple(how_many(have, max(0.0, squares - fixed) * factor, change**2 - fixed * factor) for change in CHANGES)
    return PowerRow(name, value.value, unit, have, needed, paired)

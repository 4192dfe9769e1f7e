"""Intervals that keep their word with few images: on the scale of logarithms, and with as many degrees of freedom as the classes give.

The standard error s of a value T is itself estimated, from n_c - 1 differences within each class. With V_c the share of class c in s^2, the degrees of
freedom are those of Satterthwaite, (sum V_c)^2 / sum(V_c^2/(n_c - 1)), and the interval of a positive quantity is T exp(-+ t s/T), t the quantile of
Student's distribution: no bound is below zero, and the error of a ratio is close to symmetric there.

References: Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics Bulletin 1946; Goldberg, Levine,
"Approximate formulas for the percentage points and normalization of t and chi squared", Annals of Mathematical Statistics 1946.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gcaudit.geometry.estimate import NORMAL_95, Estimate, missing
from gcaudit.geometry.tails import critical_values, describe_tail

_FARTHEST = 300.0
_LARGEST_OF_A_SHARE = 0.5
_MANY, _ANGLES = 12, 20001


def student_quantile(freedom: float) -> float:
    """Return the 97.5% point of Student's distribution.

    Args:
        freedom: degrees of freedom; fewer than 1 count as 1.

    Returns:
        12.7 at 1, and 1.96 at infinity, to five digits.
    """
    freedom = max(1.0, freedom)
    if freedom >= _MANY:
        z = NORMAL_95
        series = (
            z,
            (z**3 + z) / 4,
            (5 * z**5 + 16 * z**3 + 3 * z) / 96,
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
            (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
        )
        return sum(term / freedom**power for power, term in enumerate(series))
    # with x = sqrt(freedom) tan(a) the density is that of cos(a)^(freedom - 1)
    angles = torch.linspace(0, math.pi / 2, _ANGLES, dtype=torch.float64)
    below = torch.cumulative_trapezoid(angles.cos().clamp(min=0) ** (freedom - 1), angles)
    place = int(torch.searchsorted(below, 0.95 * below[-1]))
    before, after = float(below[place - 1]), float(below[place])
    share = (0.95 * float(below[-1]) - before) / (after - before)
    return math.sqrt(freedom) * math.tan(float(angles[place]) + share * float(angles[1]))


def student_95(influence: Tensor, labels: Tensor, classes: int) -> float:
    """Return the 97.5% point of Student's distribution for a standard error that influences make up.

    Args:
        influence: (N,) float64.
        labels: (N,) int64 of the same images.
        classes: K.

    Returns:
        At least 1.96; classes with a single influence are left out.
    """
    used = influence != 0
    counts = torch.bincount(labels[used], minlength=classes).to(torch.float64)
    shares = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, influence.square())
    total = float(shares.sum())
    kept = counts > 1
    if not total > 0 or not bool(kept.any()):
        return NORMAL_95
    shares = shares / total
    freedom = 1 / float((shares[kept].square() / (counts[kept] - 1)).sum())
    return student_quantile(freedom)


def positive_estimate(
    value: Tensor | float,
    influence: Tensor | None,
    labels: Tensor,
    n: int,
    *,
    reason: str | None = None,
    second: float = 0.0,
    energies: Tensor | None = None,
    **details: Any,
) -> Estimate:
    """Make an estimate of a positive quantity.

    Args:
        value: the number.
        influence: (N,) of the images, or None with a `reason`.
        labels: (N,) int64.
        n: the number of images behind it.
        reason: why there is no standard error.
        second: what terms of second order add to the variance.
        energies: (M,) that the value is made of; their tail says whether the interval takes the bootstrap-t, or is withheld.
        details: kept in the estimate.

    Returns:
        The estimate; `missing` when value overflows. A value that is not positive has no interval.
    """
    number = float(value)
    if not math.isfinite(number):
        return missing("the value is beyond the range of 64-bit floating point", n)
    first = math.nan if influence is None else _norm(influence)
    tail = None if energies is None else describe_tail(energies)
    if influence is not None and tail is not None and tail.reason:
        return Estimate(number, n=n, reason=tail.reason, details=details)
    if influence is None or not math.isfinite(first):
        beyond = "the standard error is beyond the range of 64-bit floating point"
        return Estimate(
            number, n=n, reason=(reason or "the standard error is not defined") if influence is None else beyond, details=details
        )
    if first == 0:
        return Estimate(number, 0.0, (number, number), n, None, details, influence)
    error = math.hypot(first, math.sqrt(max(0.0, second)))
    influence = influence * (error / first)
    student = student_95(influence / error, labels, int(labels.max()) + 1)
    details["student"] = student
    sides = (-student, student)
    if tail is not None and number > 0 and tail.heavy:
        found = critical_values(influence, number)
        sides = sides if found is None else (found[0] * student / NORMAL_95, found[1] * student / NORMAL_95)
    if not number > 0 or max(-sides[0], sides[1]) * error > _FARTHEST * number:
        return Estimate(
            number, n=n, reason="the standard error is beyond all measure of the value: take more images", details=details
        )
    interval = (number * math.exp(-sides[1] * error / number), number * math.exp(-sides[0] * error / number))
    return Estimate(number, error, interval, n, None, details, influence)


def _norm(influence: Tensor) -> float:
    """Return the root of the sum of squares, which may themselves be out of range."""
    largest = float(influence.abs().max()) if len(influence) else 0.0
    return largest * float((influence / largest).norm()) if 0 < largest < math.inf else largest


def share_estimate(
    value: float, influence: Tensor, labels: Tensor, n: int, least: tuple[float, float] | None, **details: Any
) -> Estimate:
    """Make an estimate of a quantity between 0 and 1.

    Args:
        value: the number, which is brought into that range.
        influence: (N,) of the images.
        labels: (N,) int64.
        n: the number of images.
        least: an interval that it must hold at least, or None.
        details: kept in the estimate.

    Returns:
        The estimate with the interval value -+ t standard errors, within 0 and 1.
    """
    error = float(influence.norm())
    if error > _LARGEST_OF_A_SHARE:  # linear terms that an outlier has blown up
        influence, error = influence * (_LARGEST_OF_A_SHARE / error), _LARGEST_OF_A_SHARE
    student = student_95(influence, labels, int(labels.max()) + 1)
    details["student"] = student
    half = student * error
    number = min(1.0, max(0.0, value))
    low, high = least or (number, number)
    interval = (max(0.0, min(number - half, low)), min(1.0, max(number + half, high)))
    return Estimate(number, error, interval, n, None, details, influence)

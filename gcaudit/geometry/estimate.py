"""Estimate: one number, how sure it is, and why it is missing when it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from torch import Tensor


NORMAL_95 = 1.959963984540054
"""The 97.5% point of the standard normal distribution."""


@final
@dataclass(frozen=True)
class Estimate:
    """A measured quantity.

    Attributes:
        value: the number, or None where it could not be measured; never NaN and never infinite.
        stderr: its standard error, in the unit of `value`, or None.
        ci95: its 95% interval (low, high), or None.
        n: the number of independent draws behind it (images, or episodes).
        reason: why `value` (or only `stderr`) is None.
        details: what else a reader needs (estimator, vectors, settings of the probe, values per class, ...).
        influence: (N,) float64, by how much each image moves the value to first order, scaled so that the sum of
            squares is the squared standard error. The standard error of the difference of two models on the same images
            follows from the difference of their influences. (2, N) are two measurements of it whose noise is independent: the sum of
            products takes the place of the sum of squares.
        given_pool: of a mean over episodes, the same with the images held fixed: its influence is that of episodes, (E,), and its squared standard
            error is a part of this one.
    """

    value: float | None
    stderr: float | None = None
    ci95: tuple[float, float] | None = None
    n: int = 0
    reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    influence: Tensor | None = field(default=None, repr=False, compare=False)
    given_pool: Estimate | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for number in (self.value, self.stderr, *(self.ci95 or ())):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"an estimate is finite or None with a reason; found {number}")
        if self.value is None and not self.reason:
            raise ValueError("an estimate without a value needs a reason")


def missing(reason: str, n: int = 0, **details: Any) -> Estimate:
    """Say why a quantity could not be measured.

    Args:
        reason: one line.
        n: how many images or episodes there were.
        details: kept in the estimate.

    Returns:
        An estimate whose value is None.
    """
    return Estimate(None, n=n, reason=reason, details=details)


def normal_estimate(value: Tensor | float, influence: Tensor | None, n: int, reason: str | None = None, **details: Any) -> Estimate:
    """Make an estimate with the interval value -+ 1.96 standard errors.

    Args:
        value: the number.
        influence: of the images, whose norm is the standard error; None with a `reason`.
        n: the number of draws.
        reason: why there is no standard error.
        details: kept in the estimate.

    Returns:
        The estimate; `missing` when value overflows.
    """
    number = float(value)
    if not math.isfinite(number):
        return missing("the value is beyond the range of 64-bit floating point", n, **details)
    error = math.nan if influence is None else float(influence.norm())
    if not math.isfinite(error):
        return Estimate(number, n=n, reason=reason or "the standard error is not defined", details=details)
    interval = (number - NORMAL_95 * error, number + NORMAL_95 * error)
    return Estimate(number, error, interval, n, None, details, influence)

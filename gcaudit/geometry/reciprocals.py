"""Unbiased powers of the reciprocal of a mean that is known up to normal noise.

With X normal about m > 0 with variance s^2, t = X/s and R(t) = (1 - Phi(t))/phi(t), Mills' ratio,

    E[R(t)/s] = 1/m,   E[(1 - t R(t))/s^2] = 1/m^2,   E[((1 + t^2) R(t) - t)/(2 s^3)] = 1/m^3

exactly, where 1/X has no mean at all. Each is the derivative of the one before it, up to sign and factor. They grow without bound to the left,
where next to no X of a positive mean lies: below t = -1 they are held.

Reference: Voinov, "Unbiased estimation of powers of the inverse of population mean and related problems", Sankhya B 1985.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOWEST = -1.0
"""Where t = X/s is held."""
_SERIES = 50.0
"""From here on the series in 1/t^2 has fewer rounding errors."""


def _parts(found: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return t, s, where the series is taken, a safe value in its place, and 1/t^2."""
    deviation = variance.sqrt()
    far = (found > 0) & (found >= _SERIES * deviation)
    safe = torch.where(far, torch.ones_like(found), found)
    sigma = torch.where(far | (deviation == 0), torch.ones_like(deviation), deviation)
    inside = torch.where(far, found, torch.ones_like(found))
    ratio = torch.where(far, variance, torch.zeros_like(variance)) / inside.square()
    return (safe / sigma).clamp(min=LOWEST), sigma, far, inside, ratio


def _mills(t: Tensor) -> Tensor:
    scaled: Tensor = torch.special.erfcx(t / math.sqrt(2))
    return math.sqrt(math.pi / 2) * scaled


def reciprocal(found: Tensor, variance: Tensor) -> Tensor:
    """Estimate 1/m.

    Args:
        found: float64 values X; differentiable.
        variance: float64 s^2 > 0 of each; 0 is allowed where X > 0.

    Returns:
        R(t)/s, which is 1/X - s^2/X^3 + ... where X is large beside s.
    """
    t, sigma, far, inside, x = _parts(found, variance)
    return torch.where(far, (1 - x * (1 - x * (3 - x * (15 - 105 * x)))) / inside, _mills(t) / sigma)


def reciprocal_square(found: Tensor, variance: Tensor) -> Tensor:
    """Estimate 1/m^2; arguments as for `reciprocal`, of which it is the derivative but for the sign."""
    t, sigma, far, inside, x = _parts(found, variance)
    series = (1 - x * (3 - x * (15 - x * (105 - 945 * x)))) / inside.square()
    return torch.where(far, series, (1 - t * _mills(t)) / sigma.square())


def reciprocal_cube(found: Tensor, variance: Tensor) -> Tensor:
    """Estimate 1/m^3; arguments as for `reciprocal`."""
    t, sigma, far, inside, x = _parts(found, variance)
    series = (1 - x * (6 - x * (45 - x * (420 - 4725 * x)))) / inside.pow(3)
    return torch.where(far, series, ((1 + t.square()) * _mills(t) - t) / (2 * sigma.pow(3)))

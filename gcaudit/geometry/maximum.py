"""The largest of several positive numbers that are known up to noise.

The largest of noisy numbers is too large on average, most where several are close to the largest. With log r_c normal about log m_c with standard error
s_c, the distribution of the largest is the product of normal distributions, so its mean is a sum over a grid. In place of m_c stand the r_c,
pulled towards their mean by the share of their spread that is noise.

Reference: Efron, Tibshirani, "An introduction to the bootstrap", Chapman and Hall 1993, chapter 10 (the parametric bootstrap's correction of bias).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GRID = 4096
_REACH = 8.0


def positive_maximum(found: Tensor, errors: Tensor) -> tuple[float, Tensor]:
    """Estimate the largest of positive numbers.

    Args:
        found: (K,) float64, each an estimate; those that are 0 are left out.
        errors: (K,) float64 their standard errors, independent of one another.

    Returns:
        The largest, with what noise adds to it on average taken off; and (K,) how likely each is to be the largest.
    """
    kept = found > 0
    logs, errors = found[kept].log(), (errors / found)[kept]
    largest = float(logs.max())
    chances = torch.zeros_like(found)
    if len(logs) < 2 or not bool((errors > 0).any()):
        chances[int(torch.argmax(found))] = 1.0
        return math.exp(largest), chances
    errors = errors.clamp(min=float(errors.max()) / _GRID)
    spread = float(logs.var())
    signal = max(0.0, 1 - float(errors.square().mean()) / spread) if spread > 0 else 0.0
    centres = logs.mean() + math.sqrt(signal) * (logs - logs.mean())
    grid, below = _all_below(centres, errors)
    mean = float(grid[-1] - torch.trapezoid(below.sum(1).exp(), grid))
    grid, below = _all_below(logs, errors)
    density = (-((grid[:, None] - logs) / errors).square() / 2).exp() / errors
    share = torch.trapezoid(density * (below.sum(1, keepdim=True) - below).exp(), grid, dim=0)
    chances[kept] = share / share.sum()
    return math.exp(largest - (mean - float(centres.max()))), chances


def _all_below(centres: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    """Return a grid and the logarithms of the chance of each number to be below its points."""
    low, high = (float((centres + sign * _REACH * errors).max()) for sign in (-1, 1))
    grid = torch.linspace(low, high, _GRID, dtype=torch.float64)
    return grid, torch.special.log_ndtr((grid[:, None] - centres) / errors)

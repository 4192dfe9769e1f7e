"""The point of a convex hull that is nearest to a given one.

    min over w >= 0, sum w = 1 of |a - sum_j w_j b_j|^2

by accelerated projected gradients with restarts, for many points at once. The duality gap, max_j <a - Bw, b_j - Bw>, is at least half of what the squared
distance found is above the least, and ends the search.

References: Beck, Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse problems", SIAM Journal on Imaging Sciences 2009;
Duchi, Shalev-Shwartz, Singer, Chandra, "Efficient projections onto the l1-ball for learning in high dimensions", ICML 2008 (onto the simplex);
O'Donoghue, Candes, "Adaptive restart for accelerated gradient schemes", Foundations of Computational Mathematics 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS, _GAP = 5000, 1e-7


def hull_weights(points: Tensor, corners: Tensor, gap: float = _GAP) -> Tensor:
    """Find the convex combination of corners that is nearest to each point.

    Args:
        points: (T, D) float64.
        corners: (K, D) float64.
        gap: at which the search ends, over the squared distance to the mean of the corners.

    Returns:
        (T, K) weights, none below 0, with sum 1; squared distances are within two gaps of the least, or what 5000
        rounds have come to.
    """
    middle = corners.mean(0)
    b, a = corners - middle, points - middle
    gram, along = b @ b.T, a @ b.T
    scale = float(torch.linalg.eigvalsh(gram)[-1])
    w = torch.full((len(a), len(b)), 1 / len(b), dtype=torch.float64)
    if not scale > 0:
        return w
    ahead, pace = w.clone(), torch.ones(len(a), 1, dtype=torch.float64)
    enough = gap * a.square().sum(1)
    for number in range(_ROUNDS):
        slope = ahead @ gram - along
        following = simplex_projection(ahead - slope / scale)
        step = following - w
        uphill = ((ahead - following) * step).sum(1, keepdim=True) > 0
        pace = torch.where(uphill, 1.0, pace)
        quicker = (1 + (1 + 4 * pace.square()).sqrt()) / 2
        ahead = following + torch.where(uphill, 0.0, (pace - 1) / quicker) * step
        w, pace = following, quicker
        if number % 10 == 9:
            slope = w @ gram - along
            if bool(((w * slope).sum(1) - slope.min(1).values <= enough).all()):
                break
    return w


def simplex_projection(values: Tensor) -> Tensor:
    """Return the nearest points of the simplex.

    Args:
        values: (T, K).

    Returns:
        (T, K), none below 0, with sum 1.

    Example:
        >>> simplex_projection(torch.tensor([[0.9, 0.5, -1.0]]))
        tensor([[0.7000, 0.3000, 0.0000]])
    """
    ordered = values.sort(1, descending=True).values
    excess = ordered.cumsum(1) - 1
    counts = torch.arange(1, values.shape[1] + 1, dtype=values.dtype)
    last = (ordered * counts > excess).sum(1, keepdim=True)
    return (values - excess.gather(1, last - 1) / last).clamp(min=0)

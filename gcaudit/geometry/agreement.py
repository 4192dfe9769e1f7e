r"""Does a score of models predict the accuracies they reach? Weighted Kendall tau, Spearman's rho and Pearson's r.

Weighted tau (Vigna) of x and y, both with the best first: with s_ij = sign(x_i - x_j) sign(y_i - y_j) and ranks r_i from 0,

    <x, y> = sum over i < j of s_ij (1 / (r_i + 1) + 1 / (r_j + 1)),    tau = <x, y> / sqrt(<x, x> <y, y>),

averaged over the ranking by x (ties by y) and that by y (ties by x). A swap among the best models weighs most, and tied pairs count in neither
direction. This is `scipy.stats.weightedtau` with its default `rank=True`; with `rank=None`, which some codes use, only the ranking by the first
argument weighs, so that the value depends on the order of the arguments.

A bootstrap draw takes model i c_i times. Its copies are tied with one another, so all three coefficients of a draw follow from the counts c and the
signs of the M models, and all draws together take one product of matrices.

Reference: Vigna, "A weighted correlation index for rankings with ties", WWW 2015; Efron, "Bootstrap methods: another look at the jackknife",
Annals of Statistics 1979.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from gcaudit.geometry.counter import derive_seed, random_order_keys
from gcaudit.geometry.estimate import Estimate, missing

_FEWEST = 3
_ROUNDING = 1e-12


@final
@dataclass(frozen=True)
class Agreement:
    """How well a score predicts accuracy; each from -1 to 1, and + means that it predicts well.

    Attributes:
        weighted_tau: Kendall's tau with hyperbolic weights: the order, above all among the best.
        spearman: the order.
        pearson: how close to a straight line.
    """

    weighted_tau: Estimate
    spearman: Estimate
    pearson: Estimate


def agreement(
    scores: Sequence[float],
    accuracies: Sequence[float],
    direction: Literal["lower", "higher", "none"],
    seed: int = 0,
    draws: int = 1000,
) -> Agreement:
    """Measure how well a score predicts accuracy over models.

    The intervals are percentile intervals of the bootstrap over models, the standard errors the standard deviation of its draws. Draws in which all
    scores or all accuracies are equal have no coefficient and are left out; `details` count them as `skipped`. Where all draws give the same
    coefficient, as of few models in perfect order, they say nothing on its error, and there is no interval. Invariant under the order of the
    models and under positive affine maps of either side; weighted tau and Spearman's rho under all increasing maps.

    Args:
        scores: M numbers.
        accuracies: M numbers, of the same models.
        direction: of the score's better side; `lower` flips its sign, `none` is taken for `higher`.
        seed: of the bootstrap.
        draws: of the bootstrap.

    Returns:
        Three estimates with n = M; missing for fewer than 3 models, numbers that are not finite, and equal scores or accuracies.

    Raises:
        ValueError: not as many scores as accuracies.
    """
    models = len(scores)
    if models != len(accuracies):
        raise ValueError(f"expected as many accuracies as scores, found {len(accuracies)} and {models}")
    sign = -1.0 if direction == "lower" else 1.0
    x = sign * torch.tensor([float(score) for score in scores], dtype=torch.float64)
    y = torch.tensor([float(accuracy) for accuracy in accuracies], dtype=torch.float64)
    reason = _obstacle(x, y)
    if reason is not None:
        return Agreement(*[missing(reason, models)] * 3)
    order = _best_first(x, y)  # so that the draws, too, do not depend on the order in which models are given
    x, y = x[order], y[order]
    counts = torch.cat((torch.ones(1, models, dtype=torch.float64), _draw_counts(models, draws, seed)))
    return Agreement(
        _estimate(_weighted_tau(x, y, counts), models),
        _estimate(_pearson(_twice_ranks(x, counts), _twice_ranks(y, counts), counts), models),
        _estimate(_pearson(_scaled(x)[None], _scaled(y)[None], counts), models),
    )


def _obstacle(x: Tensor, y: Tensor) -> str | None:
    if len(x) < _FEWEST:
        return f"a correlation needs at least {_FEWEST} models, found {len(x)}"
    for name, side in (("scores", x), ("accuracies", y)):
        if not bool(side.isfinite().all()):
            return f"a correlation needs finite {name}"
        if bool((side == side[0]).all()):
            return f"all {len(side)} {name} are equal: they order nothing"
    return None


def _best_first(first: Tensor, second: Tensor) -> Tensor:
    order = torch.argsort(second, descending=True, stable=True)
    return order[torch.argsort(first[order], descending=True, stable=True)]


def _draw_counts(models: int, draws: int, seed: int) -> Tensor:
    """Return (draws, M): how often each model is taken."""
    keys = random_order_keys(derive_seed(seed, "agreement"), torch.arange(draws)[:, None], torch.arange(models)[None])
    counts = torch.zeros(draws, models, dtype=torch.float64)
    return counts.scatter_add_(1, keys % models, torch.ones_like(counts))


def _signs(side: Tensor) -> Tensor:
    """Return (M, M) signs of differences; comparing cannot underflow as subtracting can."""
    return (side[:, None] > side).to(torch.float64) - (side[:, None] < side).to(torch.float64)


def _weighted_tau(x: Tensor, y: Tensor, counts: Tensor) -> Tensor:
    """Return the weighted tau of each draw, NaN where there is none.

    With h_i the sum of 1 / (r + 1) over the ranks of model i's copies, <x, y> = sum over i, j of h_i s_ij c_j.
    """
    over_x, over_y = _signs(x), _signs(y)
    total = torch.zeros(len(counts), dtype=torch.float64)
    for first, second in ((x, y), (y, x)):
        order = _best_first(first, second)
        weights = torch.empty_like(counts)
        weights[:, order] = _harmonic_weights(counts[:, order])
        inner, left, right = (((weights @ s) * counts).sum(1) for s in (over_x * over_y, over_x.abs(), over_y.abs()))
        total += inner / (left.sqrt() * right.sqrt())
    return total.clamp(-2, 2) / 2


def _harmonic_weights(counts: Tensor) -> Tensor:
    """Sum 1 / (r + 1) over the ranks r that the copies of each model take; models come best first."""
    models = counts.shape[1]
    harmonic = torch.cat((torch.zeros(1, dtype=torch.float64), (1 / torch.arange(1, models + 1, dtype=torch.float64)).cumsum(0)))
    after = counts.cumsum(1).to(torch.int64)
    return harmonic[after] - harmonic[after - counts.to(torch.int64)]


def _twice_ranks(side: Tensor, counts: Tensor) -> Tensor:
    """Return (draws, M): twice the rank of each model in each draw, ties at their middle, up to a constant."""
    return counts @ (_signs(side) + 1).T


def _scaled(side: Tensor) -> Tensor:
    """Divide by a power of two, which is exact, so that sums and squares stay in range."""
    _, exponent = math.frexp(float(side.abs().max()))
    half = exponent // 2  # in two steps, since the power of the smallest numbers would itself be out of range
    return side * 2.0**-half * 2.0 ** (half - exponent)


def _pearson(x: Tensor, y: Tensor, counts: Tensor) -> Tensor:
    """Return Pearson's r of each draw, NaN where there is none; x and y are (draws, M), or (1, M) for all draws."""
    left, right = _centred(x, counts), _centred(y, counts)
    covariance = (counts * left * right).sum(1)
    return (covariance / ((counts * left**2).sum(1).sqrt() * (counts * right**2).sum(1).sqrt())).clamp(-1, 1)


def _centred(side: Tensor, counts: Tensor) -> Tensor:
    total = counts.sum(1, keepdim=True)
    for _ in range(2):  # the second time takes away the rounding of a mean far from zero
        side = side - (counts * side).sum(1, keepdim=True) / total
    side = side * (counts > 0)  # a model that is not drawn may be far off: it must neither set the scale nor overflow
    return side / side.abs().amax(1, keepdim=True)


def _estimate(values: Tensor, models: int) -> Estimate:
    """Turn the coefficient of the models, and then those of the draws, into an estimate."""
    value, drawn = float(values[0]), values[1:]
    kept = drawn[drawn.isfinite()]
    details = {"draws": len(drawn), "skipped": len(drawn) - len(kept)}
    if len(kept) < 2:
        return Estimate(value, n=models, reason="too few bootstrap draws for a standard error", details=details)
    if bool(((kept - value).abs() < _ROUNDING).all()):
        reason = f"no interval: all draws of the bootstrap over {models} models agree with one another"
        return Estimate(value, n=models, reason=reason, details=details)
    low, high = torch.quantile(kept, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(value, float(kept.std()), (low, high), models, None, details)

"""How near the target's classes are to mixtures of the source's.

Proposition 5.1 of the paper carries collapse from source to target classes, and asks that the source be granular: that each target class be a
mixture of source classes. For a mixture with weights w the class means obey mu_t = sum_j w_j mu_j. What can be told from embeddings is how far the
target's means are from that:

    r_t = min over w >= 0, sum w = 1 of |mu_t - sum_j w_j mu_j|^2 / |mu_t - m|^2,      m the mean of the source's class means

0 where mu_t lies in their convex hull, 1 where no mixture is nearer than m. It is necessary for the condition, not sufficient: distributions with
the mean of a mixture need be none.

Means of few images are off, and most of that lies outside of the hull: the plain squared distance is too large. With P the projection onto the face of the hull
that the weights use, what noise adds is E|(1 - P)(e_t - sum_j w_j e_j)|^2, e the errors of the means, to first order; the difference of the means of
two halves of a class's images is a draw of its error, up to a known factor, by which this is estimated and taken off. A residual below 0 is noise.

Null hypothesis: the source's classes are as they are along each dimension, and in no relation between dimensions. Each dimension's values are permuted among
the source's classes; p is the share of 39 permutations, and of the data, whose residual is no larger.

Reference: Munn, Dherin, Gonzalvo, NeurIPS 2024, section 5; Horn, "A rationale and test for the number of factors in factor analysis", Psychometrika 1965 (the
permutation).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gcaudit.errors import shorten
from gcaudit.geometry import ClassSummary, Estimate, derive_seed, hull_weights, missing, random_order_keys

_PERMUTATIONS = 39
_NAMED = 3
_ZERO = 1e-6
_ROUGH = 1e-3
_TOLD = 2.0
"""A class is told from the mean of the source's where their squared distance is so many times the noise in it."""


def granularity(source: ClassSummary, target: ClassSummary) -> Estimate:
    """Measure how much of the target's class means no mixture of the source's reaches.

    The mean of r_t over the target's classes.

    Args:
        source: at least two classes, of at least two images each.
        target: at least one class, of at least two images each.

    Returns:
        The estimate, without a unit; invariant under scale, rotation (but for p) and shift of the embedding. None where a class cannot be told from m: the other
        classes' r_t are told even then. `residual_per_class` has each r_t, `mixture_per_class` the largest three weights of each. `terms` are the
        largest r_t, the mean of the permutations' plain residuals, and p, which compares these with that of the data.
    """
    images = int(source.counts.sum() + target.counts.sum())
    if len(source.names) < 2:
        return missing("mixtures of source classes need at least 2 classes, found 1", images)
    if reason := source.reason or target.reason:
        return missing(reason, images)
    corners, points = source.whole, target.whole
    noise = (
        target.variances / target.counts.sum(0) + float((source.variances / source.counts.sum(0)).sum()) / len(source.names) ** 2
    )
    far = (points - corners.mean(0)).square().sum(1) - noise
    told = far > _TOLD * noise
    weights = hull_weights(points, corners)
    seen = _distances(weights, points, corners)
    added = [_added(row, corners, of_point, source.noise) for row, of_point in zip(weights, target.noise, strict=True)]
    found = (seen - torch.stack(added)) / far
    details: dict[str, Any] = {
        "residual_per_class": {
            name: r for name, r, known in zip(target.names, found.tolist(), told.tolist(), strict=True) if known
        },
        "mixture_per_class": {name: _largest(row, source.names) for name, row in zip(target.names, weights, strict=True)},
    }
    if not bool(told.all()):
        names = [name for name, known in zip(target.names, told.tolist(), strict=True) if not known]
        return missing(
            f"{len(names)} target classes ({shorten(names, 3)}) cannot be told from the mean of the source's by these images",
            images,
            **details,
        )
    plain = (points - corners.mean(0)).square().sum(1)
    others = torch.tensor([float((_permuted(points, corners, number) / plain).mean()) for number in range(_PERMUTATIONS)])
    value = float(found.mean())
    if not math.isfinite(value):
        return missing("the value is beyond the range of 64-bit floating point", images)
    details["terms"] = {
        "largest": float(found.max()),
        "permuted": float(others.mean()),
        "p": (1 + int((others <= float((seen / plain).mean())).sum())) / (1 + _PERMUTATIONS),
    }
    return Estimate(value, n=images, details=details)


def _added(weights: Tensor, corners: Tensor, of_point: Tensor, of_corners: Tensor) -> Tensor:
    """Estimate by how much noise of the means makes a squared distance larger."""
    used = weights > _ZERO * weights.max()
    edges = corners[used][1:] - corners[used][:1]
    errors = torch.cat([of_point[None], weights[:, None] * of_corners])
    basis: Tensor = torch.linalg.qr(edges.T).Q
    return (errors - errors @ basis @ basis.T).square().sum()


def _distances(weights: Tensor, points: Tensor, corners: Tensor) -> Tensor:
    middle = corners.mean(0)
    return (points - middle - weights @ (corners - middle)).square().sum(1)


def _permuted(points: Tensor, corners: Tensor, number: int) -> Tensor:
    """Return squared distances where each dimension's values are permuted among the corners."""
    rows, columns = (torch.arange(size) for size in corners.shape)
    keys = random_order_keys(derive_seed(0, "granularity", str(number)), rows[:, None], columns[None, :])
    mixed = corners.gather(0, keys.argsort(0))
    return _distances(hull_weights(points, mixed, gap=_ROUGH), points, mixed)


def _largest(weights: Tensor, names: tuple[str, ...]) -> dict[str, float]:
    found = weights.topk(min(_NAMED, len(names)))
    pairs = zip(found.values.tolist(), found.indices.tolist(), strict=True)
    return {names[place]: weight for weight, place in pairs if weight > _ZERO}

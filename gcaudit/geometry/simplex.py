"""Class means, or weights of a head, against the corners of a simplex (an equiangular tight frame, ETF).

With A the (K, K) inner products and E = (I - 11^T/K)/sqrt(K - 1),

    | A/|A| - E |^2 = 2 - 2 <A, E>/|A|,   |.| the Frobenius norm

Noise of class means makes |A| longer: by its own variance, summed over entries, which is taken off |A|^2. So the square is close to unbiased,
may be below 0, and is 0 then.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from gcaudit.geometry.conditions import ONE_IMAGE
from gcaudit.geometry.delta import ClassStatistics, class_statistics, delta_method
from gcaudit.geometry.estimate import Estimate, missing, normal_estimate
from gcaudit.geometry.evidence import Evidence
from gcaudit.geometry.interval import student_95

_COLLAPSED = 1e-7
_MOST_NOISE = 0.5
_MOST_BIAS = 0.2


def simplex_error(products: Tensor) -> Tensor:
    """Compare inner products with those of a simplex.

    Args:
        products: (K, K) float64, not all 0.

    Returns:
        Scalar float64: Frobenius distance of both when each has Frobenius norm 1.
    """
    classes = len(products)
    simplex = (torch.eye(classes, dtype=products.dtype) - 1 / classes) / (classes - 1) ** 0.5
    scaled = products / products.detach().abs().max()
    error: Tensor = torch.linalg.vector_norm(scaled / torch.linalg.vector_norm(scaled) - simplex)
    return error


def simplex_estimate(
    evidence: Evidence, products: Callable[[ClassStatistics], Tensor], plain: Callable[[ClassStatistics], Tensor], noise: float
) -> Estimate:
    """Measure the distance of inner products from those of a simplex, for the distribution's class means.

    Args:
        evidence: whose class means differ.
        products: from statistics to (K, K) unbiased products, whose rows or columns sum to 0.
        plain: the same of the images at hand, which are what `plug_in` is made of.
        noise: what noise adds to the squared norm of `products`.

    Returns:
        The estimate; None where noise makes up most of that. At the level of rounding it has no standard error.
    """
    images = evidence.images
    plug_in = float(simplex_error(plain(class_statistics(evidence))))
    if bool((evidence.moments.counts < 2).any()):
        return missing(ONE_IMAGE, images, plug_in=plug_in)
    classes = evidence.classes

    def squared(stats: ClassStatistics) -> Tensor:
        found = products(stats)
        length = (found.square().sum() - noise).clamp(min=torch.finfo(torch.float64).tiny).sqrt()
        return 2 - 2 * found.trace() / length / math.sqrt(classes - 1)

    if plug_in <= _COLLAPSED:
        return normal_estimate(plug_in, None, images, "a simplex up to rounding: no standard error", plug_in=plug_in)
    total = float(products(class_statistics(evidence)).square().sum())
    if noise > _MOST_NOISE * total:
        share = f"noise of few images makes up {noise / total:.0%} of the length of the class means' products"
        return missing(f"{share}; take more images", images, plug_in=plug_in)
    square, influence = delta_method(evidence, squared)
    trace, by_trace = delta_method(evidence, lambda stats: products(stats).trace())
    length, by_length = delta_method(evidence, lambda stats: products(stats).square().sum() - noise)
    assert influence is not None
    assert by_trace is not None
    assert by_length is not None
    # what the ratio of two noisy numbers is off by on average
    bias = 3 / 8 * by_length.square().sum() / length**2 - (by_trace * by_length).sum() / (2 * trace * length)
    square = 2 - (2 - square) * (1 - bias.clamp(min=-_MOST_BIAS, max=_MOST_BIAS))
    error = float(influence.norm())
    reach = student_95(influence, evidence.labels, classes) * error
    value = math.sqrt(max(0.0, float(square)))
    low, high = (math.sqrt(min(4.0, max(0.0, float(square) + sign * reach))) for sign in (-1, 1))
    # the error of a root, as long as it is not that of 0
    slope = 1 / (2 * max(value, math.sqrt(error)))
    return replace(normal_estimate(value, influence * slope, images, plug_in=plug_in), ci95=(low, high))


def centred_means(means: Tensor) -> Tensor:
    """Return class means less their mean, in units of the largest entry, so that their products neither overflow nor vanish.

    Args:
        means: (K, D) float64, not all equal.

    Returns:
        (K, D) float64.
    """
    centred = means - means.mean(0)
    return centred / centred.detach().abs().max()

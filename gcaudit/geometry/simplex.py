"""Class means, or weights of a head, against the corners of a simplex (an equiangular tight frame, ETF)."""

from __future__ import annotations

import torch
from torch import Tensor

from gcaudit.geometry.conditions import ONE_IMAGE
from gcaudit.geometry.delta import Statistic, delta_method
from gcaudit.geometry.estimate import Estimate, normal_estimate
from gcaudit.geometry.evidence import Evidence

_COLLAPSED = 1e-7


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


def simplex_estimate(evidence: Evidence, statistic: Statistic) -> Estimate:
    """Measure a distance from the simplex, which has a kink where it is 0.

    Args:
        evidence: whose class means differ.
        statistic: the distance.

    Returns:
        The estimate; at the level of rounding it has no standard error.
    """
    value, influence = delta_method(evidence, statistic)
    if float(value) <= _COLLAPSED:
        return normal_estimate(value, None, evidence.images, "a simplex up to rounding: no standard error")
    return normal_estimate(value, influence, evidence.images, ONE_IMAGE)


def centred_means(means: Tensor) -> Tensor:
    """Return class means less their mean, in units of the largest entry, so that their products neither overflow nor vanish.

    Args:
        means: (K, D) float64, not all equal.

    Returns:
        (K, D) float64.
    """
    centred = means - means.mean(0)
    return centred / centred.detach().abs().max()

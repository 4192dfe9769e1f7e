"""NC2: how far the class means are from the corners of a simplex (an equiangular tight frame, ETF).

With M the (K, D) class means less their mean (unweighted), G = M M^T and |.|_F the Frobenius norm,

    NC2 = | G/|G|_F - (I - 11^T/K)/sqrt(K - 1) |_F

0 where all class means have the same distance from their centre and the same angle between any two, as far apart as K directions can be; never
above sqrt(2). One number in place of the two coefficients of variation in Papyan et al. It is a length: noise of the class means makes it longer, so that
a value of one or two standard errors says nothing but that it is small.

References: Papyan, Han, Donoho, "Prevalence of neural collapse during the terminal phase of deep learning training", PNAS 2020; Zhu et al., "A
geometric analysis of neural collapse with unconstrained features", NeurIPS 2021 (the error as one Frobenius norm).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcaudit.geometry.complexity import ONE_IMAGE
from gcaudit.geometry.delta import ClassStatistics, Statistic, delta_method
from gcaudit.geometry.estimate import Estimate, missing, normal_estimate
from gcaudit.geometry.evidence import Evidence

_RESOLUTION = 64 * torch.finfo(torch.float64).eps
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


def means_reason(evidence: Evidence) -> str | None:
    """Say why the class means have no geometry.

    Args:
        evidence: any.

    Returns:
        The reason, or None.
    """
    if evidence.classes < 2:
        return f"the geometry of class means needs at least 2 classes, found {evidence.classes}"
    if reason := evidence.moments.range_reason:
        return reason
    means = evidence.moments.means
    spread = (means - means.mean(0)).abs().max()
    if float(spread) <= _RESOLUTION * float(means.abs().max()):
        return "all class means are equal"
    return None


def nc2(evidence: Evidence) -> Estimate:
    """Measure the distance of the class means from a simplex.

    Args:
        evidence: at least three classes: two centred means are always a simplex.

    Returns:
        The estimate, from 0 (collapsed) to sqrt(2); lower is better. Invariant under scale, rotation and shift.

    Example:
        Class means -1, 0, 1 on a line: G/|G|_F = [[1, 0, -1], [0, 0, 0], [-1, 0, 1]]/2, and NC2 = sqrt(2 - sqrt(2)).
    """
    reason = means_reason(evidence)
    if evidence.classes == 2:
        reason = "the centred means of 2 classes are always a simplex: NC2 needs at least 3 classes"
    if reason:
        return missing(reason, evidence.images)

    def statistic(stats: ClassStatistics) -> Tensor:
        means = centred_means(stats.means)
        return simplex_error(means @ means.T)

    return simplex_estimate(evidence, statistic)

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

from torch import Tensor

from gcaudit.geometry import (
    ClassStatistics,
    Estimate,
    Evidence,
    centred_means,
    means_reason,
    missing,
    simplex_error,
    simplex_estimate,
)


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

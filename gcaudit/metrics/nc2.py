"""NC2: how far the class means are from the corners of a simplex (an equiangular tight frame, ETF).

With M the (K, D) class means less their mean (unweighted), G = M M^T and |.|_F the Frobenius norm,

    NC2 = | G/|G|_F - (I - 11^T/K)/sqrt(K - 1) |_F

0 where all class means have the same distance from their centre and the same angle between any two, as far apart as K directions can be; never
above sqrt(2). One number in place of the two coefficients of variation in Papyan et al. Noise of the class means makes them look more like a simplex, as
it is the same in all directions, and G longer: both are taken off (`geometry/simplex.py`).

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
    class_statistics,
    means_reason,
    missing,
    simplex_error,
    simplex_estimate,
    single_reason,
)


def nc2(evidence: Evidence) -> Estimate:
    """Measure the distance of the class means from a simplex.

    Args:
        evidence: at least three classes: two centred means are always a simplex.

    Returns:
        The estimate, from 0 (collapsed) to sqrt(2), of the distribution's class means; `plug_in` of those of the images at hand. Lower is better.
        Invariant under scale, rotation and shift.

    Example:
        Class means -1, 0, 1 on a line: G/|G|_F = [[1, 0, -1], [0, 0, 0], [-1, 0, 1]]/2, and `plug_in` is sqrt(2 - sqrt(2)).
    """
    reason = means_reason(evidence)
    if evidence.classes == 2:
        reason = "the centred means of 2 classes are always a simplex: NC2 needs at least 3 classes"
    if reason:
        return missing(reason, evidence.images)

    if reason := single_reason(evidence):
        return missing(reason, evidence.images, plug_in=float(simplex_error(_plain(class_statistics(evidence)))))
    pairs = evidence.pairs

    def products(stats: ClassStatistics) -> Tensor:
        means = (stats.means - stats.means.mean(0)) / pairs.unit
        noise = stats.variances / (stats.counts - 1) / pairs.unit**2
        classes = len(noise)
        # that of a mean, less its share in the mean of means
        own = noise.diag() - (noise[:, None] + noise) / classes + noise.sum() / classes**2
        return means @ means.T - own

    return simplex_estimate(evidence, products, _plain, pairs.product_noise)


def _plain(stats: ClassStatistics) -> Tensor:
    means = centred_means(stats.means)
    return means @ means.T

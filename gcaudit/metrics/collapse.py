"""Neural collapse (CDNV) and geometric collapse of the distribution that the images were drawn from.

Both are means over ordered pairs i != j of classes of something over d_ij^2, the squared distance of the class means; each is invariant under
scaling, rotating and shifting the embedding. The definitions in the papers put in the means of the images at hand. These are noisy, which makes
every distance too long: by u_i/n_i + u_j/n_j in d_ij^2, so that the plug-in CDNV of n images a class is about C (1 - 1/n)/(1 + 2C/n) where the
distribution's is C. A model with more noise around its means so looks better than it is. Here the value is that of the distribution: 1/d_ij^2 is
estimated from the debiased squared distance and its variance (`geometry/reciprocals.py`), and the covariance of numerator and distance is taken into
account. `plug_in` beside it is what the papers' formula gives for the images at hand; with many images a class both agree.

Where most of a value would come of pairs of classes whose means cannot be told apart, there is no value.

References: Galanti, Gyorgy, Hutter, "On the role of neural collapse in transfer learning", ICLR 2022 (CDNV); Munn, Dherin,
Gonzalvo, NeurIPS 2024, equations (5) and (6) (geometric collapse).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gcaudit.geometry import (
    ClassStatistics,
    Estimate,
    Evidence,
    chunks,
    class_statistics,
    debiased,
    delta_method,
    distances_reason,
    energies_reason,
    energy_count,
    energy_details,
    mean_over_pairs,
    missing,
    positive_estimate,
    reciprocal,
    reciprocal_cube,
    reciprocal_square,
    single_reason,
    squared_distances,
    unsure_reason,
)

Numerators = Callable[[ClassStatistics], Tensor]
"""From class statistics to (K, K) numerators of the pairs, linear in a quantity w of each class."""


def _mean_variance(stats: ClassStatistics) -> Tensor:
    unbiased = stats.variances * stats.counts / (stats.counts - 1)
    return (unbiased[:, None] + unbiased) / 2


def _plain_variance(stats: ClassStatistics) -> Tensor:
    return (stats.variances[:, None] + stats.variances) / 2


def _mean_complexity(stats: ClassStatistics) -> Tensor:
    classes = len(stats.complexities)
    return (classes / 2 * stats.complexities.mean()).expand(classes, classes)


def _pair_complexity(stats: ClassStatistics) -> Tensor:
    return (stats.complexities[:, None] + stats.complexities) / 2


def _plug_in(evidence: Evidence, numerators: Numerators) -> float:
    stats = class_statistics(evidence)
    squared = squared_distances(stats.means)
    return float(mean_over_pairs(numerators(stats) / squared.fill_diagonal_(torch.inf)))


def _covariances(evidence: Evidence, values: Tensor, rows: Tensor) -> Tensor:
    """Return (K, K): how the class mean of some images' values goes with the debiased squared distance of class i to j."""
    pairs, labels = evidence.pairs, evidence.labels[rows]
    classes = len(pairs.counts)
    sizes = torch.bincount(labels, minlength=classes).to(torch.float64)
    centre = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, values) / sizes
    deviations = values - centre[labels]
    pull = torch.zeros_like(pairs.means)
    stretch = torch.zeros(classes, dtype=torch.float64)
    for part, embedded in chunks(evidence.embeddings, rows):
        own = labels[part]
        z = (embedded - evidence.moments.means[own]) / pairs.unit
        pull.index_add_(0, own, deviations[part, None] * z)
        stretch.index_add_(0, own, deviations[part] * z.square().sum(1))
    onto = pull @ pairs.means.T
    change = 2 * (onto.diagonal()[:, None] - onto) - (stretch / (pairs.counts - 1))[:, None]
    return change / (pairs.counts * (sizes - 1).clamp(min=1))[:, None]


def _estimate(evidence: Evidence, numerators: Numerators, covariances: Tensor, n: int, **details: Any) -> Estimate:
    """Average numerators over debiased squared distances.

    Args:
        evidence: the observed images.
        numerators: of the pairs.
        covariances: (K, K) of numerator and squared distance.
        n: the number of images.
        details: of the estimate, and energies that have a say.
    """
    pairs = evidence.pairs
    area = pairs.unit**2

    def statistic(stats: ClassStatistics) -> Tensor:
        unbiased = stats.variances * stats.counts / (stats.counts - 1) / area
        squared = debiased(squared_distances(stats.means / pairs.unit), unbiased, stats.counts)
        return mean_over_pairs(numerators(stats) / area * reciprocal(squared, pairs.noise))

    value, influence = delta_method(evidence, statistic)
    value = value + mean_over_pairs(covariances * reciprocal_square(pairs.squared, pairs.noise))
    heights = numerators(class_statistics(evidence)) / area
    curvature = 2 * heights * reciprocal_cube(pairs.squared, pairs.noise) * pairs.noise
    classes = len(pairs.counts)
    both = (curvature + curvature.T).fill_diagonal_(0.0) / (classes * (classes - 1))
    return positive_estimate(value, influence, evidence.labels, n, second=float(both.square().sum()) / 4, **details)


def cdnv(evidence: Evidence) -> Estimate:
    """Measure the class-distance normalised variance, the paper's measure of neural collapse.

    CDNV = mean over ordered pairs i != j of (v_i + v_j) / (2 d_ij^2) of the distribution. 0 is full collapse.

    Args:
        evidence: at least two classes with at least two images each.

    Returns:
        The estimate, without unit, `plug_in` with v_c divided by n_c and the distances of the images at hand; None with a reason when two
        class means coincide, or when most of the value would come of pairs that cannot be told apart.

    Example:
        Classes {-1, 1} and {9, 11} on a line: v = 1, d^2 = 100, and `plug_in` is (1 + 1) / 200 = 0.01.
    """
    reason = single_reason(evidence) or distances_reason(evidence)
    if reason:
        return missing(reason, evidence.images)
    plug_in = _plug_in(evidence, _plain_variance)
    if reason := unsure_reason(evidence):
        return missing(reason, evidence.images, plug_in=plug_in)
    squares = torch.empty(evidence.images, dtype=torch.float64)
    for rows, z in chunks(evidence.embeddings):
        squares[rows] = ((z - evidence.moments.means[evidence.labels[rows]]) / evidence.pairs.unit).square().sum(1)
    counts = evidence.pairs.counts
    own = _covariances(evidence, squares, torch.arange(evidence.images)) * (counts / (counts - 1))[:, None]
    return _estimate(evidence, _mean_variance, (own + own.T) / 2, evidence.images, plug_in=plug_in)


def _collapse(evidence: Evidence, numerators: Numerators) -> Estimate:
    count = energy_count(evidence)
    reason = energies_reason(evidence) or distances_reason(evidence)
    if reason:
        return missing(reason, count)
    details = {"plug_in": _plug_in(evidence, numerators), **energy_details(evidence)}
    if reason := single_reason(evidence) or unsure_reason(evidence):
        return missing(reason, count, **details)
    assert evidence.energies is not None
    assert evidence.energy_rows is not None
    own = _covariances(evidence, evidence.energies / evidence.pairs.unit**2, evidence.energy_rows)
    return _estimate(evidence, numerators, (own + own.T) / 2, count, energies=evidence.energies, **details)


def geometric_collapse(evidence: Evidence) -> Estimate:
    """Measure the geometric collapse: GC against the distances of the class means.

    GC / (K - 1) * sum over unordered pairs of 1/d_ij^2 of the distribution, which is K/2 * GC * mean over ordered pairs of 1/d_ij^2. This is what
    the derivation of the paper's equation (6) gives; a text that sums over ordered pairs reports twice this number. It
    bounds CDNV: CDNV <= kappa * geometric collapse for a Poincare constant kappa. Compare at equal K, input size and data.

    Args:
        evidence: at least two classes with at least two images each, with energies.

    Returns:
        The estimate, per squared pixel unit; `plug_in` with the distances of the images at hand.
    """
    return _collapse(evidence, _mean_complexity)


def geometric_collapse_refined(evidence: Evidence) -> Estimate:
    """Measure the refined geometric collapse, which can be compared across numbers of classes.

    Mean over ordered pairs i != j of (GC_i + GC_j) / (2 d_ij^2) of the distribution; never larger than `geometric_collapse`.

    Args:
        evidence: at least two classes with at least two images each, with energies.

    Returns:
        The estimate, per squared pixel unit; `plug_in` with the distances of the images at hand.
    """
    return _collapse(evidence, _pair_complexity)

"""Neural collapse (CDNV) and geometric collapse, from the class moments; directional CDNV needs two more passes over the embeddings.

All averages are over ordered pairs i != j of classes; each is invariant under scaling, rotating and shifting the embedding.

References: Galanti, Gyorgy, Hutter, "On the role of neural collapse in transfer learning", ICLR 2022 (CDNV); Munn, Dherin,
Gonzalvo, NeurIPS 2024, equations (5) and (6) (geometric collapse).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcaudit.geometry import (
    ONE_IMAGE,
    ClassStatistics,
    Estimate,
    Evidence,
    Statistic,
    chunks,
    delta_method,
    energies_reason,
    energy_count,
    missing,
    normal_estimate,
)

_RESOLUTION = 64 * torch.finfo(torch.float64).eps


def squared_distances(means: Tensor) -> Tensor:
    """Return d_ij^2, by differences rather than by expanding the square, which would cancel.

    Args:
        means: (K, D) float64 class means.

    Returns:
        (K, K) float64, differentiable; the diagonal is 0.
    """
    centred = means - means.mean(0)
    distances = torch.cdist(centred, centred, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.square()


def mean_over_pairs(values: Tensor) -> Tensor:
    """Average a (K, K) matrix over ordered pairs i != j.

    Args:
        values: (K, K); the diagonal may hold anything.

    Returns:
        Scalar.
    """
    classes = len(values)
    keep = ~torch.eye(classes, dtype=torch.bool, device=values.device)
    return torch.where(keep, values, torch.zeros_like(values)).sum() / (classes * (classes - 1))


def _inverse(squared: Tensor) -> Tensor:
    """Invert d_ij^2 off the diagonal; 0 on it, also for gradients."""
    eye = torch.eye(len(squared), dtype=torch.bool, device=squared.device)
    return torch.where(eye, torch.zeros_like(squared), 1 / torch.where(eye, torch.ones_like(squared), squared))


def _pair_reason(evidence: Evidence) -> str | None:
    if evidence.classes < 2:
        return f"pairs of classes need at least 2 classes, found {evidence.classes}"
    if reason := evidence.moments.range_reason:
        return reason
    means = evidence.moments.means
    scale = float(means.norm(dim=1).max())
    squared = squared_distances(means)
    squared.fill_diagonal_(torch.inf)
    lowest = int(torch.argmin(squared))
    if float(squared.flatten()[lowest]) <= (_RESOLUTION * scale) ** 2:
        names = evidence.class_names[lowest // evidence.classes], evidence.class_names[lowest % evidence.classes]
        return f"classes {names[0]!r} and {names[1]!r} have the same mean embedding: their distance is 0"
    return None


def _variance_reason(evidence: Evidence) -> str | None:
    short = [name for name, n in zip(evidence.class_names, evidence.moments.counts.tolist(), strict=True) if n < 2]
    return f"class {short[0]!r} has 1 image: the variance within a class needs 2" if short else None


def _cdnv(stats: ClassStatistics) -> Tensor:
    pooled = (stats.variances[:, None] + stats.variances[None, :]) / 2
    return mean_over_pairs(pooled * _inverse(squared_distances(stats.means)))


def cdnv(evidence: Evidence) -> Estimate:
    """Measure the class-distance normalised variance, the paper's measure of neural collapse.

    CDNV = mean over ordered pairs i != j of (v_i + v_j) / (2 d_ij^2), with v_c divided by n_c. 0 is full collapse.

    Args:
        evidence: at least two classes with at least two images each.

    Returns:
        The estimate, without unit; None with a reason when two class means coincide.

    Example:
        Classes {-1, 1} and {9, 11} on a line: v = 1, d^2 = 100, CDNV = (1 + 1) / 200 = 0.01.
    """
    reason = _variance_reason(evidence) or _pair_reason(evidence)
    if reason:
        return missing(reason, evidence.images)
    value, influence = delta_method(evidence, _cdnv)
    return normal_estimate(value, influence, evidence.images)


def _debiased_parts(stats: ClassStatistics) -> tuple[Tensor, Tensor]:
    unbiased = stats.variances * stats.counts / (stats.counts - 1)
    share = unbiased / stats.counts
    squared = squared_distances(stats.means) - share[:, None] - share[None, :]
    return (unbiased[:, None] + unbiased[None, :]) / 2, squared


def _cdnv_debiased(stats: ClassStatistics) -> Tensor:
    pooled, squared = _debiased_parts(stats)
    return mean_over_pairs(pooled * _inverse(squared))


def cdnv_debiased(evidence: Evidence) -> Estimate:
    """Measure CDNV with unbiased numerator and denominator.

    CDNV with u_c in place of v_c and d_ij^2 - u_i/n_i - u_j/n_j in place of d_ij^2: the plug-in squared distance is too large by
    just those terms. Numerator and denominator are unbiased; their ratio is not. Compares data sets of different size.

    Args:
        evidence: at least two classes with at least two images each.

    Returns:
        The estimate, without unit; None when a pair's debiased distance is not positive, with the count of such pairs.
    """
    reason = _variance_reason(evidence) or _pair_reason(evidence)
    if reason:
        return missing(reason, evidence.images)
    moments = evidence.moments
    counts = moments.counts.to(torch.float64)
    _, squared = _debiased_parts(ClassStatistics(counts, moments.means, moments.variances(), counts))
    squared.fill_diagonal_(torch.inf)
    bad = int((squared <= 0).sum()) // 2
    if bad:
        pairs = evidence.classes * (evidence.classes - 1) // 2
        return missing(f"{bad} of {pairs} class pairs have a debiased squared distance <= 0: too few images", evidence.images)
    value, influence = delta_method(evidence, _cdnv_debiased)
    return normal_estimate(value, influence, evidence.images)


def directional_cdnv(evidence: Evidence) -> Estimate:
    """Measure CDNV along the lines between class means, which is all that a nearest-mean rule sees of the variance.

    Mean over ordered pairs i != j of (variance of class i along the unit vector from mu_i to mu_j) / d_ij^2, the variance divided by n_i. Never
    larger than CDNV, and CDNV/D for classes that are round. With b_kj = (z_k - mu_i).(mu_j - mu_i) / d_ij^2 for an image k of class
    i it is the mean over pairs of U_ij, the class mean of b_kj^2; the standard error also holds what the means contribute.

    Args:
        evidence: at least two classes with at least two images each.

    Returns:
        The estimate, without unit, invariant under scale, rotation and shift; None with a reason when two class means coincide.

    Example:
        Classes {(-1, -9), (1, 9)} and {(9, 0), (11, 0)} in the plane: 1/100 along the line, whatever the spread across it.
    """
    reason = _variance_reason(evidence) or _pair_reason(evidence)
    if reason:
        return missing(reason, evidence.images)
    classes, labels = evidence.classes, evidence.labels
    counts = evidence.moments.counts.to(torch.float64)
    means = evidence.moments.means - evidence.moments.means.mean(0)
    inverse = _inverse(squared_distances(means))

    def deviations(rows: slice, z: Tensor) -> tuple[Tensor, Tensor]:
        classes_of = labels[rows]
        z = z - evidence.moments.means[classes_of]
        products = z @ means.T
        return z, (products - products.gather(1, classes_of[:, None])) * inverse[classes_of]

    shares = torch.zeros(classes, classes, dtype=torch.float64)
    pulls = torch.zeros_like(means)
    for rows, embeddings in chunks(evidence.embeddings):
        z, ratios = deviations(rows, embeddings)
        shares.index_add_(0, labels[rows], ratios.square() / counts[labels[rows], None])
        weighted = ratios * inverse[labels[rows]] / counts[labels[rows], None]
        pulls += weighted.T @ z
        pulls.index_add_(0, labels[rows], z * -weighted.sum(1, keepdim=True))
    pairs = classes * (classes - 1)
    stretch = shares * inverse
    stretch = stretch + stretch.T
    by_mean = (2 * pulls - 4 * (stretch.sum(1)[:, None] * means - stretch @ means)) / pairs
    influence = torch.empty(evidence.images, dtype=torch.float64)
    scale = 1 / (counts * (counts - 1)).sqrt()
    for rows, embeddings in chunks(evidence.embeddings):
        z, ratios = deviations(rows, embeddings)
        direct = (ratios.square() - shares[labels[rows]]).sum(1) / pairs
        influence[rows] = scale[labels[rows]] * (direct + (z * by_mean[labels[rows]]).sum(1))
    return normal_estimate(mean_over_pairs(shares), influence, evidence.images)


def _geometric_collapse(stats: ClassStatistics) -> Tensor:
    inverse = mean_over_pairs(_inverse(squared_distances(stats.means)))
    return len(stats.means) / 2 * stats.complexities.mean() * inverse


def _geometric_collapse_refined(stats: ClassStatistics) -> Tensor:
    pooled = (stats.complexities[:, None] + stats.complexities[None, :]) / 2
    return mean_over_pairs(pooled * _inverse(squared_distances(stats.means)))


def _collapse(evidence: Evidence, statistic: Statistic) -> Estimate:
    reason = energies_reason(evidence) or _pair_reason(evidence)
    if reason:
        return missing(reason, energy_count(evidence))
    value, influence = delta_method(evidence, statistic)
    provenance = {"estimator": evidence.estimator, "vectors": evidence.vectors}
    return normal_estimate(value, influence, energy_count(evidence), ONE_IMAGE, **provenance)


def geometric_collapse(evidence: Evidence) -> Estimate:
    """Measure the geometric collapse: GC against the distances of the class means.

    GC / (K - 1) * sum over unordered pairs of 1/d_ij^2, which is K/2 * GC * mean over ordered pairs of 1/d_ij^2. This is what
    the derivation of the paper's equation (6) gives; a text that sums over ordered pairs reports twice this number. It
    bounds CDNV: CDNV <= kappa * geometric collapse for a Poincare constant kappa. Compare at equal K, input size and data.

    Args:
        evidence: at least two classes, with energies.

    Returns:
        The estimate, per squared pixel unit.
    """
    return _collapse(evidence, _geometric_collapse)


def geometric_collapse_refined(evidence: Evidence) -> Estimate:
    """Measure the refined geometric collapse, which can be compared across numbers of classes.

    Mean over ordered pairs i != j of (GC_i + GC_j) / (2 d_ij^2); never larger than `geometric_collapse`.

    Args:
        evidence: at least two classes, with energies.

    Returns:
        The estimate, per squared pixel unit.
    """
    return _collapse(evidence, _geometric_collapse_refined)

"""Geometric complexity of an embedding (GC) and its scale-free companions.

    GC = mean over classes of GC_c,   GC_c = mean of g(x) over class c,   g(x) = ||J(x)||_F^2

A low GC means an embedding that changes slowly with the pixels. GC scales with the square of the embedding, so it compares the
checkpoints of one training family only; relative GC divides by the total variance of the embedding and is free of scale.

Reference: Munn, Dherin, Gonzalvo, NeurIPS 2024, section 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcaudit.geometry import (
    ONE_IMAGE,
    ClassStatistics,
    Estimate,
    Evidence,
    class_complexities,
    delta_method,
    energies_reason,
    energy_count,
    missing,
    normal_estimate,
)


def _mean_complexity(stats: ClassStatistics) -> Tensor:
    return stats.complexities.mean()


def total_variance(stats: ClassStatistics) -> Tensor:
    """Return the class-balanced mean of squared distances to the grand mean.

    Args:
        stats: class statistics.

    Returns:
        float64 scalar: mean of v_c plus mean of |mu_c - mean of mu|^2.
    """
    between = (stats.means - stats.means.mean(0)).square().sum(1)
    return (stats.variances + between).mean()


def _provenance(evidence: Evidence) -> dict[str, object]:
    return {"estimator": evidence.estimator, "vectors": evidence.vectors}


def gc(evidence: Evidence) -> Estimate:
    """Measure the geometric complexity, class-balanced.

    GC = (1/K) sum_c GC_c. Scaling the embedding by a scales GC by a^2; rotations and shifts leave it alone. The standard error
    comes from the energies of single images, hence contains both the spread of the images and the noise of the random vectors.

    Args:
        evidence: with energies.

    Returns:
        The estimate; `details["gc_per_class"]` maps class names to GC_c. Unit: squared embedding units per squared pixel unit.
    """
    reason = energies_reason(evidence)
    if reason:
        return missing(reason)
    value, influence = delta_method(evidence, _mean_complexity)
    per_class = dict(zip(evidence.class_names, class_complexities(evidence).tolist(), strict=True))
    count = energy_count(evidence)
    return normal_estimate(value, influence, count, ONE_IMAGE, gc_per_class=per_class, **_provenance(evidence))


def relative_gc(evidence: Evidence) -> Estimate:
    """Measure GC divided by the total variance of the embedding.

    Total variance is the class-balanced mean of squared distances to the grand mean (the mean of class means). Invariant under
    scaling, rotating and shifting the embedding.

    Args:
        evidence: with energies.

    Returns:
        The estimate, per squared pixel unit; None when all embeddings are equal.
    """
    reason = energies_reason(evidence)
    if reason:
        return missing(reason)
    if evidence.moments.all_equal:
        return missing("all embeddings are equal: their total variance is 0", evidence.images)
    value, influence = delta_method(evidence, lambda stats: stats.complexities.mean() / total_variance(stats))
    return normal_estimate(value, influence, energy_count(evidence), ONE_IMAGE, **_provenance(evidence))


def poincare_lower_bound(evidence: Evidence) -> Estimate:
    """Estimate a lower bound for the Poincare constant of the data: the largest v_c / GC_c.

    If class c satisfies a Poincare inequality with constant kappa, v_c <= kappa GC_c, and then CDNV <= kappa times the refined
    geometric collapse. So no kappa below this number is valid. A maximum of noisy ratios is biased up.

    Args:
        evidence: with energies and at least two images a class.

    Returns:
        The estimate, in squared pixel units; invariant under scale, rotation and shift of the embedding.
    """
    reason = energies_reason(evidence)
    if reason:
        return missing(reason)
    if bool((evidence.moments.counts < 2).any()):
        return missing(ONE_IMAGE)
    complexities = class_complexities(evidence)
    if bool((complexities <= 0).any()):
        return missing("a class has zero geometric complexity")
    worst = int(torch.argmax(evidence.moments.variances() / complexities))
    value, influence = delta_method(evidence, lambda stats: stats.variances[worst] / stats.complexities[worst])
    name = evidence.class_names[worst]
    return normal_estimate(value, influence, energy_count(evidence), ONE_IMAGE, attained_by=name, **_provenance(evidence))

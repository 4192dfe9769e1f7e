"""Geometric complexity of an embedding (GC) and its scale-free companions.

    GC = mean over classes of GC_c,   GC_c = mean of g(x) over class c,   g(x) = ||J(x)||_F^2

A low GC means an embedding that changes slowly with the pixels. GC scales with the square of the embedding, so it compares the
checkpoints of one training family only; relative GC divides by the total variance of the embedding and is free of scale.

Reference: Munn, Dherin, Gonzalvo, NeurIPS 2024, section 2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gcaudit.geometry import (
    ONE_IMAGE,
    ClassStatistics,
    Estimate,
    Evidence,
    class_complexities,
    delta_method,
    describe_tail,
    energies_reason,
    energy_count,
    energy_details,
    missing,
    positive_estimate,
    positive_maximum,
    tail_reason,
)

_TINY = torch.finfo(torch.float64).tiny
_NEVER = 1e-9


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


def _estimate(evidence: Evidence, value: Tensor, influence: Tensor | None, **details: Any) -> Estimate:
    return positive_estimate(
        value,
        influence,
        evidence.labels,
        energy_count(evidence),
        reason=ONE_IMAGE,
        energies=evidence.energies,
        **energy_details(evidence),
        **details,
    )


def gc(evidence: Evidence) -> Estimate:
    """Measure the geometric complexity, class-balanced.

    GC = (1/K) sum_c GC_c. Scaling the embedding by a scales GC by a^2; rotations and shifts leave it alone. The standard error
    comes from the energies of single images, hence contains both the spread of the images and the noise of the random vectors.

    Args:
        evidence: with energies.

    Returns:
        The estimate; `details["gc_per_class"]` maps class names to GC_c, `energy_median`, `energy_top_share` (of the largest 1%) and
        `energy_tail_index` (Hill's) describe the energies. Unit: squared embedding units per squared pixel unit.
    """
    reason = energies_reason(evidence)
    if reason:
        return missing(reason)
    value, influence = delta_method(evidence, _mean_complexity)
    per_class = dict(zip(evidence.class_names, class_complexities(evidence).tolist(), strict=True))
    assert evidence.energies is not None
    tail = describe_tail(evidence.energies)
    return _estimate(
        evidence,
        value,
        influence,
        gc_per_class=per_class,
        energy_median=tail.median,
        energy_top_share=tail.top_share,
        energy_tail_index=tail.index,
    )


def logits_gc(evidence: Evidence) -> Estimate:
    """Measure the geometric complexity of the head's outputs, class-balanced, in the pass that measures the embedding's.

    GC of x -> logits(x), as of the embedding. The head multiplies: with a linear head W it is at most the squared spectral norm of W times GC. It is what
    Dherin et al. (NeurIPS 2022) measure and penalise, and it does not compare models with other classes.

    Args:
        evidence: with energies of the logits.

    Returns:
        The estimate, in squared logit units per squared pixel unit; its details are those of `gc`.
    """
    found = evidence.logit_energies
    if found is None:
        return missing(evidence.logits_reason if evidence.energies is not None else "the Jacobian was not measured on these images")
    return gc(replace(evidence, energies=found.values, estimator=found.estimator, vectors=found.vectors))


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
    return _estimate(evidence, value, influence)


def poincare_lower_bound(evidence: Evidence) -> Estimate:
    """Estimate how large the Poincare constant of the data must be at least: the largest v_c / GC_c.

    If class c satisfies a Poincare inequality with constant kappa, v_c <= kappa GC_c, and then CDNV <= kappa times the refined
    geometric collapse. So no kappa below this number of the distribution is valid. The largest of noisy ratios is too large; what it is too
    large by is estimated, with the ratios pulled together by as much as noise has spread them, and taken off. It is an estimate of a bound, not a
    bound: the true number may be above or below it.

    Args:
        evidence: with energies and at least two images a class.

    Returns:
        The estimate, in squared pixel units; invariant under scale, rotation and shift of the embedding. `plug_in` is the largest ratio of the
        images at hand, with v_c divided by n_c; `attained_by` names its class. `terms` has `bias`, what noise adds to the largest ratio on average and
        was taken off it: as a share of the value, 0.1 say, it tells how far the plug-in estimate is off.
    """
    reason = energies_reason(evidence)
    if reason:
        return missing(reason)
    counts = evidence.moments.counts
    if bool((counts < 2).any()):
        return missing(ONE_IMAGE)
    complexities = class_complexities(evidence)
    if bool((complexities <= 0).any()):
        return missing("a class has zero geometric complexity")
    plain = evidence.moments.variances() / complexities
    ratios = evidence.moments.variances(1) / complexities
    worst = int(torch.argmax(ratios))
    if not bool(torch.isfinite(ratios).all()) or not float(ratios[worst]) > 0:
        return missing("no class has a variance", energy_count(evidence))
    _, influence = delta_method(evidence, lambda stats: (stats.variances / stats.complexities).sum())
    details = {"attained_by": evidence.class_names[worst], "plug_in": float(plain.max()), **energy_details(evidence)}
    assert evidence.energies is not None
    reason = ONE_IMAGE if influence is None else tail_reason(evidence.energies)
    if influence is None or reason:
        return Estimate(float(ratios[worst]), n=energy_count(evidence), reason=reason, details=details)
    squares = torch.zeros(evidence.classes, dtype=torch.float64).index_add_(0, evidence.labels, influence.square())
    value, chances = positive_maximum(ratios, squares.sqrt() * counts / (counts - 1))
    chances = torch.where(chances > _NEVER, chances, 0.0)
    details["terms"] = {"bias": float(ratios[worst]) - value}
    own = influence * (value * chances.sqrt() / plain.clamp(min=_TINY))[evidence.labels]
    return positive_estimate(value, own, evidence.labels, energy_count(evidence), **details)

"""Standard errors of smooth functions of the class moments, by the delta method.

GC, CDNV, the geometric collapse and others are each a smooth function T of the class means mu_c, class variances v_c and class
complexities GC_c. To first order an image x of class c moves T by its influence

    psi(x) = [ dT/dmu_c . (z - mu_c) + dT/dv_c (|z - mu_c|^2 - v_c) ] / n_c  +  dT/dGC_c (g(x) - GC_c) / m_c

(m_c: images of class c with an energy; the last term is there for those images only), and Var(T) is the sum of psi^2. The
gradient is taken by automatic differentiation, so that a new quantity brings its standard error along. Images are
independent draws from their class; classes are fixed. Each sum over a class carries the factor n_c/(n_c - 1) for the estimated mean.

It costs one pass over the embeddings and agrees with the stratified bootstrap, which costs hundreds.

Reference: van der Vaart, "Asymptotic Statistics", Cambridge 1998, chapter 3 and section 20.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gcaudit.geometry.evidence import Evidence
from gcaudit.geometry.rows import chunks


@final
@dataclass(frozen=True)
class ClassStatistics:
    """The arguments of a statistic.

    Attributes:
        counts: (K,) float64 n_c.
        means: (K, D) float64 mu_c.
        variances: (K,) float64 v_c.
        complexities: (K,) float64 GC_c; zeros when no energies were measured.
    """

    counts: Tensor
    means: Tensor
    variances: Tensor
    complexities: Tensor


Statistic = Callable[[ClassStatistics], Tensor]


def class_complexities(evidence: Evidence) -> Tensor:
    """Return GC_c, the class means of the energies.

    Args:
        evidence: with energies.

    Returns:
        (K,) float64; NaN for a class without energies.
    """
    if evidence.energies is None or evidence.energy_rows is None:
        return torch.zeros(evidence.classes, dtype=torch.float64)
    sums = torch.zeros(evidence.classes, dtype=torch.float64)
    sums.index_add_(0, evidence.labels[evidence.energy_rows], evidence.energies)
    return sums / evidence.energy_counts()


def class_statistics(evidence: Evidence) -> ClassStatistics:
    """Return the arguments of a statistic.

    Args:
        evidence: the observed images.

    Returns:
        Counts, means, variances and complexities.
    """
    moments = evidence.moments
    return ClassStatistics(moments.counts.to(torch.float64), moments.means, moments.variances(), class_complexities(evidence))


def delta_method(evidence: Evidence, statistic: Statistic) -> tuple[Tensor, Tensor | None]:
    """Evaluate a statistic and the influence of each image on it.

    Args:
        evidence: the observed images.
        statistic: a differentiable scalar function of `ClassStatistics`.

    Returns:
        The value, a float64 scalar, and (N,) float64 influences whose norm is the standard error; None where a class that
        matters has a single image.
    """
    moments = evidence.moments
    with torch.enable_grad():
        means = moments.means.clone().requires_grad_()
        variances = moments.variances().requires_grad_()
        complexities = class_complexities(evidence).requires_grad_()
        value = statistic(ClassStatistics(moments.counts.to(torch.float64), means, variances, complexities))
        inputs = (means, variances, complexities)
        gradients = torch.autograd.grad(value, inputs, allow_unused=True)
    by_mean, by_variance, by_complexity = (torch.zeros_like(x) if g is None else g for x, g in zip(inputs, gradients, strict=True))
    value = value.detach()
    uses_moments = bool(by_mean.any() or by_variance.any())
    uses_energies = bool(by_complexity.any())
    if uses_moments and bool((moments.counts < 2).any()):
        return value, None
    if uses_energies and bool((evidence.energy_counts() < 2).any()):
        return value, None
    influence = torch.zeros(evidence.images, dtype=torch.float64)
    if uses_moments:
        influence += _moment_influence(evidence, by_mean, by_variance)
    if uses_energies:
        assert evidence.energies is not None
        assert evidence.energy_rows is not None
        rows, counts = evidence.energy_rows, evidence.energy_counts().to(torch.float64)
        classes = evidence.labels[rows]
        deviations = evidence.energies - complexities.detach()[classes]
        influence[rows] += (by_complexity / (counts * (counts - 1)).sqrt())[classes] * deviations
    return value, influence


def _moment_influence(evidence: Evidence, by_mean: Tensor, by_variance: Tensor) -> Tensor:
    counts = evidence.moments.counts.to(torch.float64)
    variances = evidence.moments.variances()
    scale = 1 / (counts * (counts - 1)).sqrt()
    influence = torch.empty(evidence.images, dtype=torch.float64)
    for rows, embeddings in chunks(evidence.embeddings):
        classes = evidence.labels[rows]
        deviations = embeddings - evidence.moments.means[classes]
        linear = (deviations * by_mean[classes]).sum(1)
        quadratic = by_variance[classes] * (deviations.square().sum(1) - variances[classes])
        influence[rows] = scale[classes] * (linear + quadratic)
    return influence

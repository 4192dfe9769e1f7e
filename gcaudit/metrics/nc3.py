"""NC3: how far a linear head is from being dual to the class means.

With W the (K, D) weights of the head, row c for class c, and M the class means less their mean (unweighted),

    NC3 = | W M^T/|W M^T|_F - (I - 11^T/K)/sqrt(K - 1) |_F,   |.|_F the Frobenius norm

0 where the head's weights are the class means up to scale and these form a simplex. This is the form of the published codes, neither W nor
M normalised on its own; Papyan et al. measure | W/|W|_F - M/|M|_F |_F, which asks for duality without the simplex and also for one scale.

References: Papyan, Han, Donoho, "Prevalence of neural collapse during the terminal phase of deep learning training", PNAS 2020; Zhu et al., "A
geometric analysis of neural collapse with unconstrained features", NeurIPS 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcaudit.geometry import (
    ClassStatistics,
    Estimate,
    Evidence,
    centred_means,
    chunks,
    means_reason,
    missing,
    simplex_estimate,
)

_EPS = torch.finfo(torch.float64).eps


def nc3(evidence: Evidence) -> Estimate:
    """Measure the distance of head and class means from a common simplex.

    The head is fixed; the standard error is that of the class means.

    Args:
        evidence: with the head's weights; at least two classes.

    Returns:
        The estimate, from 0 (collapsed) to 2, of the distribution's class means; `plug_in` of those of the images at hand. Lower is better. Invariant under a common rotation, under the scale of either, and under a shift of
        the embeddings.

    Example:
        W = M gives the `plug_in` of NC2.
    """
    weight = evidence.head_weight
    if weight is None:
        return missing(evidence.head_reason, evidence.images)
    reason = means_reason(evidence)
    if reason:
        return missing(reason, evidence.images)
    if weight.shape != evidence.moments.means.shape:
        return missing(
            f"the head has weights of shape {tuple(weight.shape)}, the class means {tuple(evidence.moments.means.shape)}"
        )
    largest = weight.abs().max()
    # products of entries up to 1 in size are rounded to their number times eps
    if not largest > 0 or bool(
        ((weight / largest @ centred_means(evidence.moments.means).T).abs() <= weight.shape[1] * _EPS).all()
    ):
        return missing("the head's weights are orthogonal to all class means", evidence.images)

    weight = weight / largest
    scale = float((evidence.moments.means - evidence.moments.means.mean(0)).abs().max())

    def products(stats: ClassStatistics) -> Tensor:
        return weight @ (stats.means - stats.means.mean(0)).T / scale

    noise = torch.zeros(evidence.classes, dtype=torch.float64)
    for rows, embeddings in chunks(evidence.embeddings):
        own = evidence.labels[rows]
        noise.index_add_(0, own, ((embeddings - evidence.moments.means[own]) / scale @ weight.T).square().sum(1))
    counts = evidence.moments.counts.to(torch.float64)
    noise = noise / (counts * (counts - 1).clamp(min=1)) * (1 - 1 / evidence.classes)
    return simplex_estimate(evidence, products, products, float(noise.sum()))

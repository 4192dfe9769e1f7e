"""NC1: variation within classes against the distances between class means, seen along the directions in which the means differ.

    NC1 = tr(Sw pinv(Sb)) / K,  Sw = (1/N) sum_i (x_i - mu_y)(x_i - mu_y)^T,  Sb = (1/K) sum_c (mu_c - g)(mu_c - g)^T

g is the mean of the K class means. Classes count equally in Sb and g, images count equally in Sw: so a large class has more to
say of the variation within classes than a small one. CDNV averages over classes; here
we keep to what the common codes compute, so that numbers can be compared with theirs. They differ in g: some take the mean of
all images, which gives another number when classes have different sizes. With equal classes all agree.

With M the (K, D) matrix of centred means, M = L S R^T, the score is (1/N) sum_i |S^-1 R^T (x_i - mu_y)|^2: at most K - 1
directions, and nothing of size D x D is inverted. Singular values of M that rounding alone can make are taken for 0, as in a
pseudo-inverse.

Reference: Papyan, Han, Donoho, "Prevalence of neural collapse during the terminal phase of deep learning training", PNAS 2020.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gcaudit.geometry import Estimate, Evidence, Spectrum, centred_influence, chunks, labels_reason, missing, normal_estimate

_EPS = torch.finfo(torch.float64).eps


def _reason(evidence: Evidence) -> str | None:
    counts = evidence.moments.counts
    if bool((counts == 1).any()):
        return f"class {evidence.class_names[int((counts == 1).int().argmax())]!r} has 1 image: the variance within a class needs 2"
    return labels_reason(evidence)


def _between(spectrum: Spectrum) -> tuple[Tensor, Tensor, Tensor]:
    """Return the thin singular value decomposition of the centred class means, cut at their rank: (K, r), (r,), (D, r)."""
    means = spectrum.offsets - spectrum.offsets.mean(0)
    left, values, right = torch.linalg.svd(means, full_matrices=False)
    size = float((spectrum.centre + spectrum.offsets).norm(dim=1).max())
    cut = max(means.shape) * _EPS * float(values[0]) + math.sqrt(len(means)) * 4 * _EPS * size
    rank = int((values > cut).sum())
    return left[:, :rank], values[:rank], right[:rank].T


def _influence(evidence: Evidence, left: Tensor, values: Tensor, right: Tensor) -> Tensor | None:
    """Differentiate by the weights of images: they move Sw, and the class means with the span of Sb."""
    spectrum, unit = evidence.spectrum, values[0]
    values = values / unit
    within = spectrum.within / unit
    along = within @ right
    scatter = within.T @ along / evidence.images
    inside = right.T @ scatter
    turned = (scatter - right @ inside).T / values[:, None].pow(3)
    stretched = inside / values[:, None] / values.square()
    by_mean = 2 * left @ (turned - stretched @ right.T)
    gradient = torch.empty(evidence.images, dtype=torch.float64)
    for rows, x in chunks(evidence.embeddings):
        classes = evidence.labels[rows]
        z = (x - spectrum.centre - spectrum.offsets[classes]) / unit
        share = spectrum.counts[classes] / evidence.images
        gradient[rows] = (z @ right / values).square().sum(1) + (z * by_mean[classes]).sum(1) / share
    return centred_influence(gradient, evidence.labels, evidence.classes)


def nc1(evidence: Evidence) -> Estimate:
    """Measure NC1, the variation within classes along the directions between class means.

    tr(Sw pinv(Sb)) / K. 0 is full collapse. Invariant under scale, rotation and shift.

    Args:
        evidence: at least two classes with at least two images each.

    Returns:
        The estimate, without unit. The standard error counts the noise of the means, and with it of the span of Sb. There is none
        where the means span fewer than min(K - 1, D) directions: the least noise would add one, and with it any amount to the
        score.
    """
    reason = _reason(evidence)
    if reason:
        return missing(reason, evidence.images)
    spectrum = evidence.spectrum
    left, values, right = _between(spectrum)
    if not len(values):
        return missing("the class means are equal: there is nothing between classes to compare with", evidence.images)
    value = (spectrum.within @ right / values).square().sum() / evidence.images
    full = min(evidence.classes - 1, spectrum.within.shape[1])
    if len(values) < full:
        reason = f"the class means span {len(values)} of {full} directions: no standard error"
        return normal_estimate(value, None, evidence.images, reason)
    return normal_estimate(value, _influence(evidence, left, values, right), evidence.images)

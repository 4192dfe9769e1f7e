"""Directional CDNV: collapse along the lines between class means, which is all that a nearest-mean rule sees of the variance.

For a pair with D = mu_i - mu_j and covariance S_i, D'S_iD/|D|^4. Noise of the means makes |D| too long and adds tr S_i(S_i/n_i + S_j/n_j) to the numerator;
both are taken off (`geometry/pairs.py`). The numerator a_ij of a close pair is noisier than its mean, so the variance along D is pulled to
that of class i's other pairs, r_i, where the distance q_ij is not large beside its variance V_ij:

    value = mean over pairs of (a_ij q_ij + r_i V_ij)/(q_ij^2 + V_ij) * (estimate of 1/|D|^2)

The squares h_k of what each image moves by itself, taken along the means of the others, sum to V_1 + 2 V_2: the variance of the terms of each image, and
twice that of the terms of two images, since each of both moves them. V_2 is taken off once, from the terms x_kl = z_k'z_l (w_k + w_l + ...) themselves. Noise
in the weights makes those too large: x, their half sum of squares, is taken as x/(1 + 2x/sum h^2), so that V_1 stays positive.

Reference: Galanti, Gyorgy, Hutter, "Generalization bounds for few-shot transfer learning with pretrained classifiers", 2022 (arXiv 2212.12532), which
bounds the error of nearest-mean rules by the variance along D; Efron, Stein, "The jackknife estimate of variance", Annals of Statistics 1981.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcaudit.geometry import (
    Estimate,
    Evidence,
    along_pairs,
    chunks,
    distances_reason,
    mean_over_pairs,
    missing,
    positive_estimate,
    reciprocal,
    reciprocal_cube,
    reciprocal_square,
    single_reason,
    unsure_reason,
)

_BLOCK = 512
_ENOUGH, _PER_CLASS = 512, 4


def directional_cdnv(evidence: Evidence) -> Estimate:
    """Measure CDNV along the lines between class means.

    Mean over ordered pairs i != j of (variance of class i along the unit vector from mu_i to mu_j) / d_ij^2 of the distribution. Never
    larger than CDNV, and CDNV/D for classes that are round.

    Args:
        evidence: at least two classes with at least two images each.

    Returns:
        The estimate, without unit, invariant under scale, rotation and shift; `plug_in` with the variance divided by n_i and the means of the
        images at hand. None with a reason when two class means coincide, or when most of the value would come of pairs that cannot be told apart.

    Example:
        Classes {(-1, -9), (1, 9)} and {(9, 0), (11, 0)} in the plane: `plug_in` is 1/100 along the line, whatever the spread across it.
    """
    reason = single_reason(evidence) or distances_reason(evidence)
    if reason:
        return missing(reason, evidence.images)
    pairs, labels = evidence.pairs, evidence.labels
    classes, counts = evidence.classes, pairs.counts
    ordered = classes * (classes - 1)
    squared, noise = pairs.squared.clamp(min=0), pairs.noise
    inverse = reciprocal(pairs.squared, noise)
    weight = squared.square() + noise
    weight = torch.where(weight > 0, weight, 1.0)
    ratio = ((pairs.along * squared + pairs.along_slope[:, None] * noise) / weight).clamp(min=0)
    by_along = squared / weight * inverse
    by_squared = (pairs.along - 2 * squared * ratio) / weight * inverse * (pairs.squared > 0)
    by_squared = (by_squared - ratio * reciprocal_square(pairs.squared, noise)).fill_diagonal_(0.0)
    both = (by_squared + by_squared.T) / ordered
    by_along = by_along.fill_diagonal_(0.0) / ordered

    def deviations(rows: slice, embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        own = labels[rows]
        z = (embeddings - evidence.moments.means[own]) / pairs.unit
        return own, z, along_pairs(z @ pairs.means.T, own)

    shares = torch.zeros(classes, classes, dtype=torch.float64)
    pulls = torch.zeros_like(pairs.means)
    for rows, embeddings in chunks(evidence.embeddings):
        own, z, along = deviations(rows, embeddings)
        shares.index_add_(0, own, along.square() / counts[own, None])
        weighted = by_along[own] * along / (counts - 1)[own, None]
        pulls -= weighted.T @ z
        pulls.index_add_(0, own, z * weighted.sum(1, keepdim=True))
    plug_in = float(mean_over_pairs(shares / pairs.plain.square().fill_diagonal_(1.0)))
    if reason := unsure_reason(evidence):
        return missing(reason, evidence.images, plug_in=plug_in)
    by_mean = 2 * (pulls + both.sum(1)[:, None] * pairs.means - both @ pairs.means)
    influence, centres = torch.empty(evidence.images, dtype=torch.float64), torch.zeros(classes, dtype=torch.float64)
    scale = 1 / (counts * (counts - 1)).sqrt()
    for rows, embeddings in chunks(evidence.embeddings):
        own, z, along = deviations(rows, embeddings)
        direct = (by_along[own] * along.square()).sum(1) * (counts / (counts - 1))[own]
        pulled = (by_along[own] * along).sum(1) / (counts - 1)[own] + both.sum(1)[own] / counts[own]
        influence[rows] = direct + (z * by_mean[own]).sum(1) - 2 * pulled * z.square().sum(1)
        centres.index_add_(0, own, influence[rows] / counts[own])
    influence = scale[labels] * (influence - centres[labels])
    first = float(influence.square().sum())
    joint = _of_two_images(evidence, by_along, both)
    influence = influence * (1 - joint / (first + 2 * joint)) ** 0.5 if first > 0 else influence
    curvature = 2 * (ratio + ratio.T) * reciprocal_cube(pairs.squared, noise) * noise
    second = curvature.fill_diagonal_(0.0).square().sum() / (4 * ordered**2)
    value = mean_over_pairs(ratio * inverse)
    return positive_estimate(value, influence, labels, evidence.images, second=float(second), plug_in=plug_in)


def _of_two_images(evidence: Evidence, by_along: Tensor, both: Tensor) -> float:
    """Return the variance of the terms that two images have together, V_2, from the images whose inner products are taken.

    Image l moves class c's mean, and what others of the class have along the lines from it, by a multiple of z_l; the inner product with z_k is the term.
    """
    pairs, counts = evidence.pairs, evidence.pairs.counts
    classes = len(counts)
    rows = pairs.rows[:: max(1, len(pairs.rows) // max(_ENOUGH, _PER_CLASS * classes))]  # by class: evenly
    own = evidence.labels[rows]
    z = torch.cat([embeddings for _, embeddings in chunks(evidence.embeddings, rows)])
    z = (z - evidence.moments.means[own]) / pairs.unit
    weights = by_along[own] * along_pairs(z @ pairs.means.T, own) / (counts - 1)[own, None]
    moves = -2 * weights.T
    moves[own, torch.arange(len(own))] = 2 * weights.sum(1)
    by_class = 2 * (both.sum(1).diag() - both) / counts
    member = torch.nn.functional.one_hot(own, classes).to(torch.float64)
    taken = member.sum(0)
    found = torch.zeros(classes, classes, dtype=torch.float64)
    for start in range(0, len(own), _BLOCK):
        part = slice(start, start + _BLOCK)
        here = own[part]
        terms = (z[part] @ z.T) * (moves[here] + moves[own, part].T + by_class[here][:, own])
        terms[torch.arange(len(here)), torch.arange(start, start + len(here))] = 0.0
        others = (taken - member[part]).clamp(min=1)
        sums, squares = terms @ member, terms.square() @ member
        found.index_add_(0, here, (squares - sums.square() / others) * others / (others - 1).clamp(min=1))
    # each of n_i n_j terms, of which m_i m_j were seen
    found = found * counts[:, None] * counts / (taken[:, None] * taken)
    return float((found / (counts * (counts - 1))[:, None]).sum()) / 2

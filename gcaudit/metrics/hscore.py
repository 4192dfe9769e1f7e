"""H-score: how much of the variation of the embeddings lies between classes, seen in units of the whole.

With S the covariance of the embeddings and B that of the class means, each image counted once,

    H = tr(S^+ B)

which is between 0 and K - 1: the sum of the squared canonical correlations of embeddings and labels. Both are divided by N, or
both by N - 1: it does not matter. With the centred embeddings X = U diag(s) V^T and the one-hot labels y_c it is
sum_c |U^T y_c|^2 / n_c, so that no covariance is inverted; S^+ cuts at the numerical rank. A copy in use multiplies them element
by element, which is not the trace of their product.

With N - 1 independent directions the embeddings fit any labels, and H is K - 1 whatever the model: such a value is no measurement
and is not reported. Rows that are there more than once count once in that. Short of that, H is too high where dimensions are many beside images.

The regularised H-score takes the shrunk covariance of Ledoit and Wolf,

    S_a = (1 - a) S + a tr(S)/D I,    H_a = (1 - a) tr(S_a^-1 B)

with S divided by N and B by N - 1 as in the published code. The intensity is a = min(1, b/d) with b = (mean of |x|^4 - tr S^2) /
N and d = tr S^2 - (tr S)^2 / D, x centred.

Standard errors are those of the jackknife, each image left out in turn. No fit is repeated: in the ridge regression of y_c on the
embeddings that gives H_a, an image of residual e and leverage h takes e^2/(1 - h) with it. That a and tr(S) move is added to
first order. The jackknife errs on the side of too large a variance.

References: Bao, Li, Huang, Zhang, Zheng, Zamir, Guibas, "An information-theoretic approach to transferability in task transfer
learning", ICIP 2019 (H); Ibrahim, Ponomareva, Mazumder, "Newer is not always better: rethinking transferability metrics, their
peculiarities, stability and performance", ECML PKDD 2022 (regularised); Ledoit, Wolf, "A well-conditioned estimator for
large-dimensional covariance matrices", Journal of Multivariate Analysis 2004; Efron, Stein, "The jackknife estimate of variance",
Annals of Statistics 1981.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcaudit.geometry import Estimate, Evidence, centred_influence, equal_rows, labels_reason, missing, normal_estimate

_ONE_IMAGE = "a class with a single image has no variance: no standard error"
_EPS = torch.finfo(torch.float64).eps


def h_score(evidence: Evidence) -> Estimate:
    """Measure the H-score, the trace of the between-class against the total covariance.

    tr(S^+ B). Invariant under shift and every invertible linear map.

    Args:
        evidence: at least two classes, and fewer independent directions than images less one.

    Returns:
        The estimate, between 0 and K - 1.
    """
    images = evidence.images
    reason = labels_reason(evidence)
    if reason:
        return missing(reason, images)
    rank = evidence.spectrum.centred.rank
    distinct = images if 2 * rank < images else int(equal_rows(evidence.embeddings).max()) + 1
    if rank >= distinct - 1:
        repeated = "" if distinct == images else f", of which {distinct} differ"
        reason = f"{rank} independent directions fit any labels of {images} images{repeated}: the score is {evidence.classes - 1} for any model"
        return missing(reason, images)
    score = _score(evidence, 0.0)[0].clamp(max=evidence.classes - 1)  # rounding may lift it above the bound
    influence = centred_influence(_left_out(evidence, 0.0), evidence.labels, evidence.classes)
    return normal_estimate(score, influence, images, _ONE_IMAGE)


def h_score_regularized(evidence: Evidence) -> Estimate:
    """Measure the H-score with the shrunk covariance of Ledoit and Wolf.

    (1 - a) tr(S_a^-1 B), defined at any number of dimensions. Invariant under scaling, rotating and shifting the embeddings.

    Args:
        evidence: at least two classes.

    Returns:
        The estimate, between 0 and (K - 1) N/(N - 1).
    """
    images, dim = evidence.embeddings.shape
    reason = labels_reason(evidence)
    if reason:
        return missing(reason, images)
    intensity, by_weight = shrinkage(evidence)
    if intensity == 1:
        reason = "the covariance cannot be told from a multiple of the identity, which scores 0 for any labels"
        return missing(reason, images)
    trace = float((evidence.spectrum.values / evidence.spectrum.values[0]).square().sum())
    ridge = intensity / (1 - intensity) * trace / dim
    score, slope = _score(evidence, ridge)
    by_intensity = slope * trace / dim / (1 - intensity) ** 2
    by_trace = slope * intensity / (1 - intensity) / dim
    gradient = _left_out(evidence, ridge) + by_intensity * by_weight[0] + by_trace * by_weight[1]
    factor = images / (images - 1)
    influence = centred_influence(factor * gradient, evidence.labels, evidence.classes)
    return normal_estimate(factor * score, influence, images, _ONE_IMAGE)


def _score(evidence: Evidence, ridge: float) -> tuple[Tensor, Tensor]:
    """Return tr((S + ridge I)^+ B) and its derivative by `ridge`; the largest eigenvalue of S is 1."""
    centred = evidence.spectrum.centred
    eigenvalues = (centred.values / centred.values[0]).square()
    onto = (centred.targets.square() / evidence.spectrum.counts).sum(1)
    shrunk = eigenvalues / (eigenvalues + ridge)
    return (onto * shrunk).sum(), -(onto * shrunk.square() / eigenvalues).sum()


def _left_out(evidence: Evidence, ridge: float) -> Tensor:
    """Return the influence on tr((S + ridge I)^+ B) of leaving each image out, (N,), in the unit of a derivative by weight."""
    spectrum, images = evidence.spectrum, evidence.images
    counts, centred = spectrum.counts, spectrum.centred
    eigenvalues = (centred.values / centred.values[0]).square()
    shrunk = eigenvalues / (eigenvalues + ridge)
    predictors = shrunk[:, None] * centred.targets
    found = torch.empty(images, dtype=torch.float64)
    for rows, left in centred.left():
        labels = evidence.labels[rows, None]
        errors = -(left @ predictors) - counts / images
        errors.scatter_add_(1, labels, torch.ones_like(errors))
        # an image that has a direction to itself is fitted without error: it takes nothing with it
        rest = (1 - 1 / images - left.square() @ shrunk).clamp(min=_EPS)
        squares = errors.square()
        own, size = squares.gather(1, labels)[:, 0], counts[labels[:, 0]]
        lost = squares @ (1 / counts) + own / (size * (size - 1).clamp(min=1))
        found[rows] = -images * (size - 1) / size * lost / rest
    return found


def shrinkage(evidence: Evidence) -> tuple[float, Tensor]:
    """Compute the shrinkage intensity of Ledoit and Wolf for the covariance of the embeddings.

    Args:
        evidence: embeddings that differ.

    Returns:
        a between 0 and 1, which is 1 where the embeddings cannot tell their covariance from a multiple of the identity, and 0 in
        one dimension, where nothing can be shrunk; and (2, N) the derivatives of a and tr(S) by the weight of each image, the
        largest eigenvalue of S being 1.
    """
    centred, (images, dim) = evidence.spectrum.centred, evidence.embeddings.shape
    eigenvalues = (centred.values / centred.values[0]).square()
    trace, squared = eigenvalues.sum(), eigenvalues.square().sum()
    lengths, by_squared = torch.empty(2, images, dtype=torch.float64)
    third = torch.zeros(centred.rank, dtype=torch.float64)
    for rows, left in centred.left():
        # with z = sqrt(N) S^(1/2) u: |z|^2, and the derivative 2 z S z of tr S^2
        lengths[rows] = images * (left.square() @ eigenvalues)
        by_squared[rows] = 2 * images * (left.square() @ eigenvalues.square())
        third += lengths[rows] @ left
    noise = (lengths.square().mean() - squared) / images
    # the eigenvalues that are 0 differ from the mean too
    spread = (eigenvalues - trace / dim).square().sum() + (dim - centred.rank) * (trace / dim) ** 2
    if dim == 1 or noise >= spread:
        return float(dim > 1), torch.stack((torch.zeros_like(lengths), lengths))
    intensity = noise.clamp(min=0) / spread
    by_fourth = lengths.square()
    for rows, left in centred.left():
        by_fourth[rows] -= 4 * left @ (eigenvalues * third)
    by_spread = by_squared - 2 * trace / dim * lengths
    by_intensity = ((by_fourth - by_squared) / images - intensity * by_spread) / spread
    return float(intensity), torch.stack((by_intensity, lengths))

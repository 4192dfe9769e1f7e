"""RankMe: the effective number of dimensions that embeddings fill.

With the singular values s of the embeddings as they are, not centred, and p_k = s_k / sum_j s_j + 1e-7,

    RankMe = exp(-sum_k p_k ln p_k),  k = 1..min(N, D)

the exponential of the entropy. Values below the numerical rank count as s_k = 0, so as p_k = 1e-7; a thousand of them add 0.2% to
the score, by definition. Since the embeddings are not centred, a mean far from the origin is one dimension that outweighs the
others. Some codes add 1e-5 instead; one takes eigenvalues of the centred covariance, which is another quantity. Labels are not
used.

Reference: Garrido, Balestriero, Najman, LeCun, "RankMe: assessing the downstream performance of pretrained self-supervised
representations by their rank", ICML 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcaudit.geometry import Estimate, Evidence, centred_influence, missing, normal_estimate

_SMALL = 1e-7


def _rankme(values: Tensor, count: int) -> Tensor:
    """Return RankMe of the singular values (r,) and count - r zeros; differentiable."""
    shares = torch.cat((values / values.sum(), values.new_zeros(count - len(values)))) + _SMALL
    return torch.exp(-(shares * shares.log()).sum())


def rankme(evidence: Evidence) -> Estimate:
    """Measure RankMe, the exponential of the entropy of the singular values.

    Between 1 and min(N, D), but for the added 1e-7. Invariant under scaling and rotating the embeddings, not under shifting them.

    Args:
        evidence: not all embeddings 0; one class will do.

    Returns:
        The estimate, in dimensions. The standard error is first order in the weights of images, drawn within classes. There is
        none where the embeddings have as many independent directions as images: each image then has one to itself, and its weight
        hardly matters.
    """
    images = evidence.images
    reason = evidence.moments.range_reason
    if reason:
        return missing(reason, images)
    if not bool(evidence.moments.means.any() or evidence.moments.squares.any()):
        return missing("all embeddings are 0: no direction is filled", images)
    raw = evidence.spectrum.raw
    relative = (raw.values / raw.values[0]).requires_grad_()
    with torch.enable_grad():
        score = _rankme(relative, min(evidence.embeddings.shape))
        (slopes,) = torch.autograd.grad(score, relative)
    if raw.rank == images:
        reason = "as many independent directions as images: no standard error"
        return normal_estimate(score.detach(), None, images, reason)
    # s_k^2 = N sum_i w_i (v_k . x_i)^2, so that d s_k / d w_i = N (v_k . x_i)^2 / (2 s_k) = N s_k u_ik^2 / 2
    slopes = slopes * relative.detach() * images / 2
    gradient = torch.empty(images, dtype=torch.float64)
    for rows, left in raw.left():
        gradient[rows] = left.square() @ slopes
    influence = centred_influence(gradient, evidence.labels, evidence.classes)
    return normal_estimate(score.detach(), influence, images, "a class with a single image has no variance: no standard error")

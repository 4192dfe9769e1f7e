"""GBC: overlap of classes as Gaussians, by the Bhattacharyya coefficient.

Each class is a Gaussian with mean mu_c and a diagonal covariance s_c (variance of each coordinate divided by n_c, at least 1e-4):

    D_B(i, j) = 1/8 sum_d (mu_i - mu_j)_d^2 / s_d + 1/2 sum_d ln(s_d / sqrt(s_id s_jd)),   s = (s_i + s_j)/2
    GBC       = - sum over ordered pairs i != j of exp(-D_B(i, j))

0 where no classes overlap, -K(K - 1) where all coincide. Embeddings of more than 64 dimensions are first reduced to the 64 principal components
with the largest variance, as in the paper; others are taken as they are.

The paper's default gives each class one variance for all dimensions. Its published code then counts the logarithm once instead of once a
dimension, so that its value is not the coefficient of any Gaussian; the diagonal form of the same code is right, and is what we measure.
The floor of 1e-4 is absolute, and all the variance that a class with a single image has. So GBC depends on the scale of the embedding once variances
come near it: embeddings in small units look as if their classes overlapped. With at most 64 dimensions it also depends on the axes.

Reference: Pandy, Agostinelli, Uijlings, Ferrari, Mensink, "Transferability estimation using Bhattacharyya class separability", CVPR 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcaudit.geometry import ONE_IMAGE, Estimate, Evidence, chunks, labels_reason, missing, normal_estimate

_DIMS = 64
_FLOOR = 1e-4
_BLOCK = 32


def _overlaps(means: Tensor, variances: Tensor, rows: slice) -> Tensor:
    """Sum the coefficients of the classes in `rows` with all other classes."""
    variances = variances.clamp(min=_FLOOR)
    logs = variances.log()
    middle = (variances[rows, None] + variances[None]) / 2
    distances = (means[rows, None] - means[None]).square() / (8 * middle) + (middle.log() - (logs[rows, None] + logs[None]) / 2) / 2
    same = torch.arange(len(means))[rows, None] == torch.arange(len(means))
    return torch.exp(-distances.sum(2).masked_fill(same, torch.inf)).sum()


def gbc(evidence: Evidence) -> Estimate:
    """Measure the Gaussian Bhattacharyya coefficient with diagonal covariances.

    The standard error takes the principal components as fixed.

    Args:
        evidence: at least two classes.

    Returns:
        The estimate, from -K(K - 1) to 0; higher is better. Invariant under a shift; with more than 64 dimensions also under rotation.

    Example:
        Classes {-1, 1} and {1, 3} on a line: s = 1, D_B = 4/8, GBC = -2 exp(-1/2).
    """
    reason = labels_reason(evidence)
    if reason:
        return missing(reason, evidence.images)
    spectrum, labels = evidence.spectrum, evidence.labels
    dims = evidence.embeddings.shape[1]
    directions = spectrum.directions[:, :_DIMS] if dims > _DIMS else torch.eye(dims, dtype=torch.float64)
    counts = spectrum.counts
    class_means = evidence.moments.means

    def deviations(rows: slice, z: Tensor) -> Tensor:
        return (z - class_means[labels[rows]]) @ directions

    variances = torch.zeros(evidence.classes, directions.shape[1], dtype=torch.float64)
    for rows, z in chunks(evidence.embeddings):
        variances.index_add_(0, labels[rows], deviations(rows, z).square() / counts[labels[rows], None])
    arguments = (spectrum.offsets @ directions, variances)
    value = torch.zeros((), dtype=torch.float64)
    gradients = [torch.zeros_like(variances), torch.zeros_like(variances)]
    with torch.enable_grad():
        inputs = [argument.requires_grad_() for argument in arguments]
        for start in range(0, evidence.classes, _BLOCK):
            block = slice(start, start + _BLOCK)
            part = _overlaps(inputs[0], inputs[1], block)
            value = value - part.detach()
            for total, gradient in zip(gradients, torch.autograd.grad(-part, inputs), strict=True):
                total.add_(gradient)
    if not value:
        return normal_estimate(value, None, evidence.images, "no two classes overlap to working precision: no standard error")
    if bool((counts < 2).any()):
        return normal_estimate(value, None, evidence.images, ONE_IMAGE)
    influence = torch.empty(evidence.images, dtype=torch.float64)
    scale = 1 / (counts * (counts - 1)).sqrt()
    for rows, embeddings in chunks(evidence.embeddings):
        classes, z = labels[rows], deviations(rows, embeddings)
        change = z * gradients[0][classes] + (z.square() - variances.detach()[classes]) * gradients[1][classes]
        influence[rows] = scale[classes] * change.sum(1)
    return normal_estimate(value, influence, evidence.images)

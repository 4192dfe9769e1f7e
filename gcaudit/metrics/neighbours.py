"""Leave-one-out accuracy of the nearest neighbour.

Each image is given the class of the nearest other image (Euclidean distance); of several at the same distance, that of the image that comes first in
the data. Rows equal to it are the same image once more, and no others, unless they are all there is of a class. No training, no setting: what
retrieval from the embeddings would do.

Inner products find the candidates of all pairs at the speed of a matrix product, but a squared distance from them is off by the rounding of squared
lengths. So whatever is within that rounding of the nearest is measured again by differences: the neighbours found are those of exact distances, also
where classes are tight and far apart.

Reference: Cover, Hart, "Nearest neighbor pattern classification", IEEE Transactions on Information Theory 1967.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcaudit.geometry import (
    Estimate,
    Evidence,
    balanced_subset,
    equal_rows,
    labels_reason,
    missing,
    single_image_reason,
    subset_accuracy,
)

_ROWS = 512
_IMAGES = 20000
_EPS = torch.finfo(torch.float64).eps


def nearest_others(z: Tensor, same: Tensor | None = None) -> Tensor:
    """Find the nearest other row of each row.

    Args:
        z: (N, D) float64, N > 1, near the origin.
        same: (N,) int64 numbers, equal for rows that are one image, which is no other; None where all differ.

    Returns:
        (N,) int64; the first of rows at equal distance.
    """
    squares = z.square().sum(1)
    lengths = squares.sqrt()
    slack = 4 * (z.shape[1] + 8) * _EPS * (lengths + lengths.max()).square()
    nearest = torch.empty(len(z), dtype=torch.int64)
    for start in range(0, len(z), _ROWS):
        rows = slice(start, start + _ROWS)
        estimates = (squares[rows, None] + squares[None]).addmm_(z[rows], z.T, alpha=-2)
        if same is None:
            own = torch.arange(len(estimates))
            estimates[own, start + own] = torch.inf
        else:
            estimates.masked_fill_(same[rows, None] == same, torch.inf)
        lowest, nearest[rows] = estimates.min(1)
        close = estimates <= (lowest + slack[rows])[:, None]
        for row in torch.nonzero(close.sum(1) > 1).flatten().tolist():
            candidates = torch.nonzero(close[row]).flatten()
            distances = (z[candidates] - z[start + row]).square().sum(1)
            # argmin does not promise the first of equal numbers
            nearest[start + row] = candidates[torch.nonzero(distances == distances.min())[0, 0]]
    return nearest


def knn_accuracy(evidence: Evidence) -> Estimate:
    """Measure the leave-one-out accuracy of the nearest neighbour.

    Class-balanced share of images whose nearest other image is of their class. Of more than 20,000 images a class-balanced 20,000 are taken, and are all
    there is to be near to; n says how many. The interval treats images as independent given their neighbours.

    Args:
        evidence: at least two classes with at least two images each.

    Returns:
        The estimate, between 0 and 1. Invariant under scale, rotation and shift.
    """
    reason = labels_reason(evidence)
    if reason:
        return missing(reason, evidence.images)
    rows = balanced_subset(evidence, "knn_accuracy", _IMAGES)
    reason = single_image_reason(evidence, rows)
    if reason:
        return missing(reason, len(rows))
    z = evidence.embeddings[rows].to(torch.float64)
    labels = evidence.labels[rows]
    same = _one_image(z, labels)
    z -= evidence.moments.means.mean(0)
    return subset_accuracy(labels[nearest_others(z / z.abs().max(), same)] == labels, rows, evidence)


def _one_image(z: Tensor, labels: Tensor) -> Tensor | None:
    """Number rows so that those of one image have one number; None where each has its own.

    Equal rows are the same image seen twice, unless they are all of a class, which is then one point.
    """
    numbers = equal_rows(z)
    if len(numbers) == int(numbers.max()) + 1:
        return None
    classes = torch.unique(torch.stack((labels, numbers)), dim=1)[0].bincount(minlength=int(labels.max()) + 1)
    return torch.where(classes[labels] > 1, numbers, len(numbers) + torch.arange(len(numbers)))

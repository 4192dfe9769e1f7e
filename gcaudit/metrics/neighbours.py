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
    with_influence,
)

_ROWS = 512
_IMAGES = 20000
_EPS = torch.finfo(torch.float64).eps


def nearest_others(z: Tensor, same: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Find the nearest other row of each row, and the next.

    Args:
        z: (N, D) float64, N > 1, near the origin.
        same: (N,) int64 numbers, equal for rows that are one image, which is no other; None where all differ.

    Returns:
        (N,) int64, the first of rows at equal distance; and (N,) int64, the nearest of what is left without that image, up to rounding, or the
        nearest itself where nothing is left.
    """
    squares = z.square().sum(1)
    lengths = squares.sqrt()
    slack = 4 * (z.shape[1] + 8) * _EPS * (lengths + lengths.max()).square()
    nearest, following = torch.empty(2, len(z), dtype=torch.int64)
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
        taken = nearest[rows, None]
        estimates.masked_fill_((same[taken] == same) if same is not None else (taken == torch.arange(len(z))), torch.inf)
        lowest, found = estimates.min(1)
        following[rows] = torch.where(lowest.isfinite(), found, nearest[rows])
    return nearest, following


def knn_accuracy(evidence: Evidence) -> Estimate:
    """Measure the leave-one-out accuracy of the nearest neighbour.

    Class-balanced share of images whose nearest other image is of their class. Of more than 20,000 images a class-balanced 20,000 are taken, and are all
    there is to be near to; n says how many. The interval is that of the jackknife: without an image, those that were nearest to it have the next.

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
    nearest, following = nearest_others(z / z.abs().max(), same)
    right, without = (labels[found] == labels for found in (nearest, following))
    found = subset_accuracy(right, rows, evidence)
    if found.influence is None:
        return found
    return with_influence(found, found.influence + _as_neighbours(right, without, nearest, rows, evidence), evidence)


def _as_neighbours(right: Tensor, without: Tensor, nearest: Tensor, rows: Tensor, evidence: Evidence) -> Tensor:
    """Return (N,): by how much an image moves the share of others that are right, being near to them."""
    labels, counts = evidence.labels[rows], torch.bincount(evidence.labels[rows], minlength=evidence.classes).to(torch.float64)
    change = (right.to(torch.float64) - without.to(torch.float64)) / (evidence.classes * counts[labels])
    given = torch.zeros(len(rows), dtype=torch.float64).index_add_(0, nearest, change)
    centre = torch.zeros(evidence.classes, dtype=torch.float64).index_add_(0, labels, given) / counts
    found = torch.zeros(evidence.images, dtype=torch.float64)
    found[rows] = (given - centre[labels]) * (counts / (counts - 1)).sqrt()[labels]
    return found


def _one_image(z: Tensor, labels: Tensor) -> Tensor | None:
    """Number rows so that those of one image have one number; None where each has its own.

    Equal rows are the same image seen twice, unless they are all of a class, which is then one point.
    """
    numbers = equal_rows(z)
    if len(numbers) == int(numbers.max()) + 1:
        return None
    classes = torch.unique(torch.stack((labels, numbers)), dim=1)[0].bincount(minlength=int(labels.max()) + 1)
    return torch.where(classes[labels] > 1, numbers, len(numbers) + torch.arange(len(numbers)))

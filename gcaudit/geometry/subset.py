"""A class-balanced part of the images, for quantities whose cost grows faster than their number."""

from __future__ import annotations

import torch
from torch import Tensor

from gcaudit.geometry.counter import balanced_order, derive_seed
from gcaudit.geometry.estimate import Estimate
from gcaudit.geometry.evidence import Evidence
from gcaudit.geometry.proportion import balanced_proportion


def balanced_subset(evidence: Evidence, metric: str, images: int) -> Tensor:
    """Choose images as class-balanced as the data allow, for scores whose cost does not grow in proportion to the images.

    Args:
        evidence: any.
        metric: the draw depends on its name and the fingerprint of the data alone.
        images: how many at most.

    Returns:
        (n,) int64 rows in increasing order; all of them where there are no more than `images`.
    """
    every = torch.arange(evidence.images)
    if evidence.images <= images:
        return every
    return balanced_order(evidence.labels, every, derive_seed(0, metric, evidence.fingerprint))[:images].sort().values


def subset_accuracy(correct: Tensor, rows: Tensor, evidence: Evidence) -> Estimate:
    """Average a yes/no outcome of some images over classes of equal weight.

    Args:
        correct: (n,) bool.
        rows: (n,) int64 the images' rows, of every class.
        evidence: all images.

    Returns:
        The estimate, whose influence is 0 for images that were not taken.
    """
    found = balanced_proportion(correct, evidence.labels[rows], evidence.classes)
    if found.influence is None or len(rows) == evidence.images:
        return found
    influence = torch.zeros(evidence.images, dtype=torch.float64)
    influence[rows] = found.influence
    return Estimate(found.value, found.stderr, found.ci95, found.n, found.reason, found.details, influence)


def single_image_reason(evidence: Evidence, rows: Tensor) -> str | None:
    """Name a class with one image among some rows.

    Args:
        evidence: all images.
        rows: (n,) int64.

    Returns:
        The reason why such a class has nothing to be recognised by, or None.
    """
    counts = torch.bincount(evidence.labels[rows], minlength=evidence.classes)
    if bool((counts < 2).any()):
        return f"class {evidence.class_names[int(torch.argmin(counts))]!r} has 1 image: leaving it out leaves none of its class"
    return None

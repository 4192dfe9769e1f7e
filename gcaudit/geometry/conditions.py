"""What evidence must have for a quantity to be measured, and the reason where it has not."""

from __future__ import annotations

from typing import Any

import torch

from gcaudit.geometry.evidence import Evidence
from gcaudit.geometry.pairs import squared_distances
from gcaudit.geometry.spectrum import rounding_of_means

ONE_IMAGE = "a class with a single image has no variance: no standard error"


_RESOLUTION = 64 * torch.finfo(torch.float64).eps
_UNSURE_SHARE = 2 / 3


def energies_reason(evidence: Evidence) -> str | None:
    """Say why quantities of the Jacobian cannot be had, or None.

    Args:
        evidence: the observed images.

    Returns:
        One line, or None when each class has an energy.
    """
    if evidence.energies is None:
        return "the Jacobian was not measured on these images"
    short = [n for n, c in zip(evidence.class_names, evidence.energy_counts().tolist(), strict=True) if c < 1]
    if short:
        return f"class {short[0]!r} has no image whose Jacobian was measured; raise --gc-images"
    return None


def energy_count(evidence: Evidence) -> int:
    """Return M, the number of images whose Jacobian was measured.

    Args:
        evidence: the observed images.

    Returns:
        M, or 0.
    """
    return 0 if evidence.energies is None else len(evidence.energies)


def energy_details(evidence: Evidence) -> dict[str, Any]:
    """Say how the energies were taken, for the details of an estimate.

    Args:
        evidence: with energies.

    Returns:
        `estimator` and `vectors`.
    """
    return {"estimator": evidence.estimator, "vectors": evidence.vectors}


def means_reason(evidence: Evidence) -> str | None:
    """Say why the class means have no geometry.

    Args:
        evidence: any.

    Returns:
        The reason, or None.
    """
    if evidence.classes < 2:
        return f"the geometry of class means needs at least 2 classes, found {evidence.classes}"
    if reason := evidence.moments.range_reason:
        return reason
    means = evidence.moments.means
    spread = (means - means.mean(0)).abs().max()
    if float(spread) <= _RESOLUTION * float(means.abs().max()):
        return "all class means are equal"
    return None


def single_reason(evidence: Evidence) -> str | None:
    """Name a class of which one image cannot show the variance.

    Args:
        evidence: any.

    Returns:
        The reason, or None when each class has two images.
    """
    short = [name for name, n in zip(evidence.class_names, evidence.moments.counts.tolist(), strict=True) if n < 2]
    return f"class {short[0]!r} has 1 image: the variance within a class needs 2" if short else None


def distances_reason(evidence: Evidence) -> str | None:
    """Say why the distances of class means cannot be divided by.

    Args:
        evidence: any.

    Returns:
        The reason, or None when no two class means coincide.
    """
    if evidence.classes < 2:
        return f"pairs of classes need at least 2 classes, found {evidence.classes}"
    if reason := evidence.moments.range_reason:
        return reason
    means = evidence.moments.means
    scale = float(means.norm(dim=1).max())
    squared = squared_distances(means).fill_diagonal_(torch.inf)
    lowest = int(torch.argmin(squared))
    if float(squared.flatten()[lowest]) <= (_RESOLUTION * scale) ** 2:
        names = evidence.class_names[lowest // evidence.classes], evidence.class_names[lowest % evidence.classes]
        return f"classes {names[0]!r} and {names[1]!r} have the same mean embedding: their distance is 0"
    return None


def unsure_reason(evidence: Evidence) -> str | None:
    """Say why a mean over pairs of something over d_ij^2 cannot be told from so few images.

    Args:
        evidence: with at least two images of each class, and no two class means that coincide.

    Returns:
        The reason, or None when pairs that can be told apart make up a third of the mean of 1/d_ij^2.
    """
    share = evidence.pairs.unsure_share()
    if share <= _UNSURE_SHARE:
        return None
    pairs = evidence.classes * (evidence.classes - 1) // 2
    low, high = int(evidence.moments.counts.min()), int(evidence.moments.counts.max())
    images = f"{low}" if low == high else f"{low} to {high}"
    return (
        f"{evidence.pairs.unsure()} of {pairs} class pairs cannot be told apart by {images} images a class, and would make up {share:.0%} of the "
        "value; take more images, or fewer classes"
    )


def labels_reason(evidence: Evidence) -> str | None:
    """Say why no score of embeddings and labels can be measured.

    Args:
        evidence: any.

    Returns:
        The reason, or None: there are two classes, images of each, more images than classes, and embeddings that differ and can be
        squared. The centred embeddings then have a singular value.
    """
    moments = evidence.moments
    if evidence.classes < 2:
        return f"a score of embeddings and labels needs at least 2 classes, found {evidence.classes}"
    if not bool(moments.counts.all()):
        return f"class {evidence.class_names[int(torch.argmin(moments.counts))]!r} has no images"
    if evidence.images == evidence.classes:
        return "every class has 1 image: nothing varies within classes"
    if reason := moments.range_reason:
        return reason
    spread = moments.squares.sum() + (moments.counts * (moments.means - moments.means.mean(0)).square().sum(1)).sum()
    # at least this share of the spread lies along one direction
    if moments.all_equal or float(spread) <= min(evidence.embeddings.shape) * (2 * rounding_of_means(moments)) ** 2:
        return "all embeddings are equal"
    return None

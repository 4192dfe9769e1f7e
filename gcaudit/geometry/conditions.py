"""What evidence must have for a quantity to be measured, and the reason where it has not."""

from __future__ import annotations

import torch

from gcaudit.geometry.evidence import Evidence
from gcaudit.geometry.spectrum import rounding_of_means

ONE_IMAGE = "a class with a single image has no variance: no standard error"


_RESOLUTION = 64 * torch.finfo(torch.float64).eps


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

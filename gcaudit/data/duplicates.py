"""Images that are there more than once: left out where that is asked for."""

from __future__ import annotations

from dataclasses import replace

import torch

from gcaudit.data.fingerprint import digest_of
from gcaudit.data.image_set import ImageSet
from gcaudit.errors import DataError, shorten
from gcaudit.report import ReportWarning, warn

_NAMED = 3


def without_duplicates(images: ImageSet, other: ImageSet | None = None) -> ImageSet:
    """Leave out images whose stored bytes came before, in the same data set or in another.

    Args:
        images: the data set; every encoded image is read, none is decoded.
        other: another data set, whose images are left out too.

    Returns:
        The images that are left, with a warning for each kind that was left out. Of equal images under several labels the first stays.

    Raises:
        DataError: no image is left of a class.
    """
    elsewhere = set() if other is None else {digest_of(other, row) for row in other.index.tolist()} - {None}
    seen: set[bytes] = set()
    repeated, shared, kept = [], [], torch.ones(len(images.labels), dtype=torch.bool)
    for place, row in enumerate(images.index.tolist()):
        digest = digest_of(images, row)
        if digest is None:  # cannot be read, which the pass will tell
            continue
        if digest in elsewhere:
            shared.append(place)
        elif digest in seen:
            repeated.append(place)
        seen.add(digest)
    kept[[*repeated, *shared]] = False
    left = torch.bincount(images.labels[kept], minlength=len(images.class_names))
    if bool((left == 0).any()):
        names = [images.class_names[n] for n in (left == 0).nonzero().flatten().tolist()]
        raise DataError(
            f"{images.spec}: expected images of every class that are there once, found none of {shorten(names)}; leave the classes or --drop-duplicates out"
        )
    warnings = [
        *_warning(images, repeated, "{n} images that are there more than once were left out ({names})"),
        *_warning(images, shared, "{n} images that the source has too were left out ({names})"),
    ]
    return replace(images, labels=images.labels[kept], index=images.index[kept], warnings=(*images.warnings, *warnings))


def _warning(images: ImageSet, places: list[int], line: str) -> list[ReportWarning]:
    return [warn("left-out", line, [images.where(place) for place in places[:_NAMED]], len(places))] if places else []

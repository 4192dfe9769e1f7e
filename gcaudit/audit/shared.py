"""What source and target share, which makes few-shot accuracy no measure of transfer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gcaudit.audit.block import Block
from gcaudit.data import near_rows
from gcaudit.errors import folded
from gcaudit.report import ReportWarning, warn

_NAMED = 3


def shared_warnings(source: Block, target: Block, where: Callable[[int], str] | None = None) -> list[ReportWarning]:
    """Tell of classes and images that source and target share: few-shot accuracy on them is not transfer.

    Args:
        source: measured on the source.
        target: measured on the target.
        where: names an image of the target by its row; None leaves images without names.

    Returns:
        A warning for classes, one for equal images, and one for images that only look the same.
    """
    found = []
    names = _shared_names(source, target)
    if names:
        line = (
            "source and target share {n} classes ({names}): few-shot accuracy on classes the model was trained on is not transfer"
        )
        found.append(warn("shared", line, names))
    equal = equal_images(target.digests, source.digests)
    alike = near_rows(target.perceptual, source.perceptual)
    rows = {
        "source and target share {n} images": np.flatnonzero(equal),
        "{n} images of the target look like images of the source": alike[~equal[alike]],
    }
    for what, chosen in rows.items():
        if len(chosen):
            first = None if where is None else [where(int(row)) for row in chosen[:_NAMED]]
            line = f"{what}{'' if first is None else ' ({names})'}: accuracy on images the model was trained on is not transfer"
            found.append(warn("shared", line, first, len(chosen)))
    return found


def repeated_warnings(
    digests: NDArray[np.uint8], labels: NDArray[np.int64], where: Callable[[int], str] | None = None
) -> list[ReportWarning]:
    """Tell of images that a data set has more than once: their labels weigh more, and few-shot episodes have them on both sides.

    Args:
        digests: (N, 16) uint8 digests of the images.
        labels: (N,) their classes.
        where: names an image by its row; None leaves them without names.

    Returns:
        A warning, or none.
    """
    _, first, number = np.unique(_as_values(digests), return_index=True, return_inverse=True)
    before = first[number.ravel()]
    again = np.flatnonzero(before != np.arange(len(digests)))
    if not len(again):
        return []
    other = int((labels[again] != labels[before[again]]).sum())
    names = None if where is None else [where(int(row)) for row in again[:_NAMED]]
    line = "{n} images are there more than once" + (f", {other} of them under another label" if other else "")
    line = f"{line}{'' if names is None else ' ({names})'}; --drop-duplicates leaves them out"
    return [warn("repeated", line, names, len(again))]


def _shared_names(source: Block, target: Block) -> Sequence[str]:
    known = {folded(name) for name in source.data.class_names}
    shared = [name for name in target.data.class_names if folded(name) in known]
    # numbers as names say nothing across data sets
    return [name for name in shared if source.family == target.family or not name.isdecimal()]


def equal_images(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell which images are also in another data set, byte for byte.

    Args:
        ours: (N, 16) digests.
        theirs: (M, 16) digests of the other's.

    Returns:
        (N,) bool.
    """
    found: NDArray[np.bool_] = np.isin(_as_values(ours), _as_values(theirs))
    return found


def _as_values(table: NDArray[np.uint8]) -> NDArray[np.void]:
    """View each row as one value."""
    return np.ascontiguousarray(table).view(f"V{table.shape[1]}").ravel()

"""What a data set is, without a model: classes, counts, sizes of pictures, the first rows, and what to type for it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from PIL import Image
from torch import Tensor

from gcaudit.data.image_set import ImageSet
from gcaudit.data.pictures import REMARKS, open_picture
from gcaudit.errors import GcauditError, one_line
from gcaudit.report import ReportWarning, warn

_LOOKED_AT = 256
_FIRST = 3


@final
@dataclass(frozen=True)
class Overview:
    """A data set.

    Attributes:
        spec: as typed.
        split: which was taken.
        images: how many.
        classes: names and images of each, in order.
        columns: of a table, those taken for images and labels.
        looked_at: pictures that the rest is of, evenly through the data set.
        formats: file formats or kinds of these, with how many have each.
        modes: colour modes of them.
        sizes: smallest, middle and largest width x height of them; empty for none.
        first: place, class and size of the first pictures.
        failures: pictures of these that cannot be decoded: how many, and why the first cannot.
        options: what to type to score on it.
        warnings: what a report would say of it.
    """

    spec: str
    split: str | None
    images: int
    classes: tuple[tuple[str, int], ...]
    columns: tuple[str, str] | None
    looked_at: int
    formats: tuple[tuple[str, int], ...]
    modes: tuple[tuple[str, int], ...]
    sizes: tuple[str, ...]
    first: tuple[tuple[str, str, str], ...]
    failures: tuple[int, str]
    options: str
    warnings: tuple[ReportWarning, ...]


def overview(images: ImageSet, typed: str = "") -> Overview:
    """Look at a data set.

    Args:
        images: opened.
        typed: options that it was opened with, as for the source.

    Returns:
        What it is; at most 256 pictures are decoded.
    """
    size = len(images.labels)
    places = set(torch.linspace(0, size - 1, min(size, _LOOKED_AT)).round().long().tolist())
    formats: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    remarks: Counter[str] = Counter()
    sizes: list[tuple[int, int]] = []
    failures: list[str] = []
    first = []
    for place in sorted(places | set(range(min(_FIRST, size)))):
        try:
            kind, mode, edges, said = _look(images, place)
        except Exception as error:  # decoders raise many kinds on damaged files
            why = one_line(error)
            why = (
                "these bytes are no picture" if why.startswith("cannot identify image file") else why
            )  # the rest names an object in memory
            text = str(error) if isinstance(error, GcauditError) else f"{images.where(place)}: {why}"
            failures.append(text)
            kind, edges = "", None
        if edges is not None:
            formats[kind] += 1
            modes[mode] += 1
            remarks.update(said)
            sizes.append(edges)
        if place < _FIRST:
            told = "cannot be decoded" if edges is None else f"{edges[0]}x{edges[1]} {kind}"
            first.append((images.where(place), images.class_names[int(images.labels[place])], told))
    sizes.sort(key=lambda edges: edges[0] * edges[1])
    chosen = (sizes[0], sizes[len(sizes) // 2], sizes[-1]) if sizes else ()
    lines = [warn(REMARKS[key][0], REMARKS[key][1].replace(" ({names})", ""), count=count) for key, count in remarks.items()]
    return Overview(
        images.spec,
        images.split,
        size,
        tuple(zip(images.class_names, images.counts.tolist(), strict=True)),
        images.columns,
        len(places | set(range(min(_FIRST, size)))),
        tuple(formats.most_common()),
        tuple(modes.most_common()),
        tuple(dict.fromkeys(f"{width}x{height}" for width, height in chosen)),
        tuple(first),
        (len(failures), failures[0] if failures else ""),
        f"--source {shlex.quote(images.spec)}{_split(images)}{typed}{' --skip-bad-images' if failures else ''}",
        (*images.warnings, *lines),
    )


def _look(images: ImageSet, place: int) -> tuple[str, str, tuple[int, int], Sequence[str]]:
    """Return format, mode, width and height, and what would be said of a picture."""
    raw: Any = images.reader.read(int(images.index[place]))
    if isinstance(raw, Tensor):
        return "tensor", str(raw.dtype).removeprefix("torch."), (int(raw.shape[-1]), int(raw.shape[-2])), ()
    picture, said = open_picture(raw, turn=getattr(images.reader, "turns", False))
    picture.load()
    kind = picture.format or ("array" if not isinstance(raw, Image.Image | bytes) else "picture")
    return kind, picture.mode, picture.size, said


def _split(images: ImageSet) -> str:
    return "" if images.split is None else f" --source-split {shlex.quote(images.split)}"

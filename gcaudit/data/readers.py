"""Readers: random access to the raw images of one data set.

A reader has `read(i)` and `where(i)`, and can be sent to worker processes. `read` gives encoded bytes, a uint8 array, a PIL picture or
a tensor; decoding and resizing come later, in `batches.py`. Readers of one format only stand beside what reads that format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gcaudit.files import read_bytes
from gcaudit.report import ReportWarning

LARGEST_PICTURE = 2**29
"""Bytes of an encoded picture."""


class Reader(Protocol):
    """Random access to raw images."""

    def read(self, row: int) -> Any:
        """Return encoded bytes, a uint8 (H, W) or (H, W, C) array, a PIL picture or a (C, H, W) tensor."""

    def where(self, row: int) -> str:
        """Say where an image comes from, for messages."""


@final
@dataclass(frozen=True)
class RawData:
    """A whole data set, before classes and images are chosen.

    Attributes:
        reader: the images.
        labels: (N,) int64 numbers into `class_names`; -1 for images that are left out, which a warning tells.
        class_names: every class of the data set, also those without images.
        warnings: what was left out, or chosen among several, on the way here.
        columns: of a table, those taken for images and labels.
    """

    reader: Reader
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    warnings: tuple[ReportWarning, ...] = ()
    columns: tuple[str, str] | None = None


@final
@dataclass(frozen=True)
class FileReader:
    """Image files.

    Attributes:
        paths: one a row.
    """

    paths: Sequence[Path]

    def read(self, row: int) -> bytes:
        """Return the file's bytes."""
        return read_bytes(self.paths[row], LARGEST_PICTURE)

    def where(self, row: int) -> str:
        """Return the path."""
        return str(self.paths[row])


@final
@dataclass(frozen=True)
class ArrayReader:
    """Pictures in memory.

    Attributes:
        pixels: (N, H, W) or (N, H, W, C) uint8.
        name: for messages.
    """

    pixels: NDArray[np.uint8]
    name: str

    def read(self, row: int) -> NDArray[np.uint8]:
        """Return one picture."""
        picture: NDArray[np.uint8] = self.pixels[row]
        return picture

    def where(self, row: int) -> str:
        """Return name and row."""
        return f"image {row} of {self.name}"


@final
@dataclass(frozen=True)
class TensorReader:
    """Images that are pixels of the right size already.

    Attributes:
        images: (N, C, H, W), uint8 or floating point in [0, 1].
    """

    images: Tensor

    def read(self, row: int) -> Tensor:
        """Return one image."""
        return self.images[row]

    def where(self, row: int) -> str:
        """Return the row."""
        return f"image {row} of the tensor"


@final
@dataclass(frozen=True)
class ItemReader:
    """The items of a sequence of (image, label) pairs or dicts, such as a torch Dataset.

    Attributes:
        items: anything with `__getitem__`.
        name: for messages.
        part: of an item that is the image: a place, or a key.
    """

    items: Any
    name: str
    part: int | str = 0

    def read(self, row: int) -> Any:
        """Return the image of one item."""
        return self.items[row][self.part]

    def where(self, row: int) -> str:
        """Return name and row."""
        return f"item {row} of {self.name}"

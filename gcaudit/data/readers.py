"""Readers: random access to the raw images of one data set, from files, parquet, arrays or other libraries' objects.

A reader has `read(i)` and `where(i)`, and can be sent to worker processes. `read` gives encoded bytes, a uint8 array, a PIL picture or
a tensor; decoding and resizing come later, in `batches.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from torch import Tensor

from gcaudit.errors import DataError, shorten

LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class", "class_label")
MOST_CLASSES = 1_000_000
IMAGE_COLUMNS = ("image", "img", "images", "picture", "pixels", "jpg", "png")


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
        labels: (N,) int64 numbers into `class_names`.
        class_names: every class of the data set, also those without images.
    """

    reader: Reader
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]


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
        return self.paths[row].read_bytes()

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
    """The items of a sequence of (image, label) pairs, such as a torch Dataset.

    Attributes:
        items: anything with `__getitem__`.
        name: for messages.
    """

    items: Any
    name: str

    def read(self, row: int) -> Any:
        """Return the image of one item."""
        return self.items[row][0]

    def where(self, row: int) -> str:
        """Return name and row."""
        return f"item {row} of {self.name}"


def encoded(cell: Any, where: str) -> Any:
    """Take the image out of a table's cell.

    Args:
        cell: bytes, or a dict with `bytes` and `path`.
        where: for messages.

    Returns:
        Encoded bytes, or what the cell holds.

    Raises:
        DataError: the cell holds neither bytes nor a readable path.
    """
    if not isinstance(cell, dict):
        return cell
    if cell.get("bytes") is not None:
        return cell["bytes"]
    path = cell.get("path")
    if path and Path(path).is_file():
        return Path(path).read_bytes()
    raise DataError(f"{where}: expected image bytes, found none and no file at {path!r}")


@final
@dataclass(frozen=True)
class TableReader:
    """A Hugging Face data set whose image column is not decoded.

    Attributes:
        table: a `datasets.Dataset`.
        column: the image column.
        name: for messages.
    """

    table: Any
    column: str
    name: str

    def read(self, row: int) -> Any:
        """Return the encoded bytes of one row."""
        return encoded(self.table[row][self.column], self.where(row))

    def where(self, row: int) -> str:
        """Return name and row."""
        return f"row {row} of {self.name}"


@final
@dataclass(frozen=True)
class ParquetReader:
    """Parquet files, read a row group at a time.

    Attributes:
        files: one or more.
        column: the image column.
        groups: for every row group its file's number, its number in the file and its first row.
    """

    files: tuple[Path, ...]
    column: str
    groups: tuple[tuple[int, int, int], ...]
    _held: dict[int, Any] = field(default_factory=dict, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the row groups in memory behind when sent to a worker."""
        return {**self.__dict__, "_held": {}}

    def _locate(self, row: int) -> tuple[int, int]:
        starts = [first for _, _, first in self.groups]
        number = int(np.searchsorted(starts, row, side="right")) - 1
        return number, row - starts[number]

    def read(self, row: int) -> Any:
        """Return the encoded bytes of one row."""
        number, place = self._locate(row)
        if number not in self._held:
            file, group, _ = self.groups[number]
            try:
                with pq.ParquetFile(self.files[file], memory_map=True) as parquet:
                    table = parquet.read_row_group(group, columns=[self.column], use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{self.files[file]}: expected readable parquet, found {error}") from None
            while len(self._held) > 1:
                del self._held[next(iter(self._held))]
            self._held[number] = table.column(0)
        return encoded(self._held[number][place].as_py(), self.where(row))

    def where(self, row: int) -> str:
        """Return file and row."""
        number, place = self._locate(row)
        file, _, first = self.groups[number]
        before = next(start for f, _, start in self.groups if f == file)
        return f"{self.files[file]}, row {place + first - before}"


def pick_column(names: Sequence[str], wanted: Sequence[str], what: str, where: str) -> str:
    """Find a column by its customary names.

    Args:
        names: the table's columns.
        wanted: customary names, most likely first.
        what: for messages.
        where: for messages.

    Returns:
        The column's name.

    Raises:
        DataError: there is none.
    """
    for name in wanted:
        if name in names:
            return name
    raise DataError(f"{where}: expected a column of {what} named {shorten(list(wanted), 4)}, found {shorten(list(names), 8)}")


def number_labels(values: Sequence[Any], names: Sequence[str] | None, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Turn a column of labels into numbers and names.

    Args:
        values: integers, or strings.
        names: class names of integer labels, if known.
        where: for messages.

    Returns:
        (N,) int64 labels and class names.

    Raises:
        DataError: labels that are missing, negative, of other types, or beyond the names.
    """
    if any(value is None for value in values):
        raise DataError(f"{where}: expected a label for every image, found {sum(value is None for value in values)} without")
    kinds = {type(value) for value in values}
    if kinds and all(issubclass(kind, str) for kind in kinds):
        known = tuple(sorted(set(values)))
        number = {name: place for place, name in enumerate(known)}
        return np.array([number[value] for value in values], dtype=np.int64), known
    if not all(issubclass(kind, int | np.integer) and kind is not bool for kind in kinds):
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise DataError(f"{where}: expected labels that are all integers or all strings, found {found}")
    low, high = min(values, default=0), max(values, default=-1)
    if low < 0:
        raise DataError(f"{where}: expected labels >= 0, found {low} (an unlabelled split?)")
    if names is not None and high >= len(names):
        raise DataError(f"{where}: expected labels below the {len(names)} class names, found {high}")
    if high >= MOST_CLASSES:
        raise DataError(f"{where}: expected labels below {MOST_CLASSES}, found {high} (ids in place of classes?)")
    labels = np.array(values, dtype=np.int64)
    return labels, tuple(names) if names is not None else tuple(str(n) for n in range(int(high) + 1))

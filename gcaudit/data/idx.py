"""MNIST's format: idx files, gzipped or not. Sizes in headers are checked against what is there."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gcaudit.data.labels import number_labels
from gcaudit.data.readers import ArrayReader, RawData
from gcaudit.errors import DataError, foreign_content, foreign_file, one_line
from gcaudit.files import OpenFile

GZIP = b"\x1f\x8b"
_MOST_UNPACKED = 2**27
_MOST_PACKED = 50
"""How many times larger than the file data may be beyond that."""


def _read_idx(path: Path, dims: int) -> NDArray[np.uint8]:
    try:
        with OpenFile(path) as opened, gzip.open(opened.file) if path.suffix == ".gz" else opened.file as file:
            header = file.read(4 + 4 * dims)
            if header[:4] != bytes((0, 0, 8, dims)) or len(header) != 4 + 4 * dims:
                found = foreign_content(header + file.read(64)) or f"header {header.hex(' ')}"
                raise DataError(f"{path}: expected an idx file of {dims} dimensions, found {found}")
            shape = tuple(int(n) for n in np.frombuffer(header[4:], dtype=">u4"))
            size = math.prod(shape)
            most = max(_MOST_UNPACKED, _MOST_PACKED * opened.size) if path.suffix == ".gz" else opened.size
            body = file.read(min(size, most) + 1)
    except (OSError, EOFError, zlib.error, MemoryError, OverflowError) as error:
        raise DataError(
            f"{path}: expected a readable idx file, found {foreign_file(path, GZIP) or f'{one_line(error)}; fetch it again'}"
        ) from None
    if len(body) != size:
        raise DataError(f"{path}: expected {size} bytes after the header, found {len(body)}; fetch it again")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def read_idx(images: Path, labels: Path, names: Sequence[str]) -> RawData:
    """Read MNIST's format, gzipped or not.

    Args:
        images: idx3 file.
        labels: idx1 file.
        names: class names.

    Returns:
        The data.

    Raises:
        DataError: damaged files, or counts that disagree.
    """
    pixels, given = _read_idx(images, 3), _read_idx(labels, 1)
    if len(pixels) != len(given):
        raise DataError(f"{labels}: expected {len(pixels)} labels, one an image of {images.name}, found {len(given)}")
    found = number_labels(given.tolist(), names, str(labels))
    return RawData(ArrayReader(pixels, str(images)), found.numbers, found.names, found.warnings)

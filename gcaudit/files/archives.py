"""Zip archives and NumPy's files in them, read within bounds that are checked before anything is unpacked."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO, final

import numpy as np
from numpy.typing import NDArray

_MOST_DIRECTORY_BYTES = 2**24
_MOST_DIMENSIONS = 4


@final
class _Doorkeeper:
    """A file of which no more than so much is read at once, so that a directory that claims gigabytes is never asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size = file, file.seek(0, os.SEEK_END)
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._file.tell())
        wanted = min(size, left) if size >= 0 else left
        if wanted > _MOST_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"a directory of more than {_MOST_DIRECTORY_BYTES} bytes")
        return self._file.read(wanted)


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """Open a zip archive to read from it.

    Args:
        file: its bytes.

    Returns:
        The archive; its directory is in memory and bounded, nothing is unpacked.

    Raises:
        zipfile.BadZipFile: it is none, or its directory is too large.
        Exception: a damaged archive raises many kinds.
    """
    archive = zipfile.ZipFile(_Doorkeeper(file))
    archive.fp = file
    return archive


def read_arrays(file: BinaryIO, most: int, wanted: Callable[[str], bool] = lambda _name: True) -> dict[str, NDArray[Any]]:
    """Read an .npz archive of plain numbers.

    Args:
        file: its bytes.
        most: bytes that all that is wanted may have unpacked.
        wanted: which arrays to read, by name.

    Returns:
        The arrays by name.

    Raises:
        zipfile.BadZipFile: no such archive, arrays of other things than numbers, or more than `most` bytes.
        Exception: a damaged archive raises many kinds.
    """
    found: dict[str, NDArray[Any]] = {}
    with open_zip(file) as archive:
        entries = [entry for entry in archive.infolist() if wanted(entry.filename.removesuffix(".npy"))]
        total = sum(entry.file_size for entry in entries)
        if total > most:
            raise zipfile.BadZipFile(f"{total} bytes of arrays, more than {most}")
        for entry in entries:
            with archive.open(entry) as member:
                found[entry.filename.removesuffix(".npy")] = _read_array(member, entry.file_size)
    return found


def _read_array(member: Any, size: int) -> NDArray[Any]:
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise zipfile.BadZipFile(f"an array of version {version}")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(member)
    place = member.tell()
    if dtype.kind not in "fiub" or len(shape) > _MOST_DIMENSIONS or math.prod(shape) * dtype.itemsize != size - place:
        raise zipfile.BadZipFile(f"an array of shape {shape} and type {dtype} in {size - place} bytes")
    return np.frombuffer(member.read(size - place), dtype).reshape(shape, order="F" if fortran else "C")

"""Zip archives and NumPy's files in them, read within bounds that are checked before anything is unpacked."""

from __future__ import annotations

import lzma
import math
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, final

if TYPE_CHECKING:
    from numpy.typing import NDArray


BROKEN_ARCHIVE = (
    tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, struct.error, EOFError, OSError, NotImplementedError, RuntimeError,
    ValueError, TypeError, LookupError, ArithmeticError, RecursionError, MemoryError,
)  # fmt: skip
"""What the standard library's readers of archives raise, other than what they document, when bytes are damaged."""
_MOST_DIRECTORY_BYTES = 2**24
_MOST_DIMENSIONS = 4


@final
class BoundedFile:
    """A file of which no more than so much is read, at once and in all: what claims more is never asked for."""

    def __init__(self, file: BinaryIO, most: int, reach: int | None = None) -> None:
        """Stand before a file.

        Args:
            file: its bytes, maybe unpacked as they are read.
            most: bytes that may be read at once.
            reach: of the last byte that may be read; None where the file's size is known, and bounds it.
        """
        self._file, self._most = file, most
        self._reach = file.seek(0, os.SEEK_END) if reach is None else reach
        self._bounded_by_size = reach is None
        self.tell, self.seekable, self.close = file.tell, file.seekable, file.close

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, as files do."""
        if whence == os.SEEK_SET and place > self._reach and not self._bounded_by_size:
            raise OSError(0, f"more than {self._reach} bytes")
        return self._file.seek(place, whence)

    def read(self, size: int = -1) -> bytes:
        """Read, as files do.

        Raises:
            OSError: more than is allowed.
        """
        left = max(0, self._reach - self._file.tell())
        wanted = min(size, left) if size >= 0 else left
        if wanted > self._most or (size > left and not self._bounded_by_size):
            raise OSError(0, f"a part of more than {min(self._most, left)} bytes")
        return self._file.read(wanted)


def open_zip(file: BinaryIO, most: int = _MOST_DIRECTORY_BYTES) -> zipfile.ZipFile:
    """Open a zip archive to read from it.

    Args:
        file: its bytes.
        most: bytes that its directory may have.

    Returns:
        The archive; its directory is in memory and bounded, nothing is unpacked.

    Raises:
        zipfile.BadZipFile: it is none.
        OSError: its directory is too large.
        Exception: a damaged archive raises many kinds.
    """
    archive = zipfile.ZipFile(BoundedFile(file, most))
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
    import numpy as np  # here, so that archives can be opened without it

    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise zipfile.BadZipFile(f"an array of version {version}")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(member)
    place = member.tell()
    if dtype.kind not in "fiub" or len(shape) > _MOST_DIMENSIONS or math.prod(shape) * dtype.itemsize != size - place:
        raise zipfile.BadZipFile(f"an array of shape {shape} and type {dtype} in {size - place} bytes")
    return np.frombuffer(member.read(size - place), dtype).reshape(shape, order="F" if fortran else "C")

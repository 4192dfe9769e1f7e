"""Pictures in tar and zip archives, read in place: nothing is unpacked.

A tar's members lie one after the other, so an index of where each begins is all that is needed; one that is compressed as a whole is first laid, uncompressed, into
a file without a name. Of a zip each member is decompressed when it is read. Links, devices and what lies in folders that begin with a dot are not
followed; only names are taken from paths, so that none leads anywhere.
"""

from __future__ import annotations

import os
import stat
import tarfile
import weakref
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gcaudit.data.readers import LARGEST_PICTURE
from gcaudit.data.spool import Spool
from gcaudit.errors import DataError, one_line, printable
from gcaudit.files import BROKEN_ARCHIVE, BoundedFile, OpenFile, open_zip

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_PIECE = 2**20
_BLOCK = 512
_MOST_HEADER_BYTES = 2**24
_MOST_DIRECTORY_BYTES = 2**29
_LEAST_BOMB, _MOST_RATIO = 2**26, 100
"""Pictures are compressed already: what swells so much holds none."""


@final
@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    Attributes:
        name: its path there.
        archive: number of the archive.
        place: where it begins in the tar, or its number in the zip.
        size: in bytes.
    """

    name: str
    archive: int
    place: int
    size: int


@final
class _Held:
    """An open file, which is closed with the last who holds it."""

    def __init__(self, opened: OpenFile, reads: Any = None) -> None:
        self.file, self.reads = opened.file, reads
        weakref.finalize(self, opened.close)


def _open(path: Path, stamp: tuple[int, ...]) -> OpenFile:
    opened = OpenFile(path)
    if opened.stamp != stamp:
        opened.close()
        raise DataError(f"{path}: expected the file as it was opened, found it changed; run it again")
    return opened


@final
class _Tar:
    """A tar on disk, or the uncompressed copy of one."""

    def __init__(self, path: Path, stamp: tuple[int, ...], copy: Spool | None) -> None:
        self.path, self.stamp, self.copy = path, stamp, copy

    def read(self, place: int, size: int, held: dict[str, Any]) -> bytes:
        if self.copy is not None:
            return self.copy.read(place, size)
        key = str(self.path)
        if key not in held:
            held.clear()  # one archive is open at a time
            held[key] = _Held(_open(self.path, self.stamp))
        return os.pread(held[key].file.fileno(), size, place)


@final
class _Zip:
    """A zip on disk."""

    def __init__(self, path: Path, stamp: tuple[int, ...]) -> None:
        self.path, self.stamp = path, stamp

    def read(self, place: int, size: int, held: dict[str, Any]) -> bytes:
        key = str(self.path)
        if key not in held:
            held.clear()
            opened = _open(self.path, self.stamp)
            archive = open_zip(opened.file, _MOST_DIRECTORY_BYTES)
            held[key] = _Held(opened, (archive, archive.infolist()))
        archive, members = held[key].reads
        with archive.open(members[place]) as member:
            found: bytes = member.read(size + 1)
        return found


@final
@dataclass(frozen=True)
class ArchiveReader:
    """Members of archives.

    Attributes:
        archives: open, or to be opened when they are read.
        numbers: (N,) int32 archive of each picture.
        places: (N, 2) int64 place and size of each.
        names: of each, for messages.
    """

    archives: tuple[Any, ...]
    numbers: NDArray[np.int32]
    places: NDArray[np.int64]
    names: Sequence[str]
    _held: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind when sent to a worker, or taken along by a fork."""
        return {**self.__dict__, "_held": {}}

    def read(self, row: int) -> bytes:
        """Return the member's bytes."""
        held = self._held.setdefault(str(os.getpid()), {})  # a fork must not share the place in a file
        place, size = (int(number) for number in self.places[row])
        if size > LARGEST_PICTURE:
            raise DataError(f"{self.where(row)}: expected a picture of up to {LARGEST_PICTURE} bytes, found {size}")
        try:
            found: bytes = self.archives[int(self.numbers[row])].read(place, size, held)
        except BROKEN_ARCHIVE as error:
            raise DataError(f"{self.where(row)}: expected a file that can be read, found {one_line(error)}") from None
        if len(found) != size:
            raise DataError(f"{self.where(row)}: expected {size} bytes, found {len(found)}; fetch the archive again")
        return found

    def where(self, row: int) -> str:
        """Return archive and member."""
        return f"{self.archives[int(self.numbers[row])].path}, {printable(self.names[row])}"


def is_archive(path: Path) -> bool:
    """Tell a tar or zip by its name.

    Args:
        path: of a file.
    """
    name = path.name.lower()
    return name.endswith((*TAR_SUFFIXES, ".zip")) and path.is_file()


def list_archives(paths: Sequence[Path]) -> tuple[tuple[Any, ...], list[Member], int]:
    """List what is in archives.

    Args:
        paths: of tars and zips.

    Returns:
        The archives, for an `ArchiveReader`; their regular files, in order; and how many members are none (links, devices).

    Raises:
        DataError: one cannot be read.
    """
    archives: list[Any] = []
    members: list[Member] = []
    others = 0
    for number, path in enumerate(paths):
        try:
            archive, found, left = (_list_zip if path.name.lower().endswith(".zip") else _list_tar)(path, number)
        except BROKEN_ARCHIVE as error:
            raise DataError(f"{path}: expected a readable archive, found {one_line(error)}; fetch it again") from None
        archives.append(archive)
        members += found
        others += left
    return tuple(archives), members, others


def _list_zip(path: Path, number: int) -> tuple[_Zip, list[Member], int]:
    with OpenFile(path) as opened, open_zip(opened.file, _MOST_DIRECTORY_BYTES) as archive:
        entries = archive.infolist()
        if any(entry.flag_bits & 1 for entry in entries):
            raise DataError(f"{path}: expected an archive without a password, found one with; unpack it, and name the folder")
        files = [(place, entry) for place, entry in enumerate(entries) if not entry.is_dir()]
        plain = [(place, entry) for place, entry in files if not stat.S_ISLNK(entry.external_attr >> 16)]
        found = [Member(entry.filename, number, place, entry.file_size) for place, entry in plain]
        return _Zip(path, opened.stamp), found, len(files) - len(plain)


def _list_tar(path: Path, number: int) -> tuple[_Tar, list[Member], int]:
    with OpenFile(path) as opened:
        copy = _uncompressed(opened.file, opened.size)
        whole: Any = opened.file if copy is None else _Stream(copy)
        found, others = [], 0
        size = opened.size if copy is None else copy.size
        bounded: Any = BoundedFile(whole, _MOST_HEADER_BYTES)
        bounded.seek(0)
        with tarfile.open(fileobj=bounded, mode="r:") as tar:
            for member in _members(tar, size):
                if member.isreg() and not member.issparse():
                    found.append(Member(member.name, number, member.offset_data, member.size))
                elif not member.isdir():
                    others += 1
            _check_end(whole, tar.offset, size)
        opened.check_unchanged()
        return _Tar(path, opened.stamp, copy), found, others


def _members(tar: tarfile.TarFile, size: int) -> Iterator[tarfile.TarInfo]:
    """Go through a tar without keeping what has been seen; a header that leads back would go on for ever."""
    before = -1
    while (member := tar.next()) is not None:
        if member.size < 0 or tar.offset <= before or member.offset_data + member.size > size:
            raise tarfile.ReadError("a header that cannot be true")
        before = tar.offset
        yield member
        tar.members = []  # type: ignore[attr-defined]


def _check_end(file: Any, place: int, size: int) -> None:
    """Make sure that a tar ends with blocks of zeros where its listing has ended: a damaged header ends it without a word."""
    file.seek(max(0, min(place, size)))
    rest = size - max(0, min(place, size))
    if rest < _BLOCK:
        raise tarfile.ReadError("no end, as of one that was cut")
    while piece := file.read(_PIECE):
        if piece.strip(b"\0"):
            raise tarfile.ReadError("a damaged header, or another archive after its end")


def _uncompressed(file: Any, size: int) -> Spool | None:
    """Decompress a tar into a file without a name; None where it is not compressed."""
    import bz2
    import gzip
    import lzma

    start = file.read(8)
    file.seek(0)
    openers: tuple[tuple[bytes, Callable[..., Any]], ...] = (
        (b"\x1f\x8b", gzip.open),
        (b"BZh", bz2.open),
        (b"\xfd7zXZ\x00", lzma.open),
    )
    opener = next((opener for sign, opener in openers if start.startswith(sign)), None)
    if opener is None:
        return None
    spool = Spool()
    with opener(file, "rb") as stream:
        while piece := stream.read(_PIECE):
            spool.add(piece)
            if spool.size > max(_LEAST_BOMB, _MOST_RATIO * size):
                raise zipfile.BadZipFile(f"more than {_MOST_RATIO} times its size when it is unpacked")
    file.seek(0)
    return spool


@final
class _Stream:
    """A spool as a file that can be read, for `tarfile`."""

    def __init__(self, spool: Spool) -> None:
        self._spool, self._place = spool, 0

    def read(self, size: int = -1) -> bytes:
        found = self._spool.read(self._place, self._spool.size - self._place if size < 0 else size)
        self._place += len(found)
        return found

    def seek(self, place: int, whence: int = 0) -> int:
        self._place = place + (0, self._place, self._spool.size)[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """Leave the spool to its readers."""

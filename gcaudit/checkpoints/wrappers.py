"""Archives around one weight file: tar, packed or not, and zip. What is in them is unpacked to a file without a name, within bounds."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, final

from gcaudit.errors import AuditError, CheckpointError, one_line, printable, shorten
from gcaudit.files import BROKEN_ARCHIVE, OpenFile, open_zip

_MOST_TIMES, _SPARE = 4, 2**24
"""Weights hardly pack: what unpacks to far more is not weights."""
_MOST_MEMBERS = 10_000
_PIECE = 2**22
_PACKED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
_PROGRAM = ("archive_format", "serialized_exported_program.json", "constants.pkl", "data.pkl")
"""Files of what torch itself keeps in a zip archive."""
_TAR_MAGIC, _TAR_PLACE, _START = b"ustar", 257, 512


def _plain(file: OpenFile) -> Any:
    """Return what is in a file from its beginning, unpacked where it is packed."""
    file.file.seek(0)
    start = file.file.read(_START)
    file.file.seek(0)
    unpack = next((unpack for magic, unpack in _PACKED.items() if start.startswith(magic)), None)
    return file.file if unpack is None else unpack(file.file)


@final
class _Bounded:
    """What is in a packed or plain file, of which no more is read than weights may unpack to."""

    def __init__(self, file: OpenFile) -> None:
        self._file = _plain(file)
        self._path, self._size, self._left = file.path, file.size, _MOST_TIMES * file.size + _SPARE

    def read(self, size: int) -> bytes:
        """Read, as files do.

        Raises:
            CheckpointError: it unpacks to far more than weights do.
        """
        found: bytes = self._file.read(min(size, self._left + 1))
        self._left -= len(found)
        if self._left < 0:
            raise CheckpointError(
                f"{self._path}: refused: {self._size} bytes that unpack to more than {_MOST_TIMES} times as many; unpack it and name the file"
            )
        return found


def is_tar(file: OpenFile) -> bool:
    """Tell a tar archive, packed or not, by its first bytes.

    Args:
        file: open.
    """
    try:
        start: bytes = _plain(file).read(_START)
    except BROKEN_ARCHIVE:
        start = b""
    file.file.seek(0)
    return start[_TAR_PLACE : _TAR_PLACE + len(_TAR_MAGIC)] == _TAR_MAGIC


def open_tar_member(file: OpenFile, suffixes: tuple[str, ...]) -> OpenFile:
    """Take the one weight file out of a tar archive.

    Args:
        file: open.
        suffixes: of weight files.

    Returns:
        It, open; its path is the archive's.

    Raises:
        CheckpointError: there is none, there are several, or the archive is damaged.
    """
    names: list[str] = []
    found: OpenFile | None = None
    stream: Any = _Bounded(file)
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for number, member in enumerate(archive):
                if number >= _MOST_MEMBERS:
                    raise _not_one(file.path, names)
                if member.isreg() and member.name.lower().endswith(suffixes):
                    names.append(member.name)
                    source = archive.extractfile(member)
                    if found is None and source is not None:
                        found = _unpacked(file, source, member.size)
    except CheckpointError:
        if found is not None:
            found.close()
        raise
    except BROKEN_ARCHIVE as error:
        if found is not None:
            found.close()
        raise CheckpointError(
            f"{file.path}: expected a sound archive, found {printable(str(error))[:120]}; fetch it again"
        ) from None
    if found is None or len(names) != 1:
        if found is not None:
            found.close()
        raise _not_one(file.path, names)
    return found


def open_zip_member(file: OpenFile, suffixes: tuple[str, ...]) -> OpenFile | None:
    """Take the one weight file out of a zip archive.

    Args:
        file: open.
        suffixes: of weight files.

    Returns:
        It, open; its path is the archive's. None where the archive is of another kind, or damaged.

    Raises:
        CheckpointError: there are several.
    """
    with suppress(*BROKEN_ARCHIVE), open_zip(file.file) as archive:
        inside = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
        if any(Path(entry.filename).name in _PROGRAM for entry in inside):
            return None
        names = [entry.filename for entry in inside if entry.filename.lower().endswith(suffixes)]
        if len(names) > 1:
            raise _not_one(file.path, names)
        if names:
            entry = archive.getinfo(names[0])
            with archive.open(entry) as source:
                return _unpacked(file, source, entry.file_size)
    return None


def _not_one(path: Path, names: list[str]) -> CheckpointError:
    told = shorten([printable(name)[:80] for name in names]) or "none"
    return CheckpointError(f"{path}: expected an archive of one weight file, found {told}; unpack it and name the file")


def _unpacked(outer: OpenFile, source: IO[bytes], size: int) -> OpenFile:
    if size > _MOST_TIMES * outer.size + _SPARE:
        raise CheckpointError(f"{outer.path}: refused: {outer.size} bytes that unpack to {size}; unpack it and name the file")
    try:
        handle, name = tempfile.mkstemp(prefix="gcaudit-")
    except OSError as error:
        raise _no_place(outer.path, size, error) from None
    try:
        with os.fdopen(handle, "wb") as target:
            left = size
            while left and (piece := source.read(min(_PIECE, left))):
                try:
                    target.write(piece)
                except OSError as error:
                    raise _no_place(outer.path, size, error) from None
                left -= len(piece)
        if left:
            raise CheckpointError(f"{outer.path}: expected a sound archive, found {left} bytes too few; fetch it again")
        found = OpenFile(Path(name))
    finally:
        os.unlink(name)  # noqa: PTH108 - by its name, once it is open
    found.path = outer.path
    return found


def _no_place(path: Path, size: int, error: OSError) -> AuditError:
    text = error.strerror or one_line(error)
    return AuditError(
        f"{path}: expected room for {size} unpacked bytes in the folder of temporary files ($TMPDIR), found {text}; free the disk, and try again"
    )

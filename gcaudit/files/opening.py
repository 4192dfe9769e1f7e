"""One way to open a file: regular files alone, and their bytes are read once, digested and told from those of another moment."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import final

_PIECE = 1 << 23
_KINDS = {
    stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFDIR: "a folder",
}  # fmt: skip


class UnfitFileError(OSError):
    """A file that cannot be read as it should be; the text says why."""

    def __str__(self) -> str:
        """Return the text alone."""
        return str(self.strerror)


@final
class OpenFile:
    """A regular file, open for reading; closes itself at the end of `with`.

    Attributes:
        path: as given.
        file: its bytes.
        size: how many there are.
        stamp: tells it from another file, and from itself once it was written to.
    """

    def __init__(self, path: Path) -> None:
        """Open it; nobody is waited for, as a FIFO's reader would.

        Args:
            path: of the file.

        Raises:
            OSError: it is not there, may not be read, or is no regular file.
        """
        self.path = path
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            os.close(handle)
            raise UnfitFileError(0, f"{_KINDS.get(stat.S_IFMT(found.st_mode), 'something else')} in place of a regular file")
        self.file = os.fdopen(handle, "rb")
        self.size = found.st_size
        self.stamp = _stamp(found)

    def __enter__(self) -> OpenFile:
        """Return itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close it."""
        self.file.close()

    def check_unchanged(self) -> None:
        """Make sure that it is the file that it was when it was opened.

        Raises:
            UnfitFileError: it was written to.
        """
        if _stamp(os.fstat(self.file.fileno())) != self.stamp:
            raise UnfitFileError(0, "a file that changed while it was read; wait until it is written")

    def read_spans(self, spans: Sequence[tuple[int, memoryview]]) -> Callable[[], str]:
        """Read the whole file once, in order: parts of it into memory, and all of it into a digest, which another thread goes on with.

        Args:
            spans: places, ascending and apart, and where the bytes from there go; these must not change until the digest is there.

        Returns:
            Waits for the digest, and returns SHA-256 in hex of the very bytes that were read.

        Raises:
            UnfitFileError: it ends early or was written to.
        """
        digest, place = hashlib.sha256(), 0
        between = memoryview(bytearray(_PIECE))
        self.file.seek(0)
        other = ThreadPoolExecutor(1)
        try:
            digested = other.submit(lambda: None)
            for start, target in (*spans, (self.size, memoryview(b""))):
                while place < start:
                    digested.result()
                    piece = between[: min(_PIECE, start - place)]
                    digested = other.submit(digest.update, self._fill(piece))
                    place += len(piece)
                for begin in range(0, len(target), _PIECE):
                    digested = other.submit(digest.update, self._fill(target[begin : begin + _PIECE]))
                place += len(target)
            self.check_unchanged()
            return other.submit(digest.hexdigest).result
        finally:
            other.shutdown(wait=False)

    def _fill(self, piece: memoryview) -> memoryview:
        if self.file.readinto(piece) != len(piece):
            raise UnfitFileError(0, "a file that changed while it was read; wait until it is written")
        return piece


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def read_bytes(path: Path, most: int) -> bytes:
    """Read a whole file.

    Args:
        path: of the file.
        most: bytes that it may have.

    Returns:
        Its bytes.

    Raises:
        OSError: it is not there, may not be read, is no regular file, or too large.
    """
    with OpenFile(path) as file:
        if file.size > most:
            raise UnfitFileError(0, f"{file.size} bytes, more than {most}")
        return file.file.read(most + 1)[:most]


def read_text(path: Path, most: int) -> str:
    """Read a whole text.

    Args:
        path: of the file.
        most: bytes that it may have.

    Returns:
        The text.

    Raises:
        OSError: as for `read_bytes`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path, most).decode("utf-8")

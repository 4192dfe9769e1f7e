"""Claims on work under way, for other processes on the machine to see; the system drops them when their process ends, however it ends."""

from __future__ import annotations

import os
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import final

from gcaudit.errors import RequestError

_LOCK_LAYOUTS = {
    "linux": ("hhqqi", ("type", "whence", "start", "length", "pid")),
    "darwin": ("qqihh", ("start", "length", "pid", "type", "whence")),
}
"""How the system writes a lock, by platform."""


@final
class Claims:
    """Which blocks are under way in this process, for other processes to see.

    Each claim locks one byte of a file, at a place that the block's key says.
    """

    def __init__(self, path: Path) -> None:
        """Open the file of claims.

        Args:
            path: of the file.
        """
        self._path = path
        self._handle: int | None = None

    def _file(self) -> int:
        if self._handle is None:
            try:
                self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
            except OSError as error:  # else it would look as if another process had everything under way
                raise RequestError(
                    f"{self._path}: expected a file of claims that can be written, found {error.strerror}; remove it, or pass another --store"
                ) from None
        return self._handle

    def claim(self, key: str) -> bool:
        """Claim a block.

        Args:
            key: of its content.

        Returns:
            Whether no other process has it under way; always true where the system has no such locks.

        Raises:
            RequestError: the file of claims cannot be written.
        """
        try:
            import fcntl
        except ImportError:
            return True
        try:
            fcntl.lockf(self._file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(key))
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without locks
            return True
        return True

    def holder(self, key: str) -> int | None:
        """Say which process has a block under way.

        Args:
            key: of its content.

        Returns:
            Its number; None when there is none, or the system does not tell.
        """
        layout = _LOCK_LAYOUTS.get(sys.platform)
        if layout is None:
            return None
        import fcntl

        form, names = layout
        asked = {"type": fcntl.F_WRLCK, "whence": os.SEEK_SET, "start": _place(key), "length": 1, "pid": 0}
        try:
            raw = fcntl.fcntl(self._file(), fcntl.F_GETLK, struct.pack(form, *(asked[name] for name in names)))
            found = dict(zip(names, struct.unpack(form, raw), strict=True))
        except (OSError, struct.error):
            return None
        return found["pid"] if found["type"] != fcntl.F_UNLCK and found["pid"] > 0 else None

    def release(self, key: str) -> None:
        """Give a claim back.

        Args:
            key: of the block.
        """
        with suppress(ImportError, OSError, RequestError):
            import fcntl

            fcntl.lockf(self._file(), fcntl.LOCK_UN, 1, _place(key))

    def close(self) -> None:
        """Give all claims back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _place(key: str) -> int:
    return int(key[:15], 16)

"""Encoded images that come once, laid in a file without a name, so that they can be read again in any order.

Whatever ends the process also frees the space.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any, final

from gcaudit.errors import AuditError

_HANDLES = "/proc/self/fd"
_CHECK_EVERY = 2**26
_LEAST_FREE = 2**28


@final
class Spool:
    """Bytes one after the other; places are what `add` has returned."""

    def __init__(self) -> None:
        """Open the file, in the folder of temporary files."""
        self._open(tempfile.TemporaryFile(prefix="gcaudit-"))  # noqa: SIM115 - it lives as long as the spool
        self.size = 0
        self._checked = 0

    def _open(self, file: Any) -> None:
        weakref.finalize(self, file.close)
        self._file = file

    def __getstate__(self) -> dict[str, Any]:
        """Tell another process of this machine where the file is; it is there as long as this process."""
        if not Path(_HANDLES).is_dir():
            raise AuditError("expected decoding in this process, since the images lie in a file without a name; pass --workers 0")
        self._file.flush()
        return {"place": f"/proc/{os.getpid()}/fd/{self._file.fileno()}", "size": self.size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the file of another process, to read it."""
        self._open(open(state["place"], "rb"))  # noqa: PTH123, SIM115 - it lives as long as the spool
        self.size = self._checked = state["size"]

    def add(self, content: bytes | memoryview) -> int:
        """Append bytes.

        Args:
            content: of an image.

        Returns:
            Where they are.

        Raises:
            AuditError: the disk of temporary files is full.
        """
        place = self.size
        if place + len(content) >= self._checked:
            self._check(len(content))
        try:
            self._file.write(content)
        except OSError as error:
            raise AuditError(_full(place, error.strerror or "it is full")) from error
        self.size += len(content)
        return place

    def _check(self, more: int) -> None:
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if free < more + _LEAST_FREE:
            raise AuditError(_full(self.size, f"{free / 2**20:.0f} MiB are left"))
        self._checked = self.size + min(_CHECK_EVERY, (free - _LEAST_FREE) // 2)

    def read(self, place: int, size: int) -> bytes:
        """Read bytes back.

        Args:
            place: from `add`.
            size: how many.
        """
        if self._file.writable():
            self._file.flush()
        return os.pread(self._file.fileno(), size, place)


def _full(size: int, why: str) -> str:
    return (
        f"expected space in {tempfile.gettempdir()} for the images of a stream, found after {size / 2**20:.0f} MiB that {why}; "
        "set TMPDIR to a larger disk, or pass --max-images"
    )

"""Where a pass keeps embeddings: in memory while they are few, in a file when they are many.

The file is mapped for the moment of a read or write only, so that a million images take disk space and no memory. It has no name: whatever
ends the process also frees the space.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import weakref
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from gcaudit.errors import AuditError
from gcaudit.geometry import Rows

MEMORY_BYTES = 64 * 2**20
"""More than this goes into a file."""
_KINDS = {torch.float32: np.float32, torch.float64: np.float64, torch.uint8: np.uint8}


@final
class EmbeddingFile:
    """Rows in a nameless file; reading gives copies.

    Attributes:
        shape: (N, D).
        dtype: float32, float64 or uint8.
    """

    def __init__(self, images: int, dim: int, kind: torch.dtype) -> None:
        """Reserve the space.

        Args:
            images: N.
            dim: D.
            kind: float32, float64 or uint8.

        Raises:
            AuditError: the disk of temporary files has too little space.
        """
        self.shape = (images, dim)
        self.dtype = kind
        folder = tempfile.gettempdir()
        need, free = images * dim * kind.itemsize, shutil.disk_usage(folder).free
        if need > free:
            raise AuditError(
                f"expected {need / 2**30:.1f} GiB in {folder} for {images} embeddings of {dim}, found {free / 2**30:.1f}; "
                "set TMPDIR to a larger disk, or lower --max-images"
            )
        try:
            file = tempfile.TemporaryFile(prefix="gcaudit-", dir=folder)  # noqa: SIM115 # it lives as long as the rows
            weakref.finalize(self, file.close)
            _reserve(file, need)
        except OSError as error:
            raise AuditError(
                f"expected {need / 2**30:.1f} GiB in {folder} for {images} embeddings of {dim}: {error.strerror}; set TMPDIR to a larger disk"
            ) from error
        self._file = file
        self._kept: Tensor | None = None
        self._whole: EmbeddingFile | None = None

    def _map(self, mode: Any) -> Any:
        rows = self._file.seek(0, 2) // (self.shape[1] * self.dtype.itemsize)
        return np.memmap(self._file, dtype=_KINDS[self.dtype], mode=mode, shape=(rows, self.shape[1]))

    def put(self, places: Tensor, values: Tensor) -> None:
        """Write rows.

        Args:
            places: (B,) int64.
            values: (B, D) on the CPU.
        """
        self._map("r+")[places.numpy()] = values.numpy()

    def only(self, places: Tensor) -> EmbeddingFile:
        """Return some of the rows, in the same file.

        Args:
            places: (M,) int64.
        """
        found = object.__new__(EmbeddingFile)
        found.shape, found.dtype = (len(places), self.shape[1]), self.dtype
        found._file, found._kept, found._whole = self._file, places, self
        return found

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        places: Any = rows if self._kept is None else self._kept[rows]
        found = self._map("r")[places.numpy() if isinstance(places, Tensor) else places]
        return torch.from_numpy(np.array(found))


def _reserve(file: Any, size: int) -> None:
    """Take the space now: a disk that fills up later would kill the process that writes through a map."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except (AttributeError, OSError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        file.truncate(size)


@final
class EmbeddingStore:
    """Takes embeddings in any order, gives them in that of the data set."""

    def __init__(self, images: int, dim: int, kind: torch.dtype, memory_bytes: int = MEMORY_BYTES) -> None:
        """Reserve the space.

        Args:
            images: N.
            dim: D.
            kind: float32, float64 or uint8.
            memory_bytes: more than this goes into a file.
        """
        large = images * dim * kind.itemsize > memory_bytes
        self._rows: Tensor | EmbeddingFile = EmbeddingFile(images, dim, kind) if large else torch.zeros(images, dim, dtype=kind)

    def put(self, places: Tensor, values: Tensor) -> None:
        """Keep rows.

        Args:
            places: (B,) int64 places in the data set.
            values: (B, D) on the CPU.
        """
        if isinstance(self._rows, EmbeddingFile):
            self._rows.put(places, values)
        else:
            self._rows[places] = values

    def rows(self, seen: Tensor) -> Rows:
        """Return what was kept.

        Args:
            seen: (N,) bool, which places were filled.

        Returns:
            (M, D) rows in the order of their places.
        """
        if bool(seen.all()):
            return self._rows
        places = seen.nonzero().flatten()
        return self._rows.only(places) if isinstance(self._rows, EmbeddingFile) else self._rows[places]

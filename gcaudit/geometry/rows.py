"""Rows of numbers, one an image, that may be more than memory holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

_ROWS = 4096
_NUMBERS = 2**19  # 4 MB in float64: larger pieces leave the processor's cache, and are asked of the system anew each time


class Rows(Protocol):
    """What the metrics need of embeddings: a tensor has it, and so has a file of more rows than memory holds."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""

    def __getitem__(self, rows: Any, /) -> Tensor:
        """Return the rows of a slice, or of an int64 tensor."""


def equal_rows(embeddings: Rows) -> Tensor:
    """Number rows so that equal rows have equal numbers.

    Args:
        embeddings: (N, D).

    Returns:
        (N,) int64 in 0..U-1, in the order of first rows; U of them differ.
    """
    numbers: dict[bytes, int] = {}
    found = torch.empty(embeddings.shape[0], dtype=torch.int64)
    for part, z in chunks(embeddings):
        table = (z + 0.0).contiguous().numpy()  # a zero has two signs
        digests = (hashlib.blake2b(row.data, digest_size=16).digest() for row in table)
        found[part] = torch.tensor([numbers.setdefault(digest, len(numbers)) for digest in digests])
    return found


def chunks(embeddings: Rows, members: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Go through rows that may not fit into memory.

    Args:
        embeddings: (N, D).
        members: (M,) int64 rows, or None for all.

    Yields:
        Which of them, and these rows in float64.
    """
    rows = max(1, min(_ROWS, _NUMBERS // max(1, embeddings.shape[1])))
    for start in range(0, embeddings.shape[0] if members is None else len(members), rows):
        part = slice(start, start + rows)
        yield part, embeddings[part if members is None else members[part]].to(torch.float64)

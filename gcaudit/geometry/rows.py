"""Rows of numbers, one an image, that may be more than memory holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

_ROWS = 4096


class Rows(Protocol):
    """What the metrics need of embeddings: a tensor has it, and so has a file of more rows than memory holds."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""

    def __getitem__(self, rows: Any, /) -> Tensor:
        """Return the rows of a slice, or of an int64 tensor."""


def chunks(embeddings: Rows, members: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Go through rows that may not fit into memory.

    Args:
        embeddings: (N, D).
        members: (M,) int64 rows, or None for all.

    Yields:
        Which of them, and these rows in float64.
    """
    for start in range(0, embeddings.shape[0] if members is None else len(members), _ROWS):
        part = slice(start, start + _ROWS)
        yield part, embeddings[part if members is None else members[part]].to(torch.float64)

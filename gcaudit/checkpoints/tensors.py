"""Descriptions of tensors -> tensors, made of the bytes that the file's digest is of."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from gcaudit.errors import CheckpointError
from gcaudit.files import OpenFile, StorageSpec, TensorSpec

_ALIGNMENT = 64
_SPREAD_LIMIT = 2**28
"""Numbers that tensors may show beyond those of their storages, by strides of 0."""


@final
@dataclass(frozen=True, eq=False)
class TensorFile:
    """A checkpoint file that has been looked at; its tensors have not been read yet.

    Attributes:
        file: open.
        format: what the bytes are.
        content: what was saved, with `TensorSpec`s in place of tensors.
        spans: first byte and size of each storage.
        swapped: numbers are stored with their largest byte first.
        foreign: names of what was not read and is an opaque value.
    """

    file: OpenFile
    format: str
    content: Mapping[str, Any]
    spans: Mapping[str, tuple[int, int]]
    swapped: bool = False
    foreign: Sequence[str] = ()


def load_tensors(
    files: Iterable[TensorFile], specs: Iterable[TensorSpec]
) -> tuple[dict[TensorSpec, Tensor], list[Callable[[], str]]]:
    """Read tensors, each file once from its beginning to its end.

    Args:
        files: open; of their storages those that are needed are kept in memory.
        specs: what is wanted.

    Returns:
        The tensors, and for each file what waits for its SHA-256, which goes on; until then they must not be changed.

    Raises:
        CheckpointError: storages that lie over each other.
        OSError: a file that ends early or was written to.
    """
    wanted = list(specs)
    found: dict[TensorSpec, Tensor] = {}
    digests = []
    for source in files:
        own = [spec for spec in wanted if spec.storage.source is source.file]
        storages, digest = _read_storages(source, {spec.storage.key: spec.storage for spec in own})
        digests.append(digest)
        for spec in own:
            empty = torch.empty(0, dtype=getattr(torch, spec.dtype))
            found[spec] = empty.set_(storages[spec.storage.key], spec.offset, spec.shape, spec.stride)
    return found, digests


def _read_storages(source: TensorFile, needed: Mapping[str, StorageSpec]) -> tuple[dict[str, Any], Callable[[], str]]:
    order = sorted(needed, key=lambda key: source.spans[key])
    buffers = _allocate({key: source.spans[key][1] for key in order})
    end = 0
    for key in order:
        start, size = source.spans[key]
        if size and start < end:
            raise CheckpointError(
                f"{source.file.path}: refused: tensor data {key!r} lie over others; the file is damaged, fetch it again"
            )
        end = max(end, start + size)
    digest = source.file.read_spans(
        [(source.spans[key][0], memoryview(buffers[key].data)) for key in order if source.spans[key][1]]
    )
    if source.swapped:
        digest()
        for key, buffer in buffers.items():
            _swap(buffer, getattr(torch, needed[key].dtype))
    return {key: torch.from_numpy(buffer).untyped_storage() for key, buffer in buffers.items()}, digest


def _allocate(sizes: Mapping[str, int]) -> dict[str, np.ndarray[Any, Any]]:
    """Make a buffer for each size, all in one piece of memory: in large pages it is there in a tenth of the time."""
    places, total = {}, 0
    for key, size in sizes.items():
        places[key] = total
        total += -(-size // _ALIGNMENT) * _ALIGNMENT
    held = mmap.mmap(-1, max(total, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            held.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(held, dtype=np.uint8)
    return {key: whole[place : place + sizes[key]] for key, place in places.items()}


def _swap(buffer: np.ndarray[Any, Any], dtype: torch.dtype) -> None:
    width = dtype.itemsize // (2 if dtype.is_complex else 1)
    if width > 1:
        buffer.reshape(-1, width)[:] = buffer.reshape(-1, width)[:, ::-1].copy()


def check_spread(tensors: Mapping[str, TensorSpec], path: Any) -> None:
    """Refuse tensors that make far more numbers of the bytes than there are.

    Args:
        tensors: by name.
        path: for messages.

    Raises:
        CheckpointError: naming the tensor that is the last straw.
    """
    spread = 0
    for name, spec in tensors.items():
        spread += max(0, spec.numbers - spec.storage.bytes)
        if spread > _SPREAD_LIMIT:
            raise CheckpointError(
                f"{path}: refused: tensor {name!r} spreads {spec.storage.bytes} bytes over {spec.numbers} numbers; save a copy of it"
            )

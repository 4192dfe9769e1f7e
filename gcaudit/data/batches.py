"""Images -> batches of pixels: decoded, converted, resized and hashed in worker processes, in a fixed order."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from gcaudit.data.perceptual import PERCEPTUAL_BYTES, perceptual_hash
from gcaudit.data.pictures import open_picture
from gcaudit.data.readers import ItemReader, Reader
from gcaudit.errors import AuditError, GcauditError, foreign_content, one_line, plain

Transform = Callable[[Image.Image], Tensor]
DIGEST_BYTES = 16


@final
@dataclass(frozen=True)
class Batch:
    """Some images, ready for the device.

    Attributes:
        pixels: (N, C, H, W), uint8 or floating point in [0, 1].
        positions: (N,) int64 places in the image set.
        digests: (N, 16) uint8 digests of the encoded images.
        perceptual: (N, 64) uint8 hashes of what the images look like.
        failures: places and reasons of images that could not be decoded.
        sizes: (N, 2) int64 width and height of pictures before they were resized; 0 of tensors.
        remarks: places and keys of `REMARKS`: what else happened to pictures.
    """

    pixels: Tensor
    positions: Tensor
    digests: Tensor
    perceptual: Tensor
    failures: tuple[tuple[int, str], ...]
    sizes: Tensor | None = None
    remarks: tuple[tuple[int, str], ...] = ()

    def pin_memory(self) -> Batch:
        """Move what goes to the device into page-locked memory; torch's loader calls this."""
        return replace(self, pixels=self.pixels.pin_memory(), positions=self.positions.pin_memory())


@final
@dataclass(frozen=True)
class _Item:
    position: int
    pixels: Tensor | None
    digest: bytes
    perceptual: bytes = b""
    failure: str = ""
    size: tuple[int, int] = (0, 0)
    remarks: tuple[str, ...] = ()


def image_digest(raw: Any) -> bytes:
    """Digest an image as it is stored.

    Args:
        raw: what a reader gives.

    Returns:
        16 bytes.
    """
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    if isinstance(raw, bytes | bytearray | memoryview):
        state.update(raw)
        return state.digest()
    if isinstance(raw, Tensor):
        raw = (raw.float() if raw.dtype == torch.bfloat16 else raw).detach().cpu().numpy()
    array = np.asarray(raw)
    state.update(f"{array.shape}{array.dtype}".encode())
    state.update(np.ascontiguousarray(array).tobytes())
    return state.digest()


def _check_pixels(pixels: Tensor) -> Tensor:
    if pixels.ndim != 3:
        raise ValueError(f"expected pixels (C, H, W), found shape {tuple(pixels.shape)}")
    if not pixels.is_floating_point() and pixels.dtype != torch.uint8:
        raise ValueError(f"expected pixels of uint8, or of floating point in [0, 1], found {pixels.dtype}")
    if pixels.is_floating_point() and not (float(pixels.min()) >= 0 and float(pixels.max()) <= 1):
        low, high = float(pixels.min()), float(pixels.max())
        raise ValueError(f"expected pixels in [0, 1] before normalisation, found {low:g} to {high:g}; leave Normalize out")
    return pixels


def _kind(pixels: Tensor) -> str:
    return f"{' x '.join(str(edge) for edge in pixels.shape)} {str(pixels.dtype).removeprefix('torch.')}"


@final
class _Items(Dataset[_Item]):
    def __init__(self, reader: Reader, index: Tensor, transform: Transform) -> None:
        self.reader, self.index, self.transform = reader, index, transform
        self.kind: str | None = None
        self.turn: bool = getattr(reader, "turns", False)
        self.grey: bool = getattr(transform, "grey", False)

    def expect_kind(self, places: Iterable[int]) -> None:
        """Hold all images to the size and type of the first good one; those of pictures are the transform's."""
        self.kind = next((_kind(pixels) for place in places if (pixels := self[place].pixels) is not None), None)

    def __getitem__(self, position: int) -> _Item:
        row = int(self.index[position])
        digest = b""
        raw: Any = None
        try:
            raw = self.reader.read(row)
            digest = image_digest(raw)
            size: tuple[int, int] = (0, 0)
            remarks: tuple[str, ...] = ()
            if isinstance(raw, Tensor):
                pixels = _check_pixels(raw)
                perceptual = perceptual_hash(pixels)
            else:
                picture, remarks = open_picture(raw, turn=self.turn, grey=self.grey)
                pixels, size = self.transform(picture), picture.size
                perceptual = perceptual_hash(picture)
            if self.kind not in (None, _kind(pixels)):
                raise ValueError(f"expected images of one size, {self.kind}, found {_kind(pixels)}")
            return _Item(position, pixels, digest, perceptual, "", size, remarks)
        except GcauditError as error:
            return _Item(position, None, digest, failure=str(error))
        except Exception as error:  # decoders raise many kinds on damaged files
            text = one_line(error)
            if text.startswith("cannot identify image file"):  # the rest names an object in memory, which tells nobody anything
                what = foreign_content(bytes(raw[:64])) if isinstance(raw, bytes | bytearray | memoryview) else None
                text = "these bytes are no picture" + (f" but {what}" if what else "")
            return _Item(position, None, digest, failure=f"{self.reader.where(row)}: {text}")


def _collate(items: Sequence[_Item]) -> Batch:
    failures = [(item.position, item.failure) for item in items if item.pixels is None]
    good = [(item, item.pixels) for item in items if item.pixels is not None]
    stacked = torch.stack([pixels for _, pixels in good]) if good else torch.zeros(0, 1, 1, 1)
    positions = torch.tensor([item.position for item, _ in good], dtype=torch.int64)
    digests = _rows([item.digest for item, _ in good], DIGEST_BYTES)
    perceptual = _rows([item.perceptual for item, _ in good], PERCEPTUAL_BYTES)
    sizes = torch.tensor([item.size for item, _ in good], dtype=torch.int64).reshape(-1, 2)
    remarks = tuple((item.position, remark) for item, _ in good for remark in item.remarks)
    if get_worker_info() is not None:  # here, where its failure is told; the thread that sends a batch would drop it without a word
        for tensor in (stacked, positions, digests, perceptual, sizes):
            tensor.share_memory_()  # type: ignore[no-untyped-call]
    return Batch(stacked, positions, digests, perceptual, tuple(failures), sizes, remarks)


def _rows(parts: Sequence[bytes], width: int) -> Tensor:
    return torch.from_numpy(np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(-1, width).copy())


def _start_worker(_number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _last_words(error: Exception) -> Exception:
    """Wait for the signal of a worker's death: it comes a moment after its pipes break, says more, and must not come later."""
    if not isinstance(error, RuntimeError):
        try:
            time.sleep(1)
        except RuntimeError as signalled:
            return signalled
    return error


def stream_batches(
    reader: Reader, index: Tensor, order: Iterable[Sequence[int]], transform: Transform, *, workers: int, pin: bool
) -> Iterator[Batch]:
    """Decode images in the order given.

    Args:
        reader: random access.
        index: (N,) rows of the reader.
        order: places into `index`, batch by batch; iterated over more than once.
        transform: from a picture to (C, H, W) uint8.
        workers: processes; 0 decodes in this one.
        pin: put batches into page-locked memory.

    Yields:
        Batches, always in the order given.

    Raises:
        AuditError: a worker died.
    """
    items = _Items(reader, index, transform)
    if isinstance(reader, ItemReader):
        items.expect_kind(place for places in order for place in places)
    loader = DataLoader(
        items,
        batch_sampler=order,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin,
        worker_init_fn=_start_worker,
    )
    try:
        yield from loader
    except (RuntimeError, OSError, EOFError) as error:
        if workers == 0 or (isinstance(error, RuntimeError) and "worker" not in str(error)):
            raise
        if "Original Traceback" in str(error):  # what the worker raised, in its last line
            raise AuditError(
                f"expected the decoding workers to hand their batches on: {plain(str(error).strip().splitlines()[-1], 160)}; pass --workers 0 or a smaller batch"
            ) from error
        text = one_line(_last_words(error))
        raise AuditError(f"expected the decoding workers to live: {text}; pass --workers 0 or a smaller batch") from error

"""Streams: data that can be neither counted nor shuffled first, read once.

Images go to a `Spool` as they come, encoded as they are. Where a number of images is asked for, those that the class-balanced draw cannot take any more are let go: the
draw takes rank 0 of every class, then rank 1 and so on, ranks being those of a hash of (seed, place in the stream) within a class. With R the smallest
number for which sum over classes of min(n_c, R) reaches what is asked for, ranks from R on are out for good, since n_c only grow and ranks too. So the draw is that of the
same data read from a file, a second run sees the same images, and no more than twice as many are held.

Reference: Cohen, Kaplan, "Summarizing data using bottom-k sketches", PODC 2007 (a sample of a stream by the smallest hashes).
"""

from __future__ import annotations

import io
import tempfile
from array import array
from collections.abc import Hashable, Iterable
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gcaudit.data.labels import is_mark, number_labels
from gcaudit.data.readers import LARGEST_PICTURE, RawData
from gcaudit.data.request import DataRequest
from gcaudit.data.spool import Spool
from gcaudit.errors import AuditError, DataError, GcauditError, one_line
from gcaudit.geometry import derive_seed, random_order_keys
from gcaudit.report import warn

DRAW = "max images"
"""Purpose of the seed of the class-balanced draw."""
_ENCODED, _ARRAY, _TENSOR = range(3)


@final
class StreamReader:
    """Images of a stream by their places in it.

    Attributes:
        rows: (M,) int64 places that are kept, ascending.
        name: for messages.
        turns: as the EXIF orientation says.
    """

    def __init__(
        self, name: str, rows: NDArray[np.int64], entries: NDArray[np.int64], forms: list[Any], spool: Spool, *, turns: bool
    ) -> None:
        """Hold what was spooled.

        Args:
            name: for messages.
            rows: places in the stream, ascending.
            entries: (M, 3) of each its place and size in the spool, and the number of its form.
            forms: kind, dtype and shape.
            spool: the bytes.
            turns: as the EXIF orientation says.
        """
        self.name, self.rows, self.turns = name, rows, turns
        self._entries, self._forms, self._spool = entries, forms, spool

    def read(self, row: int) -> Any:
        """Return what the stream gave."""
        found = int(np.searchsorted(self.rows, row))
        place, size, form = (int(number) for number in self._entries[found])
        content = self._spool.read(place, size)
        kind, dtype, shape = self._forms[form]
        if kind == _ENCODED:
            return content
        array = np.frombuffer(bytearray(content), dtype).reshape(shape)
        return torch.from_numpy(array) if kind == _TENSOR else array

    def where(self, row: int) -> str:
        """Return the name and the place in the stream."""
        return f"image {row} of the stream {self.name}"


@final
class _Draw:
    """Tells which images of a stream a class-balanced draw can still take; numbers alone are kept of each.

    Attributes:
        classes: labels, and their numbers in the order in which they came.
        labels: number of each image's class, of all that came; -1 for none.
        spooled: bytes of those that are kept.
    """

    def __init__(self, limit: int | None, seed: int) -> None:
        self._limit, self._seed = limit, seed
        self.classes: dict[tuple[str, Any], int] = {}
        self.labels = array("i")
        self.spooled = 0
        self._kept = array("q")  # place in the stream, place and size in the spool, number of the form

    def skip(self) -> None:
        """Count an image without a label."""
        self.labels.append(-1)

    def add(self, label: tuple[str, Any], place: int, size: int, form: int) -> None:
        self._kept.extend((len(self.labels), place, size, form))
        self.labels.append(self.classes.setdefault(label, len(self.classes)))
        self.spooled += size

    @property
    def full(self) -> bool:
        return self._limit is not None and len(self._kept) >= 8 * (self._limit + len(self.classes))

    @property
    def kept(self) -> NDArray[np.int64]:
        """(M, 4), in the order of the stream."""
        return np.array(self._kept, dtype=np.int64).reshape(-1, 4)

    def replace(self, kept: NDArray[np.int64]) -> None:
        self._kept = array("q", kept.tobytes())
        self.spooled = int(kept[:, 2].sum())

    def prune(self) -> None:
        """Let go of images of ranks that are out for good."""
        assert self._limit is not None
        kept = self.kept
        labels = np.frombuffer(self.labels, dtype=np.int32)[kept[:, 0]]
        keys = random_order_keys(derive_seed(self._seed, DRAW), torch.from_numpy(kept[:, 0].copy())).numpy()
        order = np.lexsort((keys, labels))
        counts = np.bincount(labels)
        ranks = np.empty(len(kept), dtype=np.int64)
        ranks[order] = np.arange(len(kept)) - (np.cumsum(counts) - counts)[labels[order]]
        rounds = np.searchsorted(np.cumsum(np.bincount(ranks)), self._limit) + 1
        self.replace(kept[ranks < rounds])


def read_stream(
    items: Iterable[tuple[Any, Any]], name: str, request: DataRequest, *, names: list[str] | None = None, turns: bool = True
) -> RawData:
    """Read a stream to its end.

    Args:
        items: images (encoded bytes, arrays, tensors or PIL pictures) and labels.
        name: for messages.
        request: how many images are asked for, and by which seed.
        names: class names of whole numbers, if known.
        turns: pictures are turned as their EXIF orientation says.

    Returns:
        The data, numbered as in the stream; what the draw has let go of has no label.

    Raises:
        AuditError: it breaks off, or the disk is full.
        DataError: it is empty, or an item is no image.
    """
    # what is chosen later, by classes or in other classes, may need any image
    whole = request.classes is not None or request.class_map is not None
    draw = _Draw(None if whole else request.max_images, request.seed)
    spool = Spool()
    forms: dict[Any, int] = {}
    try:
        for row, (image, label) in enumerate(items):
            key = _class_of(label, name)
            if key is None:
                draw.skip()
                continue
            content, form = _packed(image, f"image {row} of the stream {name}")
            draw.add(key, spool.add(content), len(content), forms.setdefault(form, len(forms)))
            if draw.full:
                draw.prune()
                if 2 * draw.spooled < spool.size:
                    spool = _moved(draw, spool)
    except GcauditError:
        raise
    except Exception as error:  # libraries, networks and the user's own code raise anything
        raise AuditError(
            f"{name}: expected the stream to go on, found after {len(draw.labels)} images {type(error).__name__}: {one_line(error, 200)}; try again"
        ) from error
    if not draw.labels:
        raise DataError(f"{name}: expected images, found an empty stream")
    known = [*(label for _, label in draw.classes), None]  # the last for an image without a label
    numbered = number_labels([known[number] for number in draw.labels], names, name)
    kept = draw.kept
    labels = np.full(len(draw.labels), -1, dtype=np.int64)
    labels[kept[:, 0]] = numbered.numbers[kept[:, 0]]
    reader = StreamReader(name, kept[:, 0], kept[:, 1:], list(forms), spool, turns=turns)
    held = f"{len(kept)} of them are held, {spool.size / 2**20:.1f} MiB under {tempfile.gettempdir()}"
    said = warn("streamed", f"{{n}} images were read from a stream, once; {held}", count=len(draw.labels))
    return RawData(reader, labels, numbered.names, (said, *numbered.warnings))


def _class_of(label: Any, name: str) -> tuple[str, Any] | None:
    """Return what tells classes apart, 1 from 1.0 and from True too; None for an image without a label."""
    if not isinstance(label, list | tuple | dict | np.ndarray | set) and is_mark(label):
        return None
    if not isinstance(label, Hashable):
        number_labels([label], None, name)  # which refuses it
    return type(label).__name__, label


def _packed(image: Any, where: str) -> tuple[bytes, tuple[Any, ...]]:
    if isinstance(image, bytes | bytearray | memoryview):
        if len(image) > LARGEST_PICTURE:
            raise DataError(f"{where}: expected a picture of up to {LARGEST_PICTURE} bytes, found {len(image)}")
        return bytes(image), (_ENCODED, "", ())
    kind = _TENSOR if isinstance(image, Tensor) else _ARRAY
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
    elif isinstance(image, Image.Image):
        buffer = io.BytesIO()
        try:
            image.save(buffer, "TIFF" if image.mode in ("CMYK", "YCbCr", "LAB", "F", "I") else "PNG", exif=image.getexif())
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{where}: expected a picture that can be kept, found {one_line(error)}") from None
        return buffer.getvalue(), (_ENCODED, "", ())  # what is converted or refused is told when it is decoded
    if not isinstance(image, np.ndarray) or image.dtype.kind not in "uif":
        raise DataError(f"{where}: expected a picture, found a {type(image).__name__}")
    return image.tobytes(), (kind, image.dtype.str, image.shape)


def _moved(draw: _Draw, old: Spool) -> Spool:
    """Copy what is kept into a new spool, which frees the rest."""
    new, kept = Spool(), draw.kept
    for entry in kept:
        entry[1] = new.add(old.read(int(entry[1]), int(entry[2])))
    draw.replace(kept)
    return new

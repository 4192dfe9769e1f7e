"""Data spec -> images by class, in batches.

The only place that knows `datasets` and `torchvision.datasets`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from gcaudit.data.formats import SPLIT_NAMES, find_parquet, read_folder, read_hugging_face, read_parquet
from gcaudit.data.known import KNOWN, KnownData, open_known
from gcaudit.data.readers import ItemReader, RawData, Reader, TensorReader, number_labels
from gcaudit.errors import DataError, RequestError, one_line, shorten
from gcaudit.geometry.counter import balanced_order, derive_seed

__all__ = ["KNOWN", "DataRequest", "ImageSet", "open_data"]


@final
@dataclass(frozen=True)
class DataRequest:
    """Which images.

    Attributes:
        spec: a known name, a path, `hf:ID[:CONFIG]`, `disk:PATH`, `torchvision:NAME`; or a pair of tensors (images, labels), a Dataset
            or a DataLoader.
        role: `source` or `target`.
        split: None takes the default of a known name, and all of a bare file or folder.
        classes: numbers, ranges and names, such as `0-9,12` or `cat,dog`; None takes all.
        max_images: draw so many, class-balanced.
        root: where known names lie.
        seed: of the draw.
    """

    spec: Any
    role: Literal["source", "target"]
    split: str | None = None
    classes: str | None = None
    max_images: int | None = None
    root: str | None = None
    seed: int = 0


@final
@dataclass(frozen=True)
class ImageSet:
    """Chosen images, by class.

    Attributes:
        spec: as typed, or the type of a Python object.
        split: which was taken.
        family: what class names belong to; equal names of one family are the same class.
        reader: random access.
        labels: (N,) int64 in 0..K-1.
        index: (N,) int64 row of each image in the reader, ascending: the image's index in its data set.
        class_names: K names.
        class_numbers: K numbers of these classes in the whole data set.
        total_classes: classes in the whole data set.
    """

    spec: str
    split: str | None
    family: str
    reader: Reader
    labels: Tensor
    index: Tensor
    class_names: tuple[str, ...]
    class_numbers: tuple[int, ...]
    total_classes: int

    @property
    def counts(self) -> Tensor:
        """(K,) images of each class."""
        return torch.bincount(self.labels, minlength=len(self.class_names))


def open_data(request: DataRequest) -> ImageSet:
    """Find a data set and choose its images; decodes nothing yet.

    Args:
        request: which images.

    Returns:
        The images by class.

    Raises:
        DataError: it is missing, unreadable, or too small.
        RequestError: classes or counts that make no sense.
    """
    raw, spec, split, family = _open(request)
    chosen = np.arange(len(raw.class_names)) if request.classes is None else _choose(request.classes, raw, spec)
    renumber = np.full(len(raw.class_names), -1, dtype=np.int64)
    renumber[chosen] = np.arange(len(chosen))
    labels = renumber[raw.labels]
    rows = np.flatnonzero(labels >= 0)
    present = np.unique(labels[rows])
    empty = [raw.class_names[number] for number in np.delete(chosen, present)]
    if request.classes is not None and empty:
        raise DataError(f"{spec}: expected images of the chosen classes, found none of {shorten(empty)}; leave them out")
    if not len(rows):
        raise DataError(f"{spec}: expected images, found none")
    dense = np.searchsorted(present, labels[rows])
    numbers = tuple(int(chosen[n]) for n in present)
    index, classes = torch.from_numpy(rows), torch.from_numpy(dense.astype(np.int64))
    if request.max_images is not None:
        index, classes = _draw(index, classes, request, len(numbers), spec)
    names = tuple(raw.class_names[n] for n in numbers)
    return ImageSet(spec, split, family, raw.reader, classes, index, names, numbers, len(raw.class_names))


def _draw(index: Tensor, labels: Tensor, request: DataRequest, classes: int, spec: str) -> tuple[Tensor, Tensor]:
    limit = request.max_images
    assert limit is not None
    if limit < classes:
        option = f"--{request.role}-max-images"
        raise RequestError(f"{spec}: expected {option} of at least one image a class ({classes}), found {limit}; raise it")
    keep = balanced_order(labels, index, derive_seed(request.seed, "max images"))[:limit].sort().values
    return index[keep], labels[keep]


def _choose(text: str, raw: RawData, spec: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Read `0-9,12` or names; what is a name is that class, even when it looks like a number."""
    place = {name: number for number, name in enumerate(raw.class_names)}
    total = len(raw.class_names)
    found: list[int] = []
    parts = [text] if text in place else [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        span = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if part in place:
            found.append(place[part])
        elif span is not None:
            first = int(span[1])
            last = int(span[2] or span[1])
            if not first <= last < total:
                raise RequestError(f"{spec}: expected class numbers from 0 to {total - 1}, found {part!r}")
            found += range(first, last + 1)
        else:
            raise RequestError(f"{spec}: expected class numbers or names, found {part!r}; known: {shorten(raw.class_names, 8)}")
    if not found:
        raise RequestError(f"{spec}: expected classes such as 0-9,12 or names, found {text!r}")
    return np.array(list(dict.fromkeys(found)), dtype=np.int64)


def _open(request: DataRequest) -> tuple[RawData, str, str | None, str]:
    spec = request.spec
    if isinstance(spec, Path):
        spec = str(spec)
    if not isinstance(spec, str):
        return _open_object(spec), type(spec).__name__, None, f"object {id(spec)}"
    known = next((entry for entry in KNOWN if entry.name == spec), None)
    if known is not None:
        split = request.split or _default_split(known, request.role)
        return open_known(known, split, request.root), spec, split, known.family or known.name
    if spec.startswith(("hf:", "disk:")):
        preferred = ("train",) if request.role == "source" else ("test", "validation")
        raw, taken = read_hugging_face(spec, request.split, preferred)
        return raw, spec, taken, spec
    if spec.startswith("torchvision:"):
        raw, taken = _open_torchvision(spec, request)
        return raw, spec, taken, spec.lower()
    return _open_path(spec, request.split), spec, request.split, _family(spec)


def _default_split(known: KnownData, role: str) -> str:
    return known.source_split if role == "source" else known.target_split


def _family(spec: str) -> str:
    """Name what a path belongs to: parquet files of one folder, and folders named after splits, are parts of one data set."""
    path = Path(spec).expanduser().resolve()
    return str(path if path.is_dir() and path.name.lower() not in SPLIT_NAMES else path.parent)


def _open_path(spec: str, split: str | None) -> RawData:
    names = ", ".join(entry.name for entry in KNOWN)
    if not spec.strip():
        raise DataError(f"expected a data set, found an empty name; known names: {names}; others: a path, hf:ID, disk:PATH")
    path = Path(spec).expanduser()
    files = find_parquet(str(path), split)
    if files:
        return read_parquet(files)
    if split is not None and find_parquet(str(path), None):
        found = shorten([file.name for file in find_parquet(str(path), None)])
        raise DataError(f"{spec}: expected parquet files whose name starts with {split!r}, found {found}")
    if path.is_dir():
        return read_folder(path, split)
    if path.exists():
        raise DataError(f"{spec}: expected a .parquet file or a folder of class folders, found another file")
    raise DataError(f"expected a data set, found no file or folder {spec!r}; known names: {names}; others: hf:ID, disk:PATH")


def _open_torchvision(spec: str, request: DataRequest) -> tuple[RawData, str | None]:
    import torchvision

    name = spec.partition(":")[2]
    kind = getattr(torchvision.datasets, name, None)
    if not isinstance(kind, type):
        raise DataError(f"{spec}: expected the name of a class in torchvision.datasets, found {name!r}")
    takes = inspect.signature(kind).parameters
    if "root" not in takes:
        raise DataError(
            f"{spec}: expected a data set that lies in a folder, found {name}, which does not; pass the object from Python"
        )
    root = str(Path(request.root or "data").expanduser())
    options: dict[str, Any] = {"download": False} if "download" in takes else {}
    split = request.split or ("train" if request.role == "source" else "test")
    if "train" in takes:
        if split not in ("train", "test"):
            raise DataError(f"{spec}: expected a split of train, test, found {split!r}")
        options["train"] = split == "train"
    elif "split" in takes:
        options["split"] = split
    elif request.split is not None:
        raise DataError(f"{spec}: expected no split, since {name} has none, found {split!r}; leave it out")
    try:
        return _open_dataset(kind(root, **options), spec), split if {"train", "split"} & set(takes) else None
    except (RuntimeError, OSError, ValueError, TypeError, ImportError) as error:
        text = one_line(error)
        raise DataError(f"{spec}: expected it under {root}: {text}; set --data-root, or fetch it with download=True") from None


def _open_object(given: Any) -> RawData:
    if isinstance(given, DataLoader):
        given = given.dataset
    if isinstance(given, tuple | list) and len(given) == 2 and isinstance(given[0], Tensor | np.ndarray):
        return _open_tensors(*given)
    if isinstance(given, IterableDataset) or not hasattr(given, "__getitem__") or not hasattr(given, "__len__"):
        raise DataError(
            f"expected (images, labels), a Dataset with __len__ and __getitem__, a DataLoader of one, or a data spec; "
            f"found a {type(given).__name__}"
        )
    return _open_dataset(given, type(given).__name__)


def _open_tensors(images: Any, labels: Any) -> RawData:
    given = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else labels
    if not isinstance(given, list | tuple):
        raise DataError(f"expected labels (N,) as a tensor, an array or a list, found a {type(labels).__name__}")
    if images.ndim != 4 or len(images) != len(given):
        shapes = f"{tuple(images.shape)} and {tuple(getattr(labels, 'shape', (len(given),)))}"
        raise DataError(f"expected images (N, C, H, W) and labels (N,), found {shapes}")
    problem = f"expected images of uint8, or of floating point in [0, 1], found {images.dtype}"
    if isinstance(images, np.ndarray):
        try:
            images = torch.from_numpy(np.require(images, requirements=("C", "W")))
        except (TypeError, ValueError):
            raise DataError(problem) from None
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise DataError(problem)
    numbers, names = number_labels(given, None, "the labels")
    return RawData(TensorReader(images.detach().cpu()), numbers, names)


def _held_labels(dataset: Any) -> list[int] | None:
    """Take the labels that torchvision's data sets hold, to be spared decoding every image."""
    if getattr(dataset, "target_transform", None) is not None:
        return None
    for attribute in ("targets", "labels", "_labels"):
        held = getattr(dataset, attribute, None)
        values = held.tolist() if isinstance(held, Tensor | np.ndarray) else held
        if (
            isinstance(values, list | tuple)
            and len(values) == len(dataset)
            and all(isinstance(v, int | np.integer) for v in values)
        ):
            return list(values)
    return None


def _label_of(dataset: Any, row: int, name: str) -> Any:
    try:
        _, label = dataset[row]
        return label.item() if isinstance(label, Tensor | np.ndarray) else label
    except Exception as error:  # the user's own code may raise anything
        text = one_line(error)
        raise DataError(f"item {row} of {name}: expected (image, label), found {type(error).__name__}: {text}") from error


def _open_dataset(dataset: Any, name: str) -> RawData:
    given: Sequence[Any] | None = _held_labels(dataset)
    if given is None:
        given = [_label_of(dataset, row, name) for row in range(len(dataset))]
    known = getattr(dataset, "classes", None) if getattr(dataset, "target_transform", None) is None else None
    names = [str(entry) for entry in known] if isinstance(known, list | tuple) else None
    numbers, class_names = number_labels(given, names, name)
    return RawData(ItemReader(dataset, name), numbers, class_names)

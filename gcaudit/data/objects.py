"""Images that come as Python objects: tensors, a Dataset, a DataLoader of one, and torchvision's own data sets."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    default_collate,
    default_convert,
)

from gcaudit.data.batches import image_digest
from gcaudit.data.columns import Keys, find_image, find_label
from gcaudit.data.folders import read_folder
from gcaudit.data.hugging_face import is_table, read_table
from gcaudit.data.labels import number_labels
from gcaudit.data.readers import ItemReader, RawData, TensorReader
from gcaudit.data.request import DataRequest
from gcaudit.data.streams import read_stream
from gcaudit.errors import DataError, one_line, shorten
from gcaudit.report import ReportWarning, warn

_RANDOM = re.compile(
    r"\b(Random(?!State)\w+|AutoAugment|TrivialAugmentWide|AugMix|RandAugment|ColorJitter|MixUp|CutMix|Dropout\w*)"
)
_READS = 4
"""A flip of every second image is missed at three items with a chance of 1 in 500."""


def open_object(given: Any, keys: Keys, request: DataRequest) -> RawData:
    """Open images that are a Python object.

    Args:
        given: (images, labels), a Dataset, also one of the `datasets` library or one that is a stream, or a DataLoader of one.
        keys: names of images and labels in items that are dicts.
        request: how many images are asked for of a stream.

    Returns:
        The data.

    Raises:
        DataError: it is none of these, or an item is no (image, label).
    """
    if isinstance(given, DataLoader):
        given = _dataset_of(given)
    if isinstance(given, tuple | list) and len(given) == 2 and isinstance(given[0], Tensor | np.ndarray):
        return _open_tensors(*given)
    if isinstance(given, IterableDataset):
        return read_stream(_pairs(given, type(given).__name__, keys), type(given).__name__, request, turns=False)
    if not hasattr(given, "__getitem__") or not hasattr(given, "__len__"):
        raise DataError(
            f"expected (images, labels), a Dataset with __len__ and __getitem__, an IterableDataset, a DataLoader of one, or a data spec; "
            f"found a {type(given).__name__}"
        )
    if is_table(given):
        return read_table(given, type(given).__name__, keys)
    return _open_dataset(given, type(given).__name__, keys)


def _pairs(stream: Any, name: str, keys: Keys) -> Iterator[tuple[Any, Any]]:
    """Give the images and labels of a stream."""
    parts: tuple[int | str, int | str] = (0, 1)
    for row, item in enumerate(stream):
        if isinstance(item, Mapping):
            if row == 0:
                found, where = [str(key) for key in item], f"item 0 of {name}, a dict"
                parts = (find_image(found, keys, where), find_label(found, keys, where))
        elif not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(f"item {row} of {name}: expected (image, label) or a dict, found a {type(item).__name__}")
        label = item[parts[1]]
        yield item[parts[0]], label.tolist() if isinstance(label, Tensor | np.ndarray) else label


def _dataset_of(loader: Any) -> Any:
    """Take the Dataset of a loader that reads all of it as it is; images are then read by their place in it."""
    sampler, batches = loader.sampler, loader.batch_sampler
    whole = type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(loader.dataset)
    )
    odd = {
        f"the sampler {type(sampler).__name__}": not whole,
        f"the batch sampler {type(batches).__name__}": batches is not None and type(batches) is not BatchSampler,
        "a collate_fn of its own": loader.collate_fn not in (default_collate, default_convert),
        "drop_last, which leaves images out": loader.drop_last
        and not isinstance(loader.dataset, IterableDataset)
        and _drops(loader),
        f"a way of its own to give batches ({type(loader).__name__})": type(loader).__iter__ is not DataLoader.__iter__,
    }
    if isinstance(loader.dataset, IterableDataset):  # which has no sampler of its own
        odd = {what: is_odd for what, is_odd in odd.items() if what.startswith(("a collate_fn", "a way"))}
        odd["drop_last, which leaves images out"] = loader.drop_last
    found = [what for what, is_odd in odd.items() if is_odd]
    if found:
        raise DataError(
            f"expected a DataLoader that reads the whole of its Dataset as it is, found {' and '.join(found)}; "
            "pass the Dataset that you mean, such as torch.utils.data.Subset(dataset, indices)"
        )
    return loader.dataset


def _drops(loader: Any) -> bool:
    return len(loader.dataset) % (loader.batch_size or 1) != 0


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
    found = number_labels(given, None, "the labels")
    return RawData(TensorReader(images.detach().cpu()), found.numbers, found.names, found.warnings)


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


def _parts_of(dataset: Any, name: str, keys: Keys) -> tuple[int | str, int | str]:
    """Find out where in an item image and label are, by the first one."""
    try:
        item = dataset[0] if len(dataset) else ()
    except Exception:  # the user's own code may raise anything; it is told when the labels are read
        return 0, 1
    if not isinstance(item, Mapping):
        return 0, 1
    names, where = [str(key) for key in item], f"item 0 of {name}, a dict"
    return find_image(names, keys, where), find_label(names, keys, where)


def _label_of(dataset: Any, row: int, name: str, part: int | str = 1) -> Any:
    try:
        item = dataset[row]
        fits = isinstance(item, Mapping) if isinstance(part, str) else isinstance(item, tuple | list) and len(item) == 2
        if not fits:
            found = f"a {type(item).__name__}"
            if isinstance(item, Mapping):
                found = f"a dict with {shorten(list(map(str, item)))}"
            elif isinstance(item, tuple | list):
                found = f"{len(item)} parts"
            raise DataError(
                f"item {row} of {name}: expected (image, label), found {found}; wrap the Dataset so that an item is a pair, "
                "or pass hf:ID or disk:PATH"
            )
        label = item[part]
        if isinstance(label, Tensor | np.ndarray):
            return label.item() if label.size == 1 or (isinstance(label, Tensor) and label.numel() == 1) else label.tolist()
        return label
    except DataError:
        raise
    except Exception as error:  # the user's own code may raise anything
        text = one_line(error)
        raise DataError(f"item {row} of {name}: expected (image, label), found {type(error).__name__}: {text}") from error


def _open_dataset(dataset: Any, name: str, keys: Keys) -> RawData:
    image, part = _parts_of(dataset, name, keys)
    given: Sequence[Any] | None = _held_labels(dataset) if keys.label is None else None
    if given is None:
        given = [_label_of(dataset, row, name, part) for row in range(len(dataset))]
    else:
        for row in _some_rows(len(given)):
            if (label := _label_of(dataset, row, name, part)) != given[row]:
                raise DataError(
                    f"{name}: expected labels that agree with the items, found {given[row]!r} held for item {row}, whose own is {label!r}; "
                    "pass (images, labels), or a Dataset without the attribute"
                )
    whole = _whole(dataset)
    known = getattr(whole, "classes", None) if getattr(whole, "target_transform", None) is None else None
    names = [str(entry) for entry in known] if isinstance(known, list | tuple) else None
    found = number_labels(given, names, name)
    reader = ItemReader(dataset, name, image)
    return RawData(reader, found.numbers, found.names, (*found.warnings, *_random_items(reader)))


def _whole(dataset: Any) -> Any:
    """Return the data set that a part, perhaps of a part, is of."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def _random_items(reader: ItemReader) -> tuple[ReportWarning, ...]:
    """Read items several times: a random transform gives another image each time, and numbers that no second run has."""
    transform = " ".join(repr(getattr(_whole(reader.items), "transform", None)).split())
    if (random := _RANDOM.search(transform)) is not None:
        line = f"{reader.name} has a transform with {random[0]}: items are not the same each time they are read; leave random transforms out"
        return (warn("items", line),)
    for row in _some_rows(len(reader.items)):
        seen = set()
        with suppress(Exception):  # what ails an item is told when the images are read
            seen = {image_digest(reader.read(row)) for _ in range(_READS)}
        if len(seen) > 1:
            line = (
                f"item {row} of {reader.name} is not the same image each time it is read: numbers differ from run to run; "
                "leave random transforms out"
            )
            return (warn("items", line),)
    return ()


def _some_rows(size: int) -> list[int]:
    return sorted({0, size // 2, size - 1}) if size else []


def open_torchvision(spec: str, request: DataRequest) -> tuple[RawData, str | None]:
    """Open a data set of torchvision.

    Args:
        spec: `torchvision:NAME`.
        request: which split, and under which root.

    Returns:
        The data and the split taken.

    Raises:
        DataError: there is no such class, split or file.
    """
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
    if kind is torchvision.datasets.ImageFolder:  # whose loader converts pictures without a word
        if request.split is not None:
            raise DataError(f"{spec}: expected no split, since {name} has none, found {request.split!r}; leave it out")
        return read_folder(Path(root), None, follow_links=request.follow_links), None
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
        keys = Keys(request.image_key, request.label_key)
        return _open_dataset(kind(root, **options), spec, keys), split if {"train", "split"} & set(takes) else None
    except (RuntimeError, OSError) as error:
        text = one_line(error)
        raise DataError(f"{spec}: expected it under {root}: {text}; set --data-root, or fetch it with download=True") from None
    except (ValueError, TypeError, ImportError) as error:
        text = one_line(error)
        raise DataError(
            f"{spec}: expected a data set that root and split are enough for, found {text}; pass the object from Python"
        ) from None

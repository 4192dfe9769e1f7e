"""Data spec -> image set: where a data set lies is found, and its classes and images are chosen; nothing is decoded yet."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcaudit.data.archive_sets import find_archives, read_archives
from gcaudit.data.class_map import with_class_map
from gcaudit.data.columns import Keys
from gcaudit.data.duplicates import without_duplicates
from gcaudit.data.folders import SPLIT_NAMES, read_folder
from gcaudit.data.hugging_face import read_hugging_face
from gcaudit.data.image_set import ImageSet
from gcaudit.data.known import open_known
from gcaudit.data.known_table import KNOWN, KnownData
from gcaudit.data.objects import open_object, open_torchvision
from gcaudit.data.parquet import find_parquet, read_split
from gcaudit.data.readers import RawData
from gcaudit.data.request import DataRequest
from gcaudit.data.streams import DRAW
from gcaudit.data.tables import TABLE_SUFFIXES, find_metadata, has_labels, read_table_file
from gcaudit.errors import DataError, RequestError, printable, shorten, telling_paths
from gcaudit.geometry import balanced_order, derive_seed
from gcaudit.report import ReportWarning, warn

_DIGITS = 18
"""Of a number in a name that are looked at."""


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
    with telling_paths("a data set", DataError):
        raw, spec, split, family = _open(request)
        if request.class_map is not None:
            raw = with_class_map(raw, request.class_map, spec)
    chosen = np.arange(len(raw.class_names)) if request.classes is None else _choose(request.classes, raw, spec)
    renumber = np.full(len(raw.class_names), -1, dtype=np.int64)
    renumber[chosen] = np.arange(len(chosen))
    labels = np.where(raw.labels >= 0, renumber[raw.labels], -1)
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
    names = tuple(printable(raw.class_names[n]) for n in numbers)
    warnings = [*raw.warnings, *_order_warning(raw.class_names)]
    if raw.columns is None and isinstance(request.spec, str) and (request.image_key or request.label_key):
        warnings.append(warn("column", "--image-key and --label-key were not used: the data set has no columns"))
    if request.classes is not None and _ambiguous(request.classes, raw.class_names):
        line = f"--{request.role}-classes {request.classes} was read as places, of classes whose names hold numbers ({shorten(raw.class_names, 3)})"
        warnings.append(warn("class-choice", line))
    if empty and not all(name.isdecimal() for name in empty):
        warnings.append(warn("left-out", "{n} classes have no images and were left out ({names})", empty))
    escaped = [name for name, n in zip(names, numbers, strict=True) if name != raw.class_names[n]]
    if escaped:
        warnings.append(warn("renamed", "{n} names of classes that cannot be printed were escaped ({names})", escaped))
    found = ImageSet(
        spec=printable(spec),
        split=split,
        family=family,
        reader=raw.reader,
        labels=classes,
        index=index,
        class_names=names,
        class_numbers=numbers,
        total_classes=len(raw.class_names),
        warnings=tuple(warnings),
        columns=raw.columns,
    )
    if not request.drop_duplicates:
        return found
    return without_duplicates(found, None if request.unlike is None else open_data(request.unlike))


def _draw(index: Tensor, labels: Tensor, request: DataRequest, classes: int, spec: str) -> tuple[Tensor, Tensor]:
    limit = request.max_images
    assert limit is not None
    if limit < classes:
        option = f"--{request.role}-max-images"
        raise RequestError(f"{spec}: expected {option} of at least one image a class ({classes}), found {limit}; raise it")
    keep = balanced_order(labels, index, derive_seed(request.seed, DRAW))[:limit].sort().values
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
            if raw.class_names.count(part) > 1:
                raise RequestError(
                    f"{spec}: expected names of single classes, found {part!r}, which several have; choose by numbers"
                )
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


def _ambiguous(text: str, names: tuple[str, ...]) -> bool:
    """Tell whether a range might mean names as well: `0-2` of classes that are called 6 to 12, or class1 to class10."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    spans = [part for part in parts if part not in names and re.fullmatch(r"\d+(-\d+)?", part)]
    numbers = {number: int(found[-1][:_DIGITS]) for number, name in enumerate(names) if (found := re.findall(r"\d+", name))}
    if not spans or 2 * len(numbers) < len(names):
        return False
    return any(numbers.get(place) != place for place in _places(spans))


def _places(spans: list[str]) -> list[int]:
    found: list[int] = []
    for span in spans:
        first, _, last = span.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _order_warning(names: tuple[str, ...]) -> list[ReportWarning]:
    """Tell of classes in the order of text where numbers in their names give another."""
    natural = sorted(
        names, key=lambda name: [(part.isdecimal(), int(part[:_DIGITS]) if part.isdecimal() else 0, part) for part in _parts(name)]
    )
    if list(names) != sorted(names) or list(names) == natural:
        return []
    return [
        warn(
            "class-order",
            f"classes are in the order of text ({shorten(names, 4)}); a head that was trained in the order of numbers has others",
        )
    ]


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"(\d+)", name) if part]


def _open(request: DataRequest) -> tuple[RawData, str, str | None, str]:
    spec, keys = request.spec, Keys(request.image_key, request.label_key)
    if isinstance(spec, Path):
        spec = str(spec)
    if request.streaming and isinstance(spec, str) and not spec.startswith("hf:") and all(entry.name != spec for entry in KNOWN):
        raw, named, split, family = _open(replace(request, streaming=False))
        said = warn("streamed", f"--streaming is for hf:ID; {printable(spec)} is read in place")
        return replace(raw, warnings=(said, *raw.warnings)), named, split, family
    if not isinstance(spec, str):
        return open_object(spec, keys, request), type(spec).__name__, None, f"object {id(spec)}"
    known = next((entry for entry in KNOWN if entry.name == spec), None)
    if known is not None:
        split = request.split or _default_split(known, request.role)
        raw = open_known(known, split, request.root, follow_links=request.follow_links)
        if (
            (request.image_key or request.label_key)
            and raw.columns is not None
            and (request.image_key, request.label_key) != raw.columns
        ):
            raise RequestError(
                f"{spec}: expected no --image-key and --label-key, since its columns are known ({', '.join(raw.columns)}); name the files instead"
            )
        return raw, spec, split, known.family or known.name
    if spec.startswith(("hf:", "disk:")):
        preferred = ("train",) if request.role == "source" else ("test", "validation")
        raw, taken = read_hugging_face(spec, request.split, preferred, keys, request)
        return raw, spec, taken, spec
    if spec.startswith("torchvision:"):
        raw, taken = open_torchvision(spec, request)
        return raw, spec, taken, spec.lower()
    return _open_path(spec, request, keys), spec, request.split, _family(spec)


def _open_folder(path: Path, request: DataRequest, keys: Keys) -> RawData:
    """Read a folder: by the table in it, where that has labels; else its class folders."""
    table = find_metadata(path, request.split)
    folders = table is not None and any(inner.is_dir() and not inner.name.startswith(".") for inner in table.parent.iterdir())
    if table is not None and has_labels(table, keys, guess=not folders):
        raw = read_table_file(table, request.split, keys, links=request.follow_links)
        said = [warn("column", f"classes are those of {table.name}, not the folders beside it")] if folders else []
        return replace(raw, warnings=(*said, *raw.warnings))
    return read_folder(path, request.split, follow_links=request.follow_links)


def _default_split(known: KnownData, role: str) -> str:
    return known.source_split if role == "source" else known.target_split


def _family(spec: str) -> str:
    """Name what a path belongs to: parquet files of one folder, and folders named after splits, are parts of one data set."""
    path = Path(spec).expanduser().resolve()
    return str(path if path.is_dir() and path.name.lower() not in SPLIT_NAMES else path.parent)


def _open_path(spec: str, request: DataRequest, keys: Keys) -> RawData:
    split = request.split
    names = ", ".join(entry.name for entry in KNOWN)
    if not spec.strip():
        raise DataError(f"expected a data set, found an empty name; known names: {names}; others: a path, hf:ID, disk:PATH")
    path = Path(spec).expanduser()
    files = find_parquet(str(path), split)
    if files:
        return read_split(files, spec, split, whole=path.is_dir(), keys=keys, links=request.follow_links)
    if split is not None and find_parquet(str(path), None):
        found = shorten([file.name for file in find_parquet(str(path), None)])
        raise DataError(f"{spec}: expected parquet files whose name starts with {split!r}, found {found}")
    archives = [] if path.is_dir() and find_metadata(path, split) is not None else find_archives(str(path), split)
    folders = (
        path.is_dir() and any(inner.is_dir() and not inner.name.startswith(".") for inner in archives[0].parent.iterdir())
        if archives
        else False
    )
    if archives and not folders:
        return read_archives(archives, split, keys)
    if path.is_dir():
        raw = _open_folder(path, request, keys)
        said = (
            [warn("left-out", "{n} archives beside the class folders were left out ({names})", [file.name for file in archives])]
            if archives
            else []
        )
        return replace(raw, warnings=(*raw.warnings, *said))
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        return read_table_file(path, split, keys, links=request.follow_links)
    if path.exists():
        raise DataError(
            f"{spec}: expected parquet, a tar or zip, a table ({', '.join(TABLE_SUFFIXES)}) or a folder of class folders, found another file"
        )
    raise DataError(f"expected a data set, found no file or folder {spec!r}; known names: {names}; others: hf:ID, disk:PATH")

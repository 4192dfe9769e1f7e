"""Data sets known by name, found on disk or on the hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gcaudit.bundled import bundled_path
from gcaudit.data.cifar import read_cifar
from gcaudit.data.columns import NO_KEYS, Keys
from gcaudit.data.folders import read_folder
from gcaudit.data.hugging_face import read_hugging_face
from gcaudit.data.idx import read_idx
from gcaudit.data.imagenet import read_imagenet
from gcaudit.data.known_table import KnownData
from gcaudit.data.parquet import find_parquet, read_parquet
from gcaudit.data.readers import ArrayReader, FileReader, RawData
from gcaudit.data.splits import CIFAR100_CLASSES, CIFAR_FS, FC100, MINI_IMAGENET, cub_split
from gcaudit.data.tiered import TIERED_IMAGENET
from gcaudit.errors import AuditError, DataError, GcauditError

_CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FASHION_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_DIGITS = tuple("0123456789")
_CUB_CLASSES = 200

Finder = Callable[[Path, str, bool], RawData | None]
"""Looks under one data root, and follows links out of it if told so; None when it is not there."""


def data_roots(root: str | Path | None) -> list[Path]:
    """List the folders in which known data sets are looked for.

    Args:
        root: `--data-root`, or None.

    Returns:
        The root alone if given, else those of $GCAUDIT_DATA, `data` in the working folder and the system's.
    """
    if root is not None:
        return [Path(root).expanduser()]
    given = [Path(part).expanduser() for part in os.environ.get("GCAUDIT_DATA", "").split(os.pathsep) if part]
    return [*given, Path("data"), Path("/usr/share/datasets")]


def _first(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).exists()), None)


def _in_own_folder(root: Path, name: str, split: str, links: bool) -> RawData | None:
    """Look for ROOT/NAME as parquet files named after the split, or as class folders."""
    place = root / name
    if not place.is_dir():
        return None
    files = find_parquet(str(place), split)
    if files:
        return read_parquet(files)
    return read_folder(place, split, follow_links=links) if (place / split).is_dir() else None


def _find_cifar10(root: Path, split: str, links: bool) -> RawData | None:
    place = _first(root, ("cifar-10-batches-py", "cifar-10-python.tar.gz"))
    if place is None:
        return _in_own_folder(root, "cifar10", split, links)
    files = [f"data_batch_{n}" for n in range(1, 6)] if split == "train" else ["test_batch"]
    return read_cifar(place, files, "labels", ("batches.meta", "label_names"), _CIFAR10_NAMES)


def _find_cifar100(root: Path, split: str, links: bool) -> RawData | None:
    place = _first(root, ("cifar-100-python", "cifar-100-python.tar.gz"))
    if place is None:
        return _in_own_folder(root, "cifar100", split, links)
    files = ["train", "test"] if split == "all" else [split]
    return read_cifar(place, files, "fine_labels", ("meta", "fine_label_names"), CIFAR100_CLASSES)


def _keep_classes(data: RawData, wanted: Sequence[str]) -> RawData:
    number = {name: place for place, name in enumerate(data.class_names)}
    absent = [name for name in wanted if name not in number]
    if absent:
        raise DataError(f"expected the data set's class names, found no {absent[0]!r} among them; fetch it again")
    renumber = np.full(len(data.class_names), -1, dtype=np.int64)
    renumber[[number[name] for name in wanted]] = np.arange(len(wanted))
    labels = np.where(data.labels >= 0, renumber[data.labels], -1)
    reader = data.reader
    if not isinstance(reader, ArrayReader | FileReader):
        return replace(data, labels=labels, class_names=tuple(wanted))
    rows = np.flatnonzero(labels >= 0)
    kept = (
        ArrayReader(reader.pixels[rows], reader.name)
        if isinstance(reader, ArrayReader)
        else FileReader([reader.paths[int(row)] for row in rows])
    )
    return RawData(kept, labels[rows], tuple(wanted), data.warnings)


def _find_part_of_cifar100(name: str, splits: Mapping[str, Sequence[str]]) -> Finder:
    """Look for some classes of CIFAR-100, train and test images together."""

    def find(root: Path, split: str, links: bool) -> RawData | None:
        if _first(root, ("cifar-100-python", "cifar-100-python.tar.gz")) is not None:
            data = _find_cifar100(root, "all", links)
        elif (root / name).is_dir():
            return _in_own_folder(root, name, split, links)
        else:
            data = _cifar100_tables(root / "cifar100")
        return None if data is None else _keep_classes(data, splits[split])

    return find


def _cifar100_tables(place: Path) -> RawData | None:
    """Read the parquet files of both splits as one data set, with fine labels."""
    files = [file for split in ("train", "test") for file in find_parquet(str(place), split)] if place.is_dir() else []
    if not files:
        return None
    data = read_parquet(files, Keys(None, "fine_label") if _has_fine_labels(files[0]) else NO_KEYS)
    if len(data.class_names) == len(CIFAR100_CLASSES) and all(name.isdecimal() for name in data.class_names):
        return replace(data, class_names=CIFAR100_CLASSES)
    return data


def _has_fine_labels(file: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return "fine_label" in pq.read_schema(file).names
    except (pa.ArrowException, OSError):
        return False  # which is told when it is read


def _find_cub(root: Path, split: str, links: bool) -> RawData | None:
    place = _first(root, ("CUB_200_2011", "cub"))
    if place is None or not (place / "images").is_dir():
        return None
    data = read_folder(place / "images", None, follow_links=links)
    if len(data.class_names) != _CUB_CLASSES:
        raise DataError(f"{place / 'images'}: expected the {_CUB_CLASSES} class folders of CUB, found {len(data.class_names)}")
    return _keep_classes(data, cub_split(data.class_names, split))


def _find_imagenet(root: Path, split: str, links: bool) -> RawData | None:
    place = _first(root, ("ILSVRC/Data/CLS-LOC", "imagenet/ILSVRC/Data/CLS-LOC", "imagenet", "ILSVRC2012"))
    return None if place is None else read_imagenet(place, split, links=links)


def _find_part_of_imagenet(name: str, splits: Mapping[str, Sequence[str]]) -> Finder:
    """Look for class folders named after synsets, side by side or in folders of splits."""

    def find(root: Path, split: str, links: bool) -> RawData | None:
        place = root / name
        if not place.is_dir():
            return None
        inner = _first(place, (split, {"validation": "val"}.get(split, split), "images"))
        folder = inner if inner is not None and inner.is_dir() else place
        absent = [synset for synset in splits[split] if not (folder / synset).is_dir()]
        if absent:
            raise DataError(f"{folder}: expected the {len(splits[split])} class folders of the {split} split, found no {absent[0]}")
        return _keep_classes(read_folder(folder, None, follow_links=links), splits[split])

    return find


def _find_mnist_like(folders: Sequence[str], names: Sequence[str]) -> Finder:
    def find(root: Path, split: str, links: bool) -> RawData | None:
        stem = "train" if split == "train" else "t10k"
        for folder in folders:
            parts = []
            for part in ("images-idx3", "labels-idx1"):
                options = (f"{stem}-{part}-ubyte", f"{stem}-{part}-ubyte.gz", f"{stem}-{part.replace('-', '.')}-ubyte")
                parts.append(_first(root / folder, options))
            if parts[0] is not None and parts[1] is not None:
                return read_idx(parts[0], parts[1], names)
        return _in_own_folder(root, folders[-1], split, links)

    return find


def _find_demo(_root: Path, split: str, _links: bool) -> RawData | None:
    return read_parquet([bundled_path(f"demo-{split}.parquet")])


_FINDERS: Mapping[str, Finder] = {
    "cifar10": _find_cifar10,
    "cifar100": _find_cifar100,
    "cifar-fs": _find_part_of_cifar100("cifar-fs", CIFAR_FS),
    "fc100": _find_part_of_cifar100("fc100", FC100),
    "mnist": _find_mnist_like(("MNIST/raw", "mnist"), _DIGITS),
    "fashion-mnist": _find_mnist_like(("FashionMNIST/raw", "fashion-mnist"), _FASHION_NAMES),
    "mini-imagenet": _find_part_of_imagenet("mini-imagenet", MINI_IMAGENET),
    "tiered-imagenet": _find_part_of_imagenet("tiered-imagenet", TIERED_IMAGENET),
    "cub": _find_cub,
    "imagenet": _find_imagenet,
    "demo": _find_demo,
}


def open_known(known: KnownData, split: str, root: str | Path | None, *, follow_links: bool = False) -> RawData:
    """Find a known data set on disk, or on the hub.

    Args:
        known: which.
        split: one of its splits.
        root: `--data-root`, or None.
        follow_links: also read pictures that are links out of their folder.

    Returns:
        The data.

    Raises:
        DataError: unknown split, or the data are nowhere; the message says where they were looked for and how to get them.
        AuditError: they are not on disk, and the hub cannot be asked.
    """
    if split not in known.splits:
        raise DataError(f"{known.name}: expected a split of {', '.join(known.splits)}, found {split!r}")
    roots = data_roots(root)
    for place in roots:
        found = _FINDERS[known.name](place, split, follow_links)
        if found is not None:
            return found
    looked = ", ".join(str(place) for place in roots)
    problem = ""
    kind: type[GcauditError] = DataError
    if known.hub is not None:
        try:
            return read_hugging_face(f"hf:{known.hub}", split, ())[0]
        except (AuditError, DataError) as error:
            problem, kind = f" (and on the hub: {error})", type(error)
    raise kind(
        f"expected {known.name} as {known.looked_for} under one of {looked}; found none{problem}; "
        f"set --data-root or $GCAUDIT_DATA, or get it: {known.how}"
    )

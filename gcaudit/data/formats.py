"""Data sets on disk: class folders, parquet, CIFAR's python archives, idx files, Hugging Face's formats.

Everything here is untrusted: pickles go through an unpickler that knows numpy arrays, dict, list, str and bytes and nothing else,
and sizes in headers are checked against what is there.
"""

from __future__ import annotations

import glob
import gzip
import json
import math
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gcaudit.data.readers import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    ArrayReader,
    FileReader,
    ParquetReader,
    RawData,
    TableReader,
    number_labels,
    pick_column,
)
from gcaudit.errors import DataError, one_line, shorten
from gcaudit.hub import prepare_hub

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"))
SPLIT_NAMES = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))


def read_folder(folder: Path, split: str | None) -> RawData:
    """Read a folder of class folders; pictures may lie deeper, names that begin with a dot are left out.

    Args:
        folder: with one folder a class, or with `split` folders of these.
        split: the subfolder to take.

    Returns:
        The data; classes in alphabetical order.

    Raises:
        DataError: no pictures, or split folders and no split.
    """
    if split is not None:
        if not (folder / split).is_dir():
            found = shorten([path.name for path in sorted(folder.iterdir()) if path.is_dir()])
            raise DataError(f"{folder}: expected a folder for split {split!r}, found {found or 'no folders'}")
        folder = folder / split
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if classes and all(path.name.lower() in SPLIT_NAMES for path in classes):
        names = ", ".join(path.name for path in classes)
        raise DataError(
            f"{folder}: expected class folders, found the splits {names}; name one with --source-split or --target-split"
        )
    paths, labels, odd = [], [], set()
    for number, place in enumerate(classes):
        for path in sorted(place.rglob("*")):
            if any(part.startswith(".") for part in path.relative_to(place).parts):
                continue
            # a link that leads nowhere is a picture that cannot be read, not one that is not there
            is_file = path.is_file() or (path.is_symlink() and not path.exists())
            if path.suffix.lower() in IMAGE_SUFFIXES and is_file:
                paths.append(path)
                labels.append(number)
            elif is_file:
                odd.add(path.suffix or path.name)
    if not paths:
        seen = f"files ending in {shorten(sorted(odd))}" if odd else "no files" if classes else "no class folders"
        raise DataError(f"{folder}: expected one folder a class with pictures (.jpg, .png, ...) in it, found {seen}")
    return RawData(FileReader(paths), np.array(labels, dtype=np.int64), tuple(path.name for path in classes))


def find_parquet(place: str, split: str | None) -> list[Path]:
    """List the parquet files that a path means.

    Args:
        place: a file, a folder or a glob.
        split: take the files whose name starts with it.

    Returns:
        Files in alphabetical order; empty when there are none.
    """
    path = Path(place)
    if path.is_dir():
        found = sorted(path.glob("*.parquet")) or sorted((path / "data").glob("*.parquet"))
    elif path.is_file():
        found = [path] if path.suffix == ".parquet" else []
    else:
        names = glob.glob(place, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute patterns
        found = sorted(Path(name) for name in names if name.endswith(".parquet"))
    return found if split is None else [file for file in found if file.name.startswith(split)]


def _names_in_schema(schema: pa.Schema, column: str) -> Sequence[str] | None:
    """Take class names from the Hugging Face metadata of a parquet schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def read_parquet(files: Sequence[Path]) -> RawData:
    """Read parquet files with a column of encoded images and one of labels.

    Args:
        files: with the same columns.

    Returns:
        The data; class names from the Hugging Face metadata where they are there.

    Raises:
        DataError: unreadable files, missing columns, or files that disagree on columns or class names.
    """
    values: list[Any] = []
    groups: list[tuple[int, int, int]] = []
    wanted_labels: Sequence[str] = LABEL_COLUMNS
    wanted_images: Sequence[str] = IMAGE_COLUMNS
    names: Sequence[str] | None = None
    rows = 0
    for number, path in enumerate(files):
        try:
            with pq.ParquetFile(path) as parquet:
                schema = parquet.schema_arrow
                label_column = pick_column(schema.names, wanted_labels, "labels", str(path))
                image_column = pick_column(schema.names, wanted_images, "images", str(path))
                wanted_labels, wanted_images = (label_column,), (image_column,)
                found = _names_in_schema(schema, label_column)
                if names is not None and found is not None and names != found:
                    raise DataError(f"{path}: expected the class names of the files before it, found others; pass one file")
                names = names if found is None else found
                values += parquet.read(columns=[label_column]).column(0).to_pylist()
                for group in range(parquet.num_row_groups):
                    groups.append((number, group, rows))
                    rows += parquet.metadata.row_group(group).num_rows
        except (pa.ArrowException, OSError) as error:
            text = one_line(error)
            raise DataError(f"{path}: expected a readable parquet file, found {text}") from None
    if not rows:
        raise DataError(f"{files[0]}: expected images, found no rows")
    labels, class_names = number_labels(values, names, str(files[0]))
    return RawData(ParquetReader(tuple(files), wanted_images[0], tuple(groups)), labels, class_names)


# --- CIFAR -----------------------------------------------------------------------------------------------------------


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stand in for `_codecs.encode`, which numpy's pickles use for their bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"refused: encoding {encoding!r}")
    return text.encode("latin1")


def _dtype(name: str, align: int = 0, copy: int = 1) -> np.dtype[Any]:
    """Stand in for `numpy.dtype`, which no longer takes the 0 and 1 of old pickles quietly."""
    return np.dtype(name, align=bool(align), copy=bool(copy))


_RECONSTRUCT = np.ndarray(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _latin1,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused: it wants to import {module}.{name}") from None


def unpickle_arrays(file: IO[bytes], where: str) -> dict[str, Any]:
    """Read a pickled dict of numpy arrays, lists, str and bytes; anything else is refused.

    Args:
        file: open for reading.
        where: for messages.

    Returns:
        The dict.

    Raises:
        DataError: damaged, or it wants to import anything else.
    """
    try:
        content = _ArraysOnly(file, encoding="latin1").load()
    except Exception as error:  # a hostile pickle may raise anything at all
        text = one_line(error)
        raise DataError(f"{where}: expected a pickle of arrays as CIFAR's archives hold: {text}; fetch it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{where}: expected a pickled dict, found a {type(content).__name__}; fetch the archive again")
    return content


def _cifar_members(place: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read members of an extracted folder, or of the .tar.gz as it was downloaded."""
    if place.is_dir():
        found = {}
        for name in names:
            try:
                with (place / name).open("rb") as file:
                    found[name] = unpickle_arrays(file, str(place / name))
            except OSError as error:
                raise DataError(f"{place / name}: expected CIFAR's file: {error.strerror}; fetch the archive again") from None
        return found
    found = {}
    try:
        with tarfile.open(place) as archive:
            for member in archive:
                name = Path(member.name).name
                content = archive.extractfile(member) if name in names and member.isfile() else None
                if content is not None:
                    found[name] = unpickle_arrays(content, f"{place}, {member.name}")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{place}: expected CIFAR's archive: {one_line(error)}; fetch it again") from None
    absent = [name for name in names if name not in found]
    if absent:
        raise DataError(f"{place}: expected {shorten(absent)} in CIFAR's archive, found none; fetch it again")
    return found


def read_cifar(place: Path, files: Sequence[str], label_key: str, meta: tuple[str, str], names: Sequence[str]) -> RawData:
    """Read CIFAR-10 or CIFAR-100 in their python format.

    Args:
        place: the extracted folder, or the .tar.gz.
        files: members with images, in order.
        label_key: `labels` or `fine_labels`.
        meta: member and key of the class names.
        names: class names in case that the archive lacks them.

    Returns:
        The data.

    Raises:
        DataError: damaged or hostile archive.
    """
    members = _cifar_members(place, files)
    pixels, labels = [], []
    for name in files:
        data, given = members[name].get("data"), members[name].get(label_key)
        sound = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2 and data.shape[1] == 3072
        if not sound or not isinstance(data, np.ndarray) or not isinstance(given, list) or len(given) != len(data):
            raise DataError(f"{place}, {name}: expected n x 3072 bytes and n {label_key}, found others; fetch the archive again")
        pixels.append(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels += given
    try:
        found = _cifar_members(place, [meta[0]])[meta[0]].get(meta[1])
    except DataError:
        found = None
    known = tuple(str(name) for name in found) if isinstance(found, list) else tuple(names)
    numbers, class_names = number_labels(labels, known, str(place))
    return RawData(ArrayReader(np.ascontiguousarray(np.concatenate(pixels)), str(place)), numbers, class_names)


# --- idx -------------------------------------------------------------------------------------------------------------


def _read_idx(path: Path, dims: int) -> NDArray[np.uint8]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            header = file.read(4 + 4 * dims)
            if header[:4] != bytes((0, 0, 8, dims)) or len(header) != 4 + 4 * dims:
                found = header.hex(" ") or "of no bytes"
                raise DataError(f"{path}: expected an idx file of {dims} dimensions, found header {found}")
            shape = tuple(int(n) for n in np.frombuffer(header[4:], dtype=">u4"))
            size = math.prod(shape)
            body = file.read(size + 1)
    except (OSError, EOFError, zlib.error, MemoryError, OverflowError) as error:
        raise DataError(f"{path}: expected a readable idx file, found {one_line(error)}; fetch it again") from None
    if len(body) != size:
        raise DataError(f"{path}: expected {size} bytes after the header, found {len(body)}; fetch it again")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def read_idx(images: Path, labels: Path, names: Sequence[str]) -> RawData:
    """Read MNIST's format, gzipped or not.

    Args:
        images: idx3 file.
        labels: idx1 file.
        names: class names.

    Returns:
        The data.

    Raises:
        DataError: damaged files, or counts that disagree.
    """
    pixels, given = _read_idx(images, 3), _read_idx(labels, 1)
    if len(pixels) != len(given):
        raise DataError(f"{labels}: expected {len(pixels)} labels, one an image of {images.name}, found {len(given)}")
    numbers, class_names = number_labels(given.tolist(), names, str(labels))
    return RawData(ArrayReader(pixels, str(images)), numbers, class_names)


# --- Hugging Face ----------------------------------------------------------------------------------------------------


def _import_datasets(spec: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(f"{spec}: expected the package 'datasets', found it not installed; pip install datasets") from None
    return datasets


def _choose_split(found: Any, split: str | None, preferred: Sequence[str], spec: str) -> tuple[Any, str | None]:
    if not isinstance(found, dict):
        own = None if found.split is None else str(found.split)
        if split not in (None, own):
            raise DataError(f"{spec}: expected split {split!r}, found one data set ({own or 'of no split'}); leave the split out")
        return found, own
    names = list(found)
    if split is not None:
        if split not in found:
            raise DataError(f"{spec}: expected a split of {', '.join(names)}, found {split!r}")
        return found[split], split
    for name in (*preferred, *(names if len(names) == 1 else ())):
        if name in found:
            return found[name], name
    raise DataError(f"{spec}: expected to know the split, found {', '.join(names)}; name one with --source-split or --target-split")


def read_hugging_face(spec: str, split: str | None, preferred: Sequence[str]) -> tuple[RawData, str | None]:
    """Read `hf:ID[:CONFIG]` or `disk:PATH` through the `datasets` library.

    Args:
        spec: as typed.
        split: as typed.
        preferred: splits to take when none was typed.

    Returns:
        The data and the split taken.

    Raises:
        DataError: the library or the data set cannot be had.
    """
    datasets = _import_datasets(spec)
    kind, _, rest = spec.partition(":")
    if kind == "hf" and not Path(rest).exists():
        prepare_hub()
    try:
        if kind == "disk":
            found = datasets.load_from_disk(rest)
        else:
            name, _, config = rest.partition(":")
            found = datasets.load_dataset(name, config or None)
    except Exception as error:  # the library, the hub client and the network raise many kinds
        text = one_line(error, 200)
        raise DataError(
            f"{spec}: expected a data set, found {type(error).__name__}: {text}; with no network, pass a local path"
        ) from None
    table, taken = _choose_split(found, split, preferred, spec)
    return _table_data(datasets, table, spec), taken


def _table_data(datasets: Any, table: Any, spec: str) -> RawData:
    table = table.with_format(None)  # a format is saved with the data, and would turn cells into tensors
    columns = list(table.column_names)
    pictures = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
    image = pictures[0] if pictures else pick_column(columns, IMAGE_COLUMNS, "images", spec)
    classes = [name for name, feature in table.features.items() if isinstance(feature, datasets.ClassLabel)]
    label = next((name for name in LABEL_COLUMNS if name in classes), None) or (classes[0] if classes else None)
    label = label or pick_column(columns, LABEL_COLUMNS, "labels", spec)
    names = table.features[label].names if label in classes else None
    labels, class_names = number_labels(list(table[label]), names, spec)
    if pictures:
        table = table.cast_column(image, datasets.Image(decode=False))
    return RawData(TableReader(table.select_columns([image]), image, spec), labels, class_names)

"""Data sets of the Hugging Face hub, and what `save_to_disk` wrote, through the `datasets` library."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, final

from gcaudit.data.columns import (
    LABEL_COLUMNS,
    NO_KEYS,
    SPLIT_COLUMNS,
    Keys,
    column_warnings,
    encoded,
    find_image,
    find_label,
    guess_warnings,
    label_choices,
    split_column_warnings,
)
from gcaudit.data.folders import is_picture
from gcaudit.data.hub import prepare_hub
from gcaudit.data.labels import number_labels
from gcaudit.data.local import check_local
from gcaudit.data.readers import LARGEST_PICTURE, RawData
from gcaudit.data.request import DataRequest
from gcaudit.data.streams import read_stream
from gcaudit.errors import AuditError, DataError, one_line, printable
from gcaudit.files import HUB_LOST, deepest, is_outage, read_bytes
from gcaudit.report import ReportWarning, warn


@final
@dataclass(frozen=True)
class TableReader:
    """A Hugging Face data set whose image column is not decoded.

    Attributes:
        table: a `datasets.Dataset`.
        column: the image column.
        name: for messages.
    """

    turns: ClassVar[bool] = True
    table: Any
    column: str
    name: str

    def read(self, row: int) -> Any:
        """Return the encoded bytes of one row."""
        return encoded(self.table[row][self.column], self.where(row))

    def where(self, row: int) -> str:
        """Return name and row."""
        return f"row {row} of {self.name}"


def read_hugging_face(
    spec: str, split: str | None, preferred: Sequence[str], keys: Keys = NO_KEYS, request: DataRequest | None = None
) -> tuple[RawData, str | None]:
    """Read `hf:ID[:CONFIG]` or `disk:PATH` through the `datasets` library.

    Args:
        spec: as typed.
        split: as typed.
        preferred: splits to take when none was typed.
        keys: columns that were named.
        request: whether to stream, and how many images are asked for.

    Returns:
        The data and the split taken.

    Raises:
        DataError: the library or the data set cannot be had.
        AuditError: there is no network, the hub is down, or the disk is full.
    """
    datasets = _import_datasets(spec)
    kind, _, rest = spec.partition(":")
    name, _, config = rest.partition(":") if kind == "hf" else (rest, "", "")
    local = Path(name)
    if local.is_dir():
        check_local(local, spec)
    elif kind == "hf":
        prepare_hub()
    said: list[ReportWarning] = []
    stream = kind == "hf" and request is not None and request.streaming
    try:
        if kind == "hf" and not local.is_dir() and not stream and (lacks := _lacks_space(datasets, name, config)):
            said, stream = [warn("streamed", lacks)], True
        if stream:
            found = datasets.load_dataset(name, config or None, streaming=True)
        else:
            found = datasets.load_from_disk(name) if kind == "disk" else datasets.load_dataset(name, config or None)
    except Exception as error:  # the library, the hub client and the network raise many kinds
        cause = deepest(error)
        text = f"{spec}: expected a data set, found {type(cause).__name__}: {one_line(cause, 200)}"
        if is_outage(error):
            raise AuditError(f"{text}; try again, or with no network pass a local path") from None
        if (
            os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
            and not os.environ.get(HUB_LOST)
            and kind == "hf"
            and not local.is_dir()
        ):
            raise DataError(f"{text}; HF_HUB_OFFLINE keeps the hub from being asked: unset it, or pass a local path") from None
        raise DataError(f"{text}; check the name, or pass a local path") from None
    table, taken = _choose_split(found, split, preferred, spec)
    if stream:
        raw = _stream(datasets, table, spec, keys, request or DataRequest(spec, "source"))
        return replace(raw, warnings=(*said, *raw.warnings)), taken
    raw = read_table(table, spec, keys)
    return replace(raw, warnings=(*raw.warnings, *_left_out(name, found))), taken


def _lacks_space(datasets: Any, name: str, config: str) -> str | None:
    """Say that a data set of the hub does not fit on the disk; None where it does, or does not say how large it is."""
    builder = datasets.load_dataset_builder(name, config or None)
    info = builder.info
    if Path(builder.cache_dir).exists():  # it has been fetched before
        return None
    need = (info.download_size or 0) + (info.dataset_size or 0)
    place = Path(datasets.config.HF_DATASETS_CACHE)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    return (
        f"it is streamed, since it needs {need / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free under {place}"
        if need > free
        else None
    )


def _stream(datasets: Any, table: Any, spec: str, keys: Keys, request: DataRequest) -> RawData:
    """Read a data set of the `datasets` library as it comes."""
    features = table.features
    if features is None:
        features = table._resolve_features().features
    columns = list(features or {})
    image, label, names = _columns(datasets, features or {}, columns, keys, spec)
    if isinstance(features[image], datasets.Image):
        table = table.cast_column(image, datasets.Image(decode=False))

    name = spec.partition(":")[2].partition(":")[0]
    place = str(Path(name).resolve()) if Path(name).is_dir() else f"hf://datasets/{name}@"

    def items() -> Iterator[tuple[Any, Any]]:
        for row, item in enumerate(table):
            yield _content(item[image], f"row {row} of {spec}", place), item[label]

    raw = read_stream(items(), spec, request, names=names)
    said = guess_warnings(image, LABEL_COLUMNS[0] if names else label, keys)
    return replace(raw, columns=(image, label), warnings=(*raw.warnings, *said, *_picture_mode(features[image])))


def _content(cell: Any, where: str, place: str) -> Any:
    """Take the image out of a cell of a stream; a path in it has to be of the data set itself, perhaps in one of its archives."""
    if isinstance(cell, dict) and cell.get("bytes") is None and isinstance(cell.get("path"), str):
        path = cell["path"]
        holder = path.rpartition("::")[2]  # zip://member::archive
        inside = holder.startswith(place) if "://" in place else Path(holder).resolve().is_relative_to(place)
        if not inside or ("://" in path.partition("::")[0] and not path.startswith(("hf://", "zip://"))):
            raise DataError(f"{where}: expected a path in the data set, found {printable(path[:200])}, which leads out of it")
        if "://" in path:
            from datasets.utils.file_utils import xopen

            with xopen(path, "rb") as file:
                found: bytes = file.read(LARGEST_PICTURE + 1)
            return found
        return read_bytes(Path(path), LARGEST_PICTURE)
    return encoded(cell, where)


def _picture_mode(feature: Any) -> list[ReportWarning]:
    """Tell of a mode that the data set asks for and that is not followed."""
    mode = getattr(feature, "mode", None)
    return (
        []
        if mode in (None, "RGB")
        else [warn("converted", f"the data set asks for pictures of mode {mode}, which was not followed")]
    )


def _split_column(table: Any, columns: Sequence[str], label: str) -> list[ReportWarning]:
    name = next((name for name in SPLIT_COLUMNS if name in columns and name != label), None)
    return [] if name is None else split_column_warnings({str(value) for value in table.unique(name)})


def _left_out(place: str, found: Any) -> list[ReportWarning]:
    """Count the pictures of a local folder that the library has not taken: it goes by suffixes."""
    tables = list(found.values()) if isinstance(found, dict) else [found]
    folder = Path(place)
    if not folder.is_dir() or any(table.info.builder_name != "imagefolder" for table in tables):
        return []
    there = [path for path in folder.rglob("*") if path.is_file() and is_picture(path)]
    absent = len(there) - sum(len(table) for table in tables)
    line = "the datasets library has left out {n} pictures of the folder; pass the folder itself, without hf:"
    return [warn("left-out", line, count=absent)] if absent > 0 else []


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


def is_table(given: Any) -> bool:
    """Tell a data set of the `datasets` library, without importing it.

    Args:
        given: any object.
    """
    return type(given).__module__.startswith("datasets.") and hasattr(given, "column_names") and hasattr(given, "features")


def read_table(table: Any, spec: str, keys: Keys) -> RawData:
    """Read a data set of the `datasets` library.

    Args:
        table: a `datasets.Dataset`.
        spec: for messages.
        keys: columns that were named.

    Returns:
        The data.

    Raises:
        DataError: no column holds images or labels.
    """
    datasets = _import_datasets(spec)
    table = table.with_format(None)  # a format is saved with the data, and would turn cells into tensors
    columns = list(table.column_names)
    pictures, classes = (
        [name for name, feature in table.features.items() if isinstance(feature, kind)]
        for kind in (datasets.Image, datasets.ClassLabel)
    )
    image, label, names = _columns(datasets, table.features, columns, keys, spec)
    found = number_labels(list(table[label]), names, spec)
    warnings = [*found.warnings, *_picture_mode(table.features.get(image)), *_split_column(table, columns, label)]
    if image in pictures:
        table = table.cast_column(image, datasets.Image(decode=False))
    warnings += guess_warnings(image, label, keys) if label not in classes else guess_warnings(image, LABEL_COLUMNS[0], keys)
    warnings += column_warnings({} if keys.image else {image: pictures})
    warnings += column_warnings(
        {} if keys.label else {label: [name for name in columns if name in classes or name in label_choices(label, columns)]}
    )
    reader = TableReader(table.select_columns([image]), image, spec)
    return RawData(reader, found.numbers, found.names, tuple(warnings), (image, label))


def _columns(
    datasets: Any, features: Mapping[str, Any], columns: Sequence[str], keys: Keys, spec: str
) -> tuple[str, str, list[str] | None]:
    """Find the columns of images and labels, and the names of classes where the features have them."""
    pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    image = find_image(columns, keys, spec, pictures)
    classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    label = find_label(columns, keys, spec, classes or _may_be_labels(datasets, features, image))
    return image, label, list(features[label].names) if label in classes else None


def _may_be_labels(datasets: Any, features: Mapping[str, Any], image: str) -> list[str]:
    """List the columns of whole numbers or text, beside that of the images."""
    kinds = {name: getattr(feature, "dtype", "") for name, feature in features.items() if isinstance(feature, datasets.Value)}
    return [name for name, kind in kinds.items() if name != image and (kind in ("string", "bool", "large_string") or "int" in kind)]

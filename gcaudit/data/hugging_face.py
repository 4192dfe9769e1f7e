"""Data sets of the Hugging Face hub, and what `save_to_disk` wrote, through the `datasets` library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, final

from gcaudit.data.columns import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    column_warnings,
    encoded,
    number_labels,
    pick_column,
    split_column_warnings,
)
from gcaudit.data.folders import is_picture
from gcaudit.data.hub import prepare_hub
from gcaudit.data.local import check_local
from gcaudit.data.readers import RawData
from gcaudit.errors import AuditError, DataError, one_line
from gcaudit.files import deepest, is_outage
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
    try:
        found = datasets.load_from_disk(name) if kind == "disk" else datasets.load_dataset(name, config or None)
    except Exception as error:  # the library, the hub client and the network raise many kinds
        cause = deepest(error)
        text = f"{spec}: expected a data set, found {type(cause).__name__}: {one_line(cause, 200)}"
        if is_outage(error):
            raise AuditError(f"{text}; try again, or with no network pass a local path") from None
        raise DataError(f"{text}; check the name, or pass a local path") from None
    table, taken = _choose_split(found, split, preferred, spec)
    raw = _table_data(datasets, table, spec)
    return replace(raw, warnings=(*raw.warnings, *_left_out(name, found))), taken


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


def _table_data(datasets: Any, table: Any, spec: str) -> RawData:
    table = table.with_format(None)  # a format is saved with the data, and would turn cells into tensors
    columns = list(table.column_names)
    pictures = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
    image = next((name for name in (*IMAGE_COLUMNS, *pictures) if name in pictures), None)
    image = image or pick_column(columns, IMAGE_COLUMNS, "images", spec)
    classes = [name for name, feature in table.features.items() if isinstance(feature, datasets.ClassLabel)]
    label = next((name for name in LABEL_COLUMNS if name in classes), None) or (classes[0] if classes else None)
    label = label or pick_column(columns, LABEL_COLUMNS, "labels", spec)
    names = table.features[label].names if label in classes else None
    labels, class_names = number_labels(list(table[label]), names, spec)
    warnings = [*_picture_mode(table.features.get(image)), *_split_column(table, columns, label)]
    if pictures:
        table = table.cast_column(image, datasets.Image(decode=False))
    warnings += column_warnings({image: pictures, label: [name for name in columns if name in classes or name in LABEL_COLUMNS]})
    return RawData(TableReader(table.select_columns([image]), image, spec), labels, class_names, tuple(warnings), (image, label))

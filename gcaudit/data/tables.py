"""Tables of paths and labels: CSV, TSV and JSON lines, also the `metadata` of Hugging Face's image folders.

Paths are those of files in the table's folder. Text that is base64 is taken for the picture itself.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

from gcaudit.data.columns import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    Keys,
    column_warnings,
    encoded,
    find_image,
    find_label,
    guess_warnings,
    label_choices,
    looks_like_picture,
    split_column_warnings,
)
from gcaudit.data.labels import number_labels
from gcaudit.data.readers import RawData
from gcaudit.errors import DataError, one_line, shorten
from gcaudit.files import read_text
from gcaudit.report import ReportWarning, warn

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
METADATA = tuple(f"metadata{suffix}" for suffix in (".csv", ".jsonl"))
_MOST_BYTES = 2**30
_MOST_COLUMNS = 1000
_LOOKED_AT = 20
_LONGEST_PATH = 4096
_WHOLE, _DECIMAL = re.compile(r"-?\d{1,18}"), re.compile(r"-?\d{1,18}(\.\d{0,18})?")


@final
@dataclass(frozen=True)
class CellReader:
    """Cells of a table that hold paths or base64.

    Attributes:
        cells: one a picture.
        table: their file.
        links: paths may lead out of its folder.
    """

    turns: ClassVar[bool] = True
    cells: Sequence[str]
    rows: Sequence[int]
    table: Path
    links: bool

    def read(self, row: int) -> Any:
        """Return the encoded bytes of one row."""
        return encoded(self.cells[row], self.where(row), self.table.parent, links=self.links)

    def where(self, row: int) -> str:
        """Return table and row, counted from 1 without the header."""
        return f"{self.table}, row {self.rows[row] + 1}"


def read_table_file(path: Path, split: str | None, keys: Keys, *, links: bool = False) -> RawData:
    """Read a table of paths and labels.

    Args:
        path: of the table.
        split: of its column of splits, the rows to take.
        keys: columns that were named.
        links: take pictures outside of its folder too.

    Returns:
        The data.

    Raises:
        DataError: it cannot be read, lacks a column, or names no pictures.
    """
    columns, said = _read_columns(path, keys)
    names = list(columns)
    image = find_image(names, keys, str(path), [name for name in names if _may_be_images(columns[name])])
    fits = [name for name in names if name != image and _may_be_labels(columns[name], name)]
    if keys.label is None and (hot := _one_hot_columns(columns)) is not None:
        raise DataError(
            f"{path}: expected a column of classes, found a column for each ({shorten(hot)}) with a single 1 a row (one-hot); write the name of that column into one"
        )
    label = find_label(names, keys, str(path), fits)
    rows, more = _rows_of(columns, split, label, path)
    cells = [columns[image][row] for row in rows]
    empty = sum(not isinstance(cell, str) or not cell.strip() for cell in cells)
    if empty:
        raise DataError(f"{path}: expected a path in every row of the column {image!r}, found {empty} of {len(cells)} without")
    reader = CellReader([cell.strip() for cell in cells], rows, path, links)
    _check_paths(reader)
    if links and (outside := [cell for cell in reader.cells if _leads_out(cell, path.parent)]):
        said.append(warn("links", "{n} pictures outside of the folder were read ({names})", outside))
    numbered = number_labels(_as_numbers([columns[label][row] for row in rows]), None, str(path))
    said += [*more, *guess_warnings(image, label, keys)]
    said += column_warnings(
        {}
        if keys.image
        else {image: [name for name in names if name == image or (name in IMAGE_COLUMNS and _may_be_images(columns[name]))]}
    )
    said += column_warnings(
        {} if keys.label else {label: label_choices(label, [name for name in names if name == label or name in fits])}
    )
    return RawData(reader, numbered.numbers, numbered.names, (*said, *numbered.warnings), (image, label))


def find_metadata(folder: Path, split: str | None) -> Path | None:
    """Find the table of a Hugging Face image folder.

    Args:
        folder: the data set.
        split: look in the folder of this name.

    Returns:
        The table; None where there is none.
    """
    place = folder / split if split is not None and (folder / split).is_dir() else folder
    return next((place / name for name in METADATA if (place / name).is_file()), None)


def has_labels(path: Path, keys: Keys, *, guess: bool) -> bool:
    """Tell whether a table has a column of labels: the metadata of class folders often has none.

    Args:
        path: of the table.
        keys: columns that were named.
        guess: a column that may be labels will do, whatever it is called.
    """
    if keys.label is not None:
        return True
    columns, _ = _read_columns(path, keys)
    return any(
        name in LABEL_COLUMNS or (guess and name not in IMAGE_COLUMNS and _may_be_labels(values, name))
        for name, values in columns.items()
    )


def _read_columns(path: Path, keys: Keys) -> tuple[dict[str, list[Any]], list[ReportWarning]]:
    try:
        text = read_text(path, _MOST_BYTES).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: expected text in UTF-8, found bytes that are none at {error.start}; save it again as UTF-8"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: expected a table, found {error.strerror or one_line(error)}") from None
    if not text.strip():
        raise DataError(f"{path}: expected a table, found an empty file")
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return _read_lines(text, path), []
    return _read_separated(text, path, keys)


def _read_lines(text: str, path: Path) -> dict[str, list[Any]]:
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(f"{path}, line {number}: expected a JSON object, found what is none; mend the line") from None
        if not isinstance(found, dict):
            raise DataError(f"{path}, line {number}: expected a JSON object, found a {type(found).__name__}; mend the line")
        rows.append(found)
    names = list(dict.fromkeys(name for row in rows for name in row))
    if len(names) > _MOST_COLUMNS:
        raise DataError(
            f"{path}: expected up to {_MOST_COLUMNS} names in its objects, found {len(names)}; keep the same names in each line"
        )
    return {name: [row.get(name) for row in rows] for name in names}


def _read_separated(text: str, path: Path, keys: Keys) -> tuple[dict[str, list[Any]], list[ReportWarning]]:
    first = text.partition("\n")[0]
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    separator = next((sign for sign in (usual, ",", "\t", ";") if sign in first), usual)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
    except csv.Error as error:
        raise DataError(f"{path}: expected a table, found {one_line(error)}") from None
    header, said = rows[0], []
    if keys == Keys() and any(_is_file(cell, path.parent) for cell in header):
        header = [str(place) for place in range(len(header))]
        said = [warn("column", "the first row names a picture: the table was read without a header, its columns numbered from 0")]
    else:
        rows = rows[1:]
    header = [name.strip() for name in header]
    if len(set(header)) < len(header):
        raise DataError(f"{path}: expected columns of different names, found {shorten(header, 8)}")
    odd = next((number for number, row in enumerate(rows, 1) if len(row) != len(header)), None)
    if odd is not None:
        raise DataError(
            f"{path}, row {odd}: expected {len(header)} cells, found {len(rows[odd - 1])}; mend the row, or quote what holds a {separator!r}"
        )
    if not rows:
        raise DataError(f"{path}: expected rows, found a header alone")
    return {name: list(column) for name, column in zip(header, zip(*rows, strict=True), strict=True)}, said


def _leads_out(cell: str, folder: Path) -> bool:
    """Tell a path that leads out of a folder by its text, or by a link."""
    try:
        return (
            looks_like_picture(cell)
            and len(cell) < _LONGEST_PATH
            and not (folder / cell).resolve().is_relative_to(folder.resolve())
        )
    except (OSError, ValueError):
        return False


def _is_file(cell: str, folder: Path) -> bool:
    try:
        return bool(cell.strip()) and looks_like_picture(cell) and (folder / cell.strip()).is_file()
    except OSError:  # too long for a name
        return False


def _may_be_images(values: Sequence[Any]) -> bool:
    some = [value for value in values[:_LOOKED_AT] if value is not None]
    return bool(some) and all(isinstance(value, str) and looks_like_picture(value) for value in some)


def _may_be_labels(values: Sequence[Any], name: str) -> bool:
    """Tell a column that may hold classes: short text or whole numbers, of which some come again."""
    if name in SPLIT_COLUMNS or _may_be_images(values):
        return False
    some = [value for value in values if value is not None]
    if not all(isinstance(value, str | int | bool) for value in some):
        return False
    return len(set(some)) < max(2, len(some)) if len(some) > 1 else True


def _one_hot_columns(columns: Mapping[str, list[Any]]) -> list[str] | None:
    """Name the columns that are a class each, of which one is 1 in every row; None where they are none."""
    names = [
        name
        for name, values in columns.items()
        if name not in LABEL_COLUMNS and {str(value).strip() for value in values} <= {"0", "1"}
    ]
    if len(names) < 2 or any(name in LABEL_COLUMNS for name in columns):
        return None
    rows = zip(*(columns[name] for name in names), strict=True)
    return names if all(sum(str(value).strip() == "1" for value in row) == 1 for row in rows) else None


def _rows_of(columns: Mapping[str, list[Any]], split: str | None, label: str, path: Path) -> tuple[list[int], list[ReportWarning]]:
    size = len(columns[label])
    name = next((name for name in SPLIT_COLUMNS if name in columns and name != label), None)
    if split is None:
        return list(range(size)), [] if name is None else split_column_warnings({str(value) for value in columns[name]})
    if name is None:
        if split in (path.parent.name, path.stem):
            return list(range(size)), []
        raise DataError(
            f"{path}: expected a column of splits named {shorten(list(SPLIT_COLUMNS))}, found {shorten(list(columns), 8)}; leave the split out"
        )
    found = [row for row, value in enumerate(columns[name]) if str(value).strip().lower() == split.lower()]
    if not found:
        there = sorted({str(value) for value in columns[name]})
        raise DataError(f"{path}: expected rows of split {split!r} in the column {name!r}, found {shorten(there)}")
    return found, []


def _check_paths(reader: CellReader) -> None:
    """Refuse a table none of whose first pictures can be read, before any is asked for: its paths are of another folder."""
    problems = []
    for row in range(min(_LOOKED_AT, len(reader.cells))):
        try:
            reader.read(row)
            return
        except DataError as error:
            problems.append(error)
    if problems:
        raise DataError(
            f"{problems[0]}; so do the first {len(problems)} rows: paths are taken from the table's folder {reader.table.parent}"
        )


def _as_numbers(values: Sequence[Any]) -> Sequence[Any]:
    """Take text for numbers where all of it is: a CSV has nothing but text."""
    texts = [value.strip() for value in values if isinstance(value, str)]
    if len(texts) < len(values):
        return values
    whole = {text for text in texts if _WHOLE.fullmatch(text) and str(int(text)) == text}  # 01 is another name than 1
    if whole and all(not text or text.lower() in ("nan", "null", "n/a", "<na>") for text in set(texts) - whole):
        return [int(text) if text in whole else None for text in texts]
    if texts and all(_DECIMAL.fullmatch(text) or not text for text in texts) and any("." in text for text in texts):
        return [float(text) if text else None for text in texts]
    return values

"""Columns of tables: which hold images and labels, and what is in them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcaudit.data.readers import LARGEST_PICTURE
from gcaudit.errors import DataError, one_line, printable, shorten
from gcaudit.files import read_bytes
from gcaudit.report import ReportWarning, warn

LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class", "class_label")
IMAGE_COLUMNS = ("image", "img", "images", "picture", "pixels", "jpg", "png")
SPLIT_COLUMNS = ("split", "subset", "fold", "partition")
MOST_CLASSES = 1_000_000


def pick_column(names: Sequence[str], wanted: Sequence[str], what: str, where: str) -> str:
    """Find a column by its customary names.

    Args:
        names: the table's columns.
        wanted: customary names, most likely first.
        what: for messages.
        where: for messages.

    Returns:
        The column's name.

    Raises:
        DataError: there is none.
    """
    for name in wanted:
        if name in names:
            return name
    raise DataError(f"{where}: expected a column of {what} named {shorten(list(wanted), 4)}, found {shorten(list(names), 8)}")


def column_warnings(taken: Mapping[str, Sequence[str]]) -> list[ReportWarning]:
    """Tell of columns that were chosen among several.

    Args:
        taken: each column that was taken, with all that might have been.

    Returns:
        A warning for each choice.
    """
    return [
        warn("column", f"the column {column!r} was taken, of {{n}} that it might be ({{names}})", list(choices))
        for column, choices in taken.items()
        if len(choices) > 1
    ]


def split_column_warnings(values: Collection[str]) -> list[ReportWarning]:
    """Tell of a column that names splits, which is not followed.

    Args:
        values: that are in it.

    Returns:
        A warning where there are several.
    """
    told = shorten([printable(value[:40]) for value in sorted(values)], 4)
    return (
        [warn("split", f"a column names several splits ({told}), and rows of all were taken together")] if len(values) > 1 else []
    )


def number_labels(values: Sequence[Any], names: Sequence[str] | None, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Turn a column of labels into numbers and names.

    Args:
        values: integers, or strings.
        names: class names of integer labels, if known.
        where: for messages.

    Returns:
        (N,) int64 labels and class names.

    Raises:
        DataError: labels that are missing, negative, of other types, or beyond the names.
    """
    if any(value is None for value in values):
        raise DataError(f"{where}: expected a label for every image, found {sum(value is None for value in values)} without")
    kinds = {type(value) for value in values}
    if kinds and all(issubclass(kind, str) for kind in kinds):
        known = tuple(sorted(set(values)))
        _check_names(known, values, where)
        number = {name: place for place, name in enumerate(known)}
        return np.array([number[value] for value in values], dtype=np.int64), known
    if not all(issubclass(kind, int | np.integer) and kind is not bool for kind in kinds):
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise DataError(f"{where}: expected labels that are all integers or all strings, found {found}")
    low, high = min(values, default=0), max(values, default=-1)
    if low < 0:
        bad = sum(value < 0 for value in values)
        raise DataError(
            f"{where}: expected labels >= 0, found {low} (an unlabelled split?) and {bad} of {len(values)} below 0; "
            "leave these rows out, or name another split"
        )
    if names is not None and high >= len(names):
        raise DataError(f"{where}: expected labels below the {len(names)} class names, found {high}")
    if high >= MOST_CLASSES:
        raise DataError(f"{where}: expected labels below {MOST_CLASSES}, found {high} (ids in place of classes?)")
    labels = np.array(values, dtype=np.int64)
    return labels, tuple(names) if names is not None else tuple(str(n) for n in range(int(high) + 1))


def _check_names(known: tuple[str, ...], values: Sequence[str], where: str) -> None:
    """Refuse names that stand for no class, and those that a hand has mistyped."""
    blank = [name for name in known if not name.strip()]
    if blank:
        raise DataError(
            f"{where}: expected a label for every image, found {sum(value in blank for value in values)} that are empty text"
        )
    alike: dict[str, str] = {}
    for name in known:
        other = alike.setdefault(name.strip(), name)
        if other != name:
            raise DataError(f"{where}: expected class names that differ in more than blanks, found {other!r} and {name!r}")
    numbers = [name for name in known if re.fullmatch(r"-?\d+", name)]
    if len(numbers) == len(known) and any(name.startswith("-") for name in known):
        raise DataError(
            f"{where}: expected labels >= 0, found {known[0]!r} (an unlabelled split?); leave these rows out, or name another split"
        )


def encoded(cell: Any, where: str, folder: Path | None = None) -> Any:
    """Take the image out of a table's cell.

    Args:
        cell: bytes, or a dict with `bytes` and `path`.
        where: for messages.
        folder: of the table; a path in a cell is looked for in it, and nowhere else.

    Returns:
        Encoded bytes, or what the cell holds.

    Raises:
        DataError: the cell holds neither bytes nor a path in the folder.
    """
    if not isinstance(cell, dict):
        return cell
    if cell.get("bytes") is not None:
        return cell["bytes"]
    path = cell.get("path")
    if not isinstance(path, str) or not path:
        raise DataError(f"{where}: expected image bytes, found none and no path")
    told = printable(path[:200])
    if folder is None:
        raise DataError(f"{where}: expected image bytes, found none but the path {told}; keep the images in the table")
    place = (folder / path).resolve()
    if not place.is_relative_to(folder.resolve()):
        raise DataError(f"{where}: expected a path in the folder of the table, found {told}, which leads out of it")
    try:
        return read_bytes(place, LARGEST_PICTURE)
    except OSError as error:
        raise DataError(f"{where}: expected image bytes, found none and at {told}: {error.strerror or one_line(error)}") from None

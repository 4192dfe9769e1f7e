"""Coarse labels: a table of two columns that says which class each class becomes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gcaudit.data.readers import RawData
from gcaudit.errors import RequestError, one_line, shorten
from gcaudit.files import read_text
from gcaudit.report import ReportWarning, warn

_MOST_BYTES = 2**24


def read_class_map(path: str | Path) -> dict[str, str]:
    """Read a class map.

    Args:
        path: of a CSV or TSV with a row a class: its name and the name that it gets, which is empty for a class that is left out.

    Returns:
        The new name of each.

    Raises:
        RequestError: it cannot be read, a row has other than two cells, or a class has two.
    """
    place = Path(path).expanduser()
    try:
        text = read_text(place, _MOST_BYTES).removeprefix("\ufeff")
        separator = "\t" if place.suffix.lower() == ".tsv" else ","
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"expected a class map at {place}: {getattr(error, 'strerror', None) or one_line(error)}") from None
    odd = next((number for number, row in enumerate(rows, 1) if len(row) != 2), None)
    if odd is not None or not rows:
        found = f"{len(rows[odd - 1])} in row {odd}" if odd is not None else "an empty file"
        raise RequestError(f"{place}: expected two cells a row, a class and what it becomes, found {found}")
    found_map: dict[str, str] = {}
    for name, becomes in rows:
        if found_map.setdefault(name, becomes) != becomes:
            raise RequestError(f"{place}: expected one name for {name!r}, found {found_map[name]!r} and {becomes!r}")
    return found_map


def with_class_map(raw: RawData, path: str | Path, spec: str) -> RawData:
    """Give classes the names of a class map.

    Args:
        raw: the data.
        path: of the map.
        spec: of the data, for messages.

    Returns:
        The data; coarse classes are in alphabetical order, other names of the same classes in theirs.

    Raises:
        RequestError: the map cannot be read, or lacks a class of the data.
    """
    known = read_class_map(path)
    present = [raw.class_names[number] for number in np.unique(raw.labels[raw.labels >= 0])]
    absent = [name for name in present if name not in known]
    header = [name for name in list(known)[:1] if name not in raw.class_names]
    if absent:
        odd = [name for name in known if name not in raw.class_names]
        what = f", and rows for {shorten(odd)}, which it does not have" if odd else ""
        raise RequestError(
            f"{path}: expected a row for each class of {spec}, found none for {shorten(absent)}{what}; an empty name leaves a class out"
        )
    further = [name for name in known if name not in raw.class_names and name not in header]
    becomes = [known.get(name, "") for name in raw.class_names]
    told = [name for name in becomes if name]
    # new names of the same classes keep their order, which is that of a head; coarse ones have none
    names = tuple(told) if len(set(told)) == len(told) == len(raw.class_names) else tuple(sorted(set(told)))
    number = {name: place for place, name in enumerate(names)}
    renumber = np.array([number.get(name, -1) for name in becomes], dtype=np.int64)
    labels = np.where(raw.labels >= 0, renumber[raw.labels], -1)
    said = [
        warn(
            "renamed",
            f"{{n}} classes were made {len(names)} by {path} ({{names}})",
            [f"{a} -> {known[a]}" for a in raw.class_names if known.get(a)],
        )
    ]
    said += _left(raw.class_names, known, further, str(path))
    return RawData(raw.reader, labels, names, (*raw.warnings, *said), raw.columns)


def _left(names: Sequence[str], known: dict[str, str], further: Sequence[str], path: str) -> list[ReportWarning]:
    out = [name for name in names if name in known and not known[name]]
    said = [warn("left-out", f"{{n}} classes were left out by {path} ({{names}})", out)] if out else []
    return said + (
        [warn("class-choice", f"{{n}} rows of {path} name no class of the data ({{names}})", further)] if further else []
    )

"""ImageNet in the layout of the ILSVRC's archives, with the names of its classes.

`train` has a folder a class, named after its synset; `val` has one too once it was sorted, or all pictures side by side as in the archive, and then a table that names their classes:
`LOC_val_solution.csv`. `LOC_synset_mapping.txt` says what synsets are called.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from gcaudit.data.folders import IMAGE_SUFFIXES, read_folder
from gcaudit.data.readers import FileReader, RawData
from gcaudit.errors import DataError, one_line, shorten
from gcaudit.files import read_text
from gcaudit.report import ReportWarning, warn

_MOST_BYTES = 2**26
_SOLUTION, _MAPPING = "LOC_val_solution.csv", "LOC_synset_mapping.txt"
_FOLDERS = {"train": ("train",), "validation": ("val", "validation")}


def read_imagenet(place: Path, split: str, *, links: bool = False) -> RawData:
    """Read a split.

    Args:
        place: with the folders `train` and `val`.
        split: `train` or `validation`.
        links: also take pictures that are links out of the folder.

    Returns:
        The data; classes in the order of their synsets, as networks have them, called by the first of their names where these are known.

    Raises:
        DataError: no such folder, or pictures without a class.
    """
    folder = next((place / name for name in _FOLDERS[split] if (place / name).is_dir()), None)
    if folder is None:
        raise DataError(
            f"{place}: expected a folder {_FOLDERS[split][0]}, found {shorten(sorted(path.name for path in place.iterdir()))}"
        )
    if any(path.is_dir() and not path.name.startswith(".") for path in folder.iterdir()):
        data = read_folder(folder, None, follow_links=links)
    else:
        data = _side_by_side(folder, _beside(place, _SOLUTION), links=links)
    names, said = _names(_beside(place, _MAPPING), data.class_names)
    return RawData(data.reader, data.labels, names, (*data.warnings, *said))


def _beside(place: Path, name: str) -> Path | None:
    """Find a file in the folder or in one of the four above it, where the archives keep it."""
    return next((folder / name for folder in (place, *list(place.resolve().parents)[:4]) if (folder / name).is_file()), None)


def _side_by_side(folder: Path, table: Path | None, *, links: bool) -> RawData:
    if table is None:
        raise DataError(
            f"{folder}: expected a folder a class, or {_SOLUTION} beside it, found neither; sort the pictures into folders"
        )
    try:
        rows = list(csv.reader(io.StringIO(_text(table), newline="")))
    except csv.Error as error:
        raise DataError(f"{table}: expected a table, found {one_line(error)}") from None
    found = {row[0]: row[1].split()[0] for row in rows if len(row) == 2 and row[1].split() and row[0] != "ImageId"}
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    outside = [path for path in paths if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve())]
    if outside and not links:
        raise DataError(
            f"{outside[0]}: expected pictures in {folder}, found a link to {outside[0].resolve()}; remove it, or pass --follow-links"
        )
    unknown = [path.name for path in paths if path.stem not in found]
    if unknown or not paths:
        raise DataError(f"{table}: expected the class of each picture of {folder}, found none of {shorten(unknown, 3) or 'any'}")
    synsets = tuple(sorted(set(found.values())))
    number = {name: place for place, name in enumerate(synsets)}
    return RawData(FileReader(paths), np.array([number[found[path.stem]] for path in paths], dtype=np.int64), synsets)


def _text(path: Path) -> str:
    try:
        return read_text(path, _MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected text, found {getattr(error, 'strerror', None) or 'bytes that are none'}") from None


def _names(table: Path | None, synsets: tuple[str, ...]) -> tuple[tuple[str, ...], list[ReportWarning]]:
    """Call classes by the first of a synset's names, with the synset where two have the same."""
    if table is None:
        return synsets, []
    called = dict(line.split(" ", 1) for line in _text(table).splitlines() if " " in line)
    absent = [synset for synset in synsets if synset not in called]
    if absent:
        return synsets, [warn("left-out", f"{table.name} has no name for {{n}} classes ({{names}}): synsets stand for all", absent)]
    first = [called[synset].split(",")[0].strip() for synset in synsets]
    return tuple(name if first.count(name) == 1 else f"{name} ({synset})" for name, synset in zip(first, synsets, strict=True)), []

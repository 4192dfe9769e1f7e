"""Folders of class folders."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gcaudit.data.pictures import open_image
from gcaudit.data.readers import FileReader, RawData
from gcaudit.errors import DataError, shorten
from gcaudit.files import OpenFile
from gcaudit.report import ReportWarning, warn

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif", ".jfif", ".jpe", ".avif")
)
_SPLIT = re.compile(r"(?<![a-z])(train|training|val|valid|validation|test|testing)(?![a-z])")
_OTHERS = re.compile(rf"{_SPLIT.pattern}|(?<![a-z])(set|data|seg|images|img|split)(?![a-z])|[^a-z]")
_TRAINING = ("train", "training")
SPLIT_NAMES = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))


def read_folder(folder: Path, split: str | None, *, follow_links: bool = False) -> RawData:
    """Read a folder of class folders; pictures may lie deeper, names that begin with a dot are left out.

    Args:
        folder: with one folder a class, or with `split` folders of these.
        split: the subfolder to take.
        follow_links: also take pictures that are links out of the folder.

    Returns:
        The data; classes in alphabetical order.

    Raises:
        DataError: no pictures, split folders and no split, or a picture that is a link out of the folder.
    """
    root = folder
    if split is not None:
        if not (folder / split).is_dir():
            there = shorten([path.name for path in sorted(folder.iterdir()) if path.is_dir()])
            raise DataError(f"{folder}: expected a folder for split {split!r}, found {there or 'no folders'}")
        folder = folder / split
    inside = sorted(folder.iterdir())
    classes = [path for path in inside if path.is_dir() and not path.name.startswith(".")]
    splits = [path.name for path in classes if is_split(path.name) and any(inner.is_dir() for inner in path.iterdir())]
    if splits or (classes and all(is_split(path.name) for path in classes)):
        told = ", ".join(splits or [path.name for path in classes])
        raise DataError(
            f"{folder}: expected class folders, found the splits {told}; name one with --source-split or --target-split"
        )
    found = _gather(classes, folder, root, follow_links=follow_links)
    if not found.paths:
        odd = sorted({path.suffix or path.name for path in found.others})
        seen = f"files ending in {shorten(odd)}" if odd else "no files" if classes else "no class folders"
        raise DataError(f"{folder}: expected one folder a class with pictures (.jpg, .png, ...) in it, found {seen}")
    theirs = _classes_of_training(folder, root)
    names, labels, said = number_as_training([path.name for path in classes], np.array(found.labels, dtype=np.int64), theirs)
    beside = [path for path in inside if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES]
    groups = {
        "files in class folders that are no pictures": found.others,
        "pictures whose names or folders begin with a dot": [path for path in found.hidden if _is_hidden_picture(path)],
        "folders whose names begin with a dot": [path for path in inside if path.name.startswith(".") and _has_pictures(path)],
        "pictures beside the class folders": beside,
    }
    warnings = [
        warn("left-out", f"{{n}} {what} were left out ({{names}})", [str(path.relative_to(folder)) for path in left[:3]], len(left))
        for what, left in groups.items()
        if left
    ]
    warnings += said
    lines = {
        "{n} linked folders outside of the named one were read as parts of it ({names})": found.linked,
        "{n} pictures outside of the folder were read through links ({names})": found.followed,
    }
    for line, outside in lines.items():
        if outside:
            warnings.append(warn("links", line, [str(path.relative_to(folder)) for path in outside[:3]], len(outside)))
    if (inner := _common_folders(classes)) is not None:
        line = f"the folders {shorten(names, 3)} were taken for classes, and all hold the same folders ({shorten(inner, 3)}): are these the classes?"
        warnings.append(warn("split", line))
    return RawData(FileReader(found.paths), labels, names, tuple(warnings))


def _classes_of_training(folder: Path, root: Path) -> set[str]:
    """Name the class folders of training beside a split's folder; none where that is the folder of training itself."""
    places = (
        [path for path in root.iterdir() if is_training(path.name) and path.is_dir() and path != folder] if folder != root else []
    )
    return {path.name for place in places for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")}


def is_training(name: str) -> bool:
    """Tell the folder of training by its name.

    Args:
        name: of a folder.
    """
    return name.lower() in _TRAINING


def number_as_training(
    names: Sequence[str], labels: NDArray[np.int64], theirs: set[str]
) -> tuple[tuple[str, ...], NDArray[np.int64], list[ReportWarning]]:
    """Number the classes of a split by name as in the folder of training: it may have classes that this one lacks.

    Args:
        names: of the split's classes, in order.
        labels: (N,) numbers into them.
        theirs: names of the classes of training; none where there is no such folder, or this is it.

    Returns:
        Names, numbers into these, and what differs.
    """
    if not theirs & set(names) or theirs == set(
        names
    ):  # splits of other classes, as few-shot learning has them, are numbered apart
        return tuple(names), labels, []
    whole = sorted(theirs | set(names))
    place = np.array([whole.index(name) for name in names], dtype=np.int64)
    told = {
        "{n} classes of the folder of training have no folder in this split ({names}); classes are numbered as there, by name": sorted(
            theirs - set(names)
        ),
        "{n} classes of this split have no folder in that of training ({names})": sorted(set(names) - theirs),
    }
    return tuple(whole), place[labels], [warn("split", line, others) for line, others in told.items() if others]


@final
@dataclass
class _Seen:
    """What lies in class folders: pictures with their classes, other files, hidden ones, and what was reached by links out of the root."""

    paths: list[Path] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    linked: list[Path] = field(default_factory=list)
    followed: list[Path] = field(default_factory=list)


def _gather(classes: list[Path], folder: Path, root: Path, *, follow_links: bool) -> _Seen:
    seen = _Seen()
    for number, place in enumerate(classes):
        files, outside = _files(place, root)
        seen.linked += outside
        for path in files:
            if _is_hidden(path, folder):
                seen.hidden.append(path)
                continue
            leaving = _leads_out(path, (root, *outside))
            if leaving and not follow_links:
                raise DataError(
                    f"{path}: expected pictures in {root}, found a link to {path.resolve()}; remove it, or pass --follow-links"
                )
            if is_picture(path):
                seen.followed += [path] * leaving
                seen.paths.append(path)
                seen.labels.append(number)
            else:
                seen.others.append(path)
    return seen


def is_split(name: str) -> bool:
    """Tell names of splits: train, test_set, seg_train, val2017.

    Args:
        name: of a folder.
    """
    lowered = name.lower()
    return lowered in SPLIT_NAMES or (_SPLIT.search(lowered) is not None and _OTHERS.sub("", lowered) == "")


def is_split_of(name: str, split: str) -> bool:
    """Tell files of a split by what their names begin with.

    Args:
        name: of a file, such as `train-00001.tar`.
        split: such as `train`.
    """
    return re.match(rf"{re.escape(split)}(?![a-z])", name, re.IGNORECASE) is not None


def _common_folders(classes: list[Path]) -> list[str] | None:
    """Return the folders that lie in every class folder, where they are several and the same: then these may be the classes."""
    inside = [sorted(path.name for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")) for place in classes]
    return inside[0] if len(inside) > 1 and len(inside[0]) > 1 and all(names == inside[0] for names in inside) else None


def _files(place: Path, root: Path) -> tuple[list[Path], list[Path]]:
    """List the files below a class folder, also in linked folders, each folder once; and the linked folders that lie outside of the root."""
    found: list[Path] = []
    linked: list[Path] = []
    seen: set[str] = set()
    for folder, folders, files in os.walk(place, followlinks=True, onerror=_unreadable):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        if _leads_out(Path(folder), (root,)):
            linked.append(Path(folder))
        found += [Path(folder, name) for name in files]
    return sorted(found), linked


def _leads_out(path: Path, folders: tuple[Path, ...]) -> bool:
    """Tell whether a path is a link to what lies in none of some folders; one that leads nowhere is told as a bad picture."""
    if not path.is_symlink() or not path.exists():
        return False
    real = path.resolve()
    return not any(real.is_relative_to(folder.resolve()) for folder in folders)


def _unreadable(error: OSError) -> None:
    raise DataError(
        f"{error.filename}: expected a folder that can be read, found {error.strerror}; change its permissions"
    ) from None


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _is_hidden_picture(path: Path) -> bool:
    """Tell a picture by its suffix; macOS leaves a file of attributes beside each in archives, which is none."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("._")


def _has_pictures(folder: Path) -> bool:
    """Tell whether pictures lie right in a folder, as in one of a class."""
    return folder.is_dir() and any(_is_hidden_picture(path) for path in folder.iterdir())


def is_picture(path: Path) -> bool:
    """Tell a picture by its suffix, else by its content; a link that leads nowhere is one that cannot be read, not one that is not there.

    Args:
        path: of a file.
    """
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with OpenFile(path) as file, open_image(file.file):
            return True
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False

"""Folders of class folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gcaudit.data.readers import FileReader, RawData
from gcaudit.errors import DataError, shorten

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

"""Columns of tables: which hold images and labels, and what is in them."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from gcaudit.data.readers import LARGEST_PICTURE
from gcaudit.errors import DataError, one_line, printable, shorten
from gcaudit.files import read_bytes
from gcaudit.report import ReportWarning, warn

LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class", "class_label", "cls", "category")
IMAGE_COLUMNS = (
    "image",
    "img",
    "images",
    "picture",
    "pixels",
    "jpg",
    "jpeg",
    "png",
    "webp",
    "file_name",
    "filename",
    "image_path",
    "path",
    "file",
)
_SUFFIX = re.compile(r"\.(jpe?g|png|ppm|bmp|pgm|tiff?|webp|gif|jfif|jpe|avif)$", re.IGNORECASE)
_LIKE_LABEL = re.compile(r"label|class(?!ifi)|categor|species")
_DATA_URL = re.compile(r"^data:image/[\w.+-]+;base64,")
_SIGNS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\x00", b"MM\x00*")
_LEAST_BASE64 = 64
_MOST_LEVEL = 255
SPLIT_COLUMNS = ("split", "subset", "fold", "partition")


@final
@dataclass(frozen=True)
class Keys:
    """Columns that the user has named.

    Attributes:
        image: that holds images, or None.
        label: that holds labels, or None.
    """

    image: str | None = None
    label: str | None = None


NO_KEYS = Keys()


def find_image(names: Sequence[str], keys: Keys, where: str, candidates: Sequence[str] = ()) -> str:
    """Find the column of images: the one that was named, else by its customary names, else the only one that holds pictures.

    Args:
        names: the table's columns.
        keys: what the user has named.
        where: for messages.
        candidates: columns that hold pictures, as far as their types tell.

    Returns:
        The column's name.

    Raises:
        DataError: there is none, or it could be several.
    """
    return _find(names, keys.image, (IMAGE_COLUMNS, "images", "--image-key"), candidates, where)


def find_label(names: Sequence[str], keys: Keys, where: str, candidates: Sequence[str] = ()) -> str:
    """Find the column of labels: the one that was named, else by its customary names, else the only one that may hold them.

    Args:
        names: the table's columns.
        keys: what the user has named.
        where: for messages.
        candidates: columns that may hold classes, as far as their types tell.

    Returns:
        The column's name.

    Raises:
        DataError: there is none, or it could be several.
    """
    return _find(names, keys.label, (LABEL_COLUMNS, "labels", "--label-key"), candidates, where)


def _find(
    names: Sequence[str], key: str | None, what: tuple[Sequence[str], str, str], candidates: Sequence[str], where: str
) -> str:
    customary, noun, option = what
    if key is not None:
        if key in names:
            return key
        raise DataError(f"{where}: expected the column {key!r} of {option}, found {shorten(list(names), 8)}")
    for known in (candidates or names, names):
        for name in customary:
            if name in known:
                return name
    if len(candidates) == 1:
        return candidates[0]
    told = shorten(list(candidates or names), 8) or "no columns"
    raise DataError(
        f"{where}: expected a column of {noun} named {shorten(list(customary), 4)}, found {told}; name it with {option}"
    )


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


def label_choices(label: str, names: Sequence[str]) -> list[str]:
    """List the columns that might be the labels too, by what they are called.

    Args:
        label: the column that was taken.
        names: of columns that may hold labels.
    """
    return [name for name in names if name == label or name in LABEL_COLUMNS or _LIKE_LABEL.search(name.lower())]


def guess_warnings(image: str, label: str, keys: Keys) -> list[ReportWarning]:
    """Tell of columns that were taken because no other fits.

    Args:
        image: taken for images.
        label: taken for labels.
        keys: columns that were named.

    Returns:
        A warning for each whose name does not say what it holds.
    """
    taken = (("images", image, keys.image, IMAGE_COLUMNS), ("labels", label, keys.label, LABEL_COLUMNS))
    return [
        warn("column", f"the column {name!r} was taken for {what}, the only one that may hold them")
        for what, name, key, customary in taken
        if key is None and name not in customary
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


def looks_like_picture(text: str) -> bool:
    """Tell text that is a picture's path, or a picture in base64.

    Args:
        text: of a cell.
    """
    return _SUFFIX.search(text.strip()) is not None or _base64(text) is not None


def _base64(text: str) -> bytes | None:
    """Decode a picture that is text; None where it is none."""
    plain = _DATA_URL.sub("", text[:200].strip(), count=1) + text[200:].strip() if text.startswith("data:") else text.strip()
    if len(plain) < _LEAST_BASE64:
        return None
    try:
        found = base64.b64decode(plain[:64], validate=True)
        return base64.b64decode("".join(plain.split()), validate=True) if found.startswith(_SIGNS) else None
    except ValueError:
        return None


def encoded(cell: Any, where: str, folder: Path | None = None, *, links: bool = False) -> Any:
    """Take the image out of a table's cell.

    Args:
        cell: bytes, a dict with `bytes` and `path`, a path, base64, or rows of numbers from 0 to 255.
        where: for messages.
        folder: of the table; a path in a cell is looked for in it, and nowhere else.
        links: a path may lead out of the folder.

    Returns:
        Encoded bytes, a uint8 array, or what the cell holds.

    Raises:
        DataError: the cell holds nothing of these, or its path is none in the folder.
    """
    if isinstance(cell, str):
        found = _base64(cell)
        return _at(cell, where, folder, links) if found is None else found
    if isinstance(cell, list):
        return _array(cell, where)
    if not isinstance(cell, dict):
        return cell
    if cell.get("bytes") is not None:
        return cell["bytes"]
    path = cell.get("path")
    if not isinstance(path, str) or not path:
        raise DataError(f"{where}: expected image bytes, found none and no path")
    return _at(path, where, folder, links)


def _at(path: str, where: str, folder: Path | None, links: bool) -> bytes:
    told = printable(path[:200])
    if folder is None:
        raise DataError(f"{where}: expected image bytes, found none but the path {told}; keep the images in the table")
    try:
        place = (folder / path).resolve()
        if not links and not place.is_relative_to(folder.resolve()):
            raise DataError(
                f"{where}: expected a path in the folder of the table, found {told}, which leads out of it; copy the pictures there, or pass --follow-links"
            )
        return read_bytes(place, LARGEST_PICTURE)
    except (OSError, ValueError) as error:
        told_error = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"{where}: expected image bytes, found none and at {told}: {told_error}") from None


def _array(cell: list[Any], where: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Make a picture of rows of numbers."""
    try:
        found = np.array(cell)
    except ValueError:
        found = np.zeros(0)
    flat = found.ndim == 1 and found.size > 0
    if found.ndim not in (2, 3) or found.dtype.kind not in "iu":
        what = (
            f"a list of {len(cell)} numbers, whose height and width are not known"
            if flat
            else f"a list of shape {found.shape} and {found.dtype}"
        )
        raise DataError(
            f"{where}: expected a picture, found {what}; keep encoded images (PNG) or rows of whole numbers from 0 to 255"
        )
    if found.min() < 0 or found.max() > _MOST_LEVEL:
        raise DataError(f"{where}: expected numbers from 0 to 255, found {found.min()} to {found.max()}; convert them first")
    if found.ndim == 3 and found.shape[2] not in (1, 3, 4) and found.shape[0] in (1, 3, 4):
        raise DataError(f"{where}: expected a picture of (height, width, channels), found shape {found.shape}; transpose it first")
    return found.astype(np.uint8)

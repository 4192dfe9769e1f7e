"""CIFAR's python archives.

They are pickles, and untrusted: the unpickler knows numpy arrays, dict, list, str and bytes and nothing else.
"""

from __future__ import annotations

import pickle
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from gcaudit.data.columns import number_labels
from gcaudit.data.idx import GZIP
from gcaudit.data.readers import ArrayReader, RawData
from gcaudit.errors import DataError, foreign_file, one_line, shorten


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
        what = foreign_file(place, GZIP) or f"{one_line(error)}; fetch it again"
        raise DataError(f"{place}: expected CIFAR's archive, found {what}") from None
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

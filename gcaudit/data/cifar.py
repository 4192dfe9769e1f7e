"""CIFAR's python archives.

They are pickles, and untrusted: they are read as data, by a reader that makes numbers, text, lists, dicts and arrays of bytes that are there.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from gcaudit.data.idx import GZIP
from gcaudit.data.labels import number_labels
from gcaudit.data.readers import ArrayReader, RawData
from gcaudit.errors import DataError, foreign_file, one_line, printable, shorten
from gcaudit.files import BROKEN_ARCHIVE, Array, BoundedFile, OpenFile, PickleError, PickleReader

_LARGEST_MEMBER = 2**29
_LARGEST_ARCHIVE = 2**31


def _reason(reader: PickleReader, error: PickleError | None) -> str:
    return f"refused: it wants to import {reader.foreign[0]}" if reader.foreign else str(error)


def unpickle_arrays(file: IO[bytes], size: int, where: str) -> dict[str, Any]:
    """Read a pickled dict of numpy arrays, lists, str and bytes; anything else is refused.

    Args:
        file: open for reading.
        size: its bytes.
        where: for messages.

    Returns:
        The dict.

    Raises:
        DataError: damaged, or it wants to import anything else.
    """
    if size > _LARGEST_MEMBER:
        raise DataError(
            f"{where}: expected a part of CIFAR's archive of up to {_LARGEST_MEMBER} bytes, found {size}; fetch the archive again"
        )
    reader = PickleReader(file, size)
    try:
        content = reader.read()
    except PickleError as error:
        raise DataError(
            f"{where}: expected a pickle of arrays as CIFAR's archives hold: {_reason(reader, error)}; fetch it again"
        ) from None
    if reader.foreign:
        raise DataError(f"{where}: expected a pickle of arrays as CIFAR's archives hold: {_reason(reader, None)}; fetch it again")
    if not isinstance(content, dict):
        raise DataError(f"{where}: expected a pickled dict, found a {type(content).__name__}; fetch the archive again")
    return {str(key): value.values if isinstance(value, Array) else value for key, value in content.items() if isinstance(key, str)}


def _open_tar(file: OpenFile) -> tarfile.TarFile:
    unpacked: Any = gzip.GzipFile(fileobj=file.file) if file.file.peek(2)[:2] == GZIP else file.file
    bounded: Any = BoundedFile(unpacked, _LARGEST_MEMBER, _LARGEST_ARCHIVE)
    return tarfile.open(fileobj=bounded, mode="r:")


def _cifar_members(place: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read members of an extracted folder, or of the .tar.gz as it was downloaded."""
    if place.is_dir():
        found = {}
        for name in names:
            try:
                with OpenFile(place / name) as file:
                    found[name] = unpickle_arrays(file.file, file.size, str(place / name))
            except OSError as error:
                raise DataError(f"{place / name}: expected CIFAR's file: {error.strerror}; fetch the archive again") from None
        return found
    found = {}
    try:
        with OpenFile(place) as file, _open_tar(file) as archive:
            for member in archive:
                name = Path(member.name).name
                content = archive.extractfile(member) if name in names and member.isfile() else None
                if content is not None:
                    found[name] = unpickle_arrays(content, member.size, f"{place}, {printable(member.name)}")
    except BROKEN_ARCHIVE as error:
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
    sound = isinstance(found, list) and all(isinstance(name, str) for name in found)
    known = tuple(found) if isinstance(found, list) and sound else tuple(names)
    numbered = number_labels(labels, known, str(place))
    if bool((numbered.numbers < 0).any()):
        raise DataError(f"{place}: expected labels >= 0, found {min(labels)}; fetch the archive again")
    reader = ArrayReader(np.ascontiguousarray(np.concatenate(pixels)), str(place))
    return RawData(reader, numbered.numbers, numbered.names, numbered.warnings)

"""How large a parquet file's pages are when they are unpacked, by their own headers: looked at before any library unpacks them.

The footer and the headers of pages are Thrift's compact protocol (https://github.com/apache/parquet-format, parquet.thrift); of it the few
fields are read that say where pages lie and how large they are.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, final

from gcaudit.errors import DataError
from gcaudit.files import OpenFile

_MAGIC = b"PAR1"
_MOST_FOOTER = 2**26
_MOST_HEADER = 2**24
_FIRST_LOOK = 2**10
_DEEPEST = 24
_LARGE_GROUP, _MOST_PACKED = 2**27, 50
"""Bytes that the pictures of a row group may have, and how many times larger than packed they may be beyond that."""
_ROW_GROUPS, _ROWS, _COLUMNS, _META = 4, 3, 1, 3
_PATH, _VALUES, _PACKED, _DATA_PLACE, _DICTIONARY_PLACE = 3, 5, 7, 9, 11
_UNPACKED_SIZE, _PACKED_SIZE = 2, 3
_ENCODINGS, _DICTIONARIES, _DELTAS = 2, {2, 8}, {5, 6, 7, 9}
_LONGEST_ARRAY = 2**31 - 2**20
"""Bytes of text that pyarrow reads into a dictionary."""
_FEW_ROWS = 2**20


class PageError(ValueError):
    """Bytes that are no footer or header of a page."""


class _ShortError(PageError):
    """More bytes are needed."""


@final
class _Compact:
    """Reads Thrift's compact protocol; structures become dicts by the numbers of their fields."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self.place = raw, 0

    def _take(self, size: int) -> bytes:
        end = self.place + size
        if end > len(self._raw):
            raise _ShortError("it ends early")
        found = self._raw[self.place : end]
        self.place = end
        return found

    def _number(self) -> int:
        found = shift = 0
        while True:
            byte = self._take(1)[0]
            found |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return found
            if shift > 63:
                raise PageError("a number without end")

    def _signed(self) -> int:
        found = self._number()
        return (found >> 1) ^ -(found & 1)

    def structure(self, depth: int = 0) -> dict[int, Any]:
        """Read a structure."""
        if depth > _DEEPEST:
            raise PageError("structures that lie too deep")
        found: dict[int, Any] = {}
        field = 0
        while (head := self._take(1)[0]) != 0:
            field = field + (head >> 4) if head >> 4 else self._signed()
            kind = head & 15
            found[field] = kind == 1 if kind in (1, 2) else self._value(kind, depth + 1)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):
            return self._take(1)[0] == 1
        if kind == 3:
            return self._take(1)[0]
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 7:
            return self._take(8)
        if kind == 8:
            return self._take(self._number())
        if kind in (9, 10):
            return self._list(depth)
        if kind == 12:
            return self.structure(depth)
        raise PageError(f"a value of kind {kind}")

    def _list(self, depth: int) -> list[Any]:
        head = self._take(1)[0]
        count = head >> 4 if head >> 4 < 15 else self._number()
        if depth > _DEEPEST or count > len(self._raw) - self.place:  # each takes a byte at least
            raise _ShortError("a list longer than what is there")
        return [self._value(head & 15, depth + 1) for _ in range(count)]


@final
@dataclass(frozen=True)
class RowGroup:
    """A row group, as its footer says.

    Attributes:
        rows: how many.
        columns: the structures of its columns.
    """

    rows: int
    columns: tuple[dict[int, Any], ...]


def row_groups(file: OpenFile) -> list[RowGroup]:
    """Read the footer of a file.

    Args:
        file: open.

    Returns:
        Its row groups.

    Raises:
        PageError: it is damaged.
    """
    file.file.seek(max(0, file.size - 8))
    size, magic = struct.unpack("<I4s", file.file.read(8).ljust(8, b"\0"))
    if magic != _MAGIC or size > min(_MOST_FOOTER, file.size - 8):
        raise PageError("no parquet footer")
    file.file.seek(file.size - 8 - size)
    footer = _Compact(file.file.read(size)).structure()
    found = []
    for group in _items(footer.get(_ROW_GROUPS)):
        rows = group.get(_ROWS)
        if type(rows) is not int or rows < 0:
            raise PageError("a row group without a number of rows")
        found.append(RowGroup(rows, tuple(_items(group.get(_COLUMNS)))))
    return found


def _items(value: Any) -> list[dict[int, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise PageError("no list of structures")
    return value


@final
@dataclass(frozen=True)
class Parts:
    """What pages say of a file.

    Attributes:
        rows: of each row group.
        shared: parts of columns, such as `image.bytes`, whose values can be held once however many rows show them.
    """

    rows: tuple[int, ...]
    shared: tuple[str, ...]


def check_pages(file: OpenFile, columns: Collection[str]) -> Parts:
    """Refuse what is packed into next to nothing: pictures are packed already, so that this is a trap for memory.

    Args:
        file: open.
        columns: that are about to be read.

    Returns:
        The rows, and how columns can be read.

    Raises:
        DataError: naming the sizes.
        PageError: it is damaged.
    """
    found = row_groups(file)
    rows = sum(group.rows for group in found)
    if rows > max(_FEW_ROWS, file.size):
        raise DataError(f"{file.path}: refused: {file.size} bytes claim to be {rows} rows; write the file again")
    shared: dict[str, bool] = {}
    for group in found:
        packed = unpacked = 0
        for column in group.columns:
            meta = column.get(_META)
            path = meta.get(_PATH) if isinstance(meta, dict) else None
            if not isinstance(meta, dict) or not isinstance(path, list) or not path or not all(isinstance(n, bytes) for n in path):
                raise PageError("a column without a name")
            if path[0].decode(errors="replace") not in columns:
                continue
            own = 0
            for size, large in _pages(file, meta):
                packed, unpacked, own = packed + size, unpacked + large, own + large
            name = b".".join(path).decode(errors="replace")
            shared[name] = shared.get(name, True) and own < _LONGEST_ARRAY and _has_dictionary(meta)
        if unpacked > _LARGE_GROUP and unpacked > _MOST_PACKED * packed:
            raise DataError(
                f"{file.path}: refused: {packed} bytes of pictures claim to be {unpacked} when unpacked; write the file again"
            )
    return Parts(tuple(group.rows for group in found), tuple(name for name, sharing in shared.items() if sharing))


def _has_dictionary(meta: dict[int, Any]) -> bool:
    """Tell whether values stand in a dictionary, and none in an encoding that cannot be read into one."""
    encodings = meta.get(_ENCODINGS)
    found = set(encodings) if isinstance(encodings, list) and all(type(n) is int for n in encodings) else set()
    return bool(found & _DICTIONARIES) and not found & _DELTAS


def _pages(file: OpenFile, meta: dict[int, Any]) -> Iterator[tuple[int, int]]:
    """Walk the pages of a column: size as it is there, and unpacked."""
    places = [meta[field] for field in (_DATA_PLACE, _DICTIONARY_PLACE) if field in meta]
    size = meta.get(_PACKED)
    if type(size) is not int or size < 0:
        raise PageError("a column without a size")
    places = [place for place in places if type(place) is int and place > 0]
    if not size or (not places and meta.get(_VALUES) == 0):  # of a row group without rows
        return
    if not places:
        raise PageError("a column without a place")
    place = min(places)
    end = place + size
    if end > file.size:
        raise PageError("a column beyond the end of the file")
    while place < end:
        header, length = _page_header(file, place, end)
        packed, unpacked = header.get(_PACKED_SIZE), header.get(_UNPACKED_SIZE)
        if type(packed) is not int or type(unpacked) is not int or packed < 0 or unpacked < 0:
            raise PageError("a page without a size")
        yield packed, unpacked
        place += length + packed


def _page_header(file: OpenFile, place: int, end: int) -> tuple[dict[int, Any], int]:
    look = _FIRST_LOOK
    while True:
        file.file.seek(place)
        reader = _Compact(file.file.read(min(look, end - place)))
        try:
            return reader.structure(), reader.place
        except _ShortError:  # statistics may hold whole values
            if look >= min(end - place, _MOST_HEADER):
                raise
            look *= 8

"""Pickles read as data: nothing is imported and nothing called but the short list of `values.BUILDERS`.

A pickle is a program for a stack machine. This one knows numbers, text, bytes, tuples, lists and dicts, and descriptions of arrays and tensors;
everything else is an opaque value. No number in the file is believed: lengths are held against the bytes that are left, indices of the memo are
keys of a dict, and keys of dicts are text, bytes and numbers alone, whose hashes cost no time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import IO, Any, final

from gcaudit.errors import printable
from gcaudit.files.values import (
    BUILDERS,
    PLAIN_NAMES,
    Array,
    Kind,
    Name,
    Opaque,
    Options,
    Ordered,
    StorageSpec,
    UnbuildableError,
    describe_storage,
)

MOST_OPERATIONS = 4_000_000
_LONGEST_LINE = 2**20
_LONGEST_NUMBER = 64
_LARGEST_KEY = 2**61 - 1
_MOST_NAMES = 1000
_RECONSTRUCTORS = ("copy_reg._reconstructor", "copyreg._reconstructor")
"""How protocols 0 and 1 make an object."""
_MARK = object()


class PickleError(ValueError):
    """Bytes that are no pickle, or a pickle that no honest writer makes."""


@final
class PickleReader:
    """Reads one pickle.

    Attributes:
        foreign: what it named that is not known, in the order in which it did.
        storages: all that it claims.
    """

    def __init__(self, file: IO[bytes], size: int, source: Any = None) -> None:
        """Make ready.

        Args:
            file: at the first byte of the pickle.
            size: bytes that are left in it.
            source: for its `StorageSpec`s, to tell files apart.
        """
        self._file, self._left, self._source = file, size, source
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._names: dict[str, None] = {}
        self._work = 0
        self.foreign: list[str] = []
        self.storages: list[StorageSpec] = []

    def read(self) -> Any:
        """Run the program.

        Returns:
            What it made.

        Raises:
            PickleError: it is damaged, too long, or no pickle.
        """
        try:
            while (code := self._take(1)) != b".":
                operation = _OPERATIONS.get(code)
                if operation is None:
                    raise PickleError(f"an operation {code.hex()} that is not known")
                operation(self)
                self._charge(1)
            return self._pop()
        except (IndexError, KeyError, TypeError, UnbuildableError, UnicodeError, struct.error) as error:
            raise PickleError(printable(str(error))[:160] or type(error).__name__) from None
        except ValueError as error:
            raise error if isinstance(error, PickleError) else PickleError("a number that is none") from None

    def _charge(self, work: int) -> None:
        """Count work done: a value that is named again and again must not cost its size each time."""
        self._work += work
        if self._work > MOST_OPERATIONS:
            raise PickleError(f"more than {MOST_OPERATIONS} operations")

    # --- bytes

    def _take(self, count: int) -> bytes:
        if count > self._left:
            raise PickleError(f"{count} bytes are claimed, {self._left} are left")
        found = self._file.read(count)
        if len(found) != count:
            raise PickleError("it ends in the middle")
        self._left -= count
        return found

    def _line(self) -> bytes:
        found = self._file.readline(min(_LONGEST_LINE, self._left))
        if not found.endswith(b"\n"):
            raise PickleError("a line without an end")
        self._left -= len(found)
        return found[:-1]

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._take(struct.calcsize(form)))[0])

    def _text(self, length: int) -> str:
        return self._take(length).decode("utf-8", "surrogatepass")

    # --- the stack

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise PickleError("a mark in place of a value")
        return value

    def _since_mark(self) -> list[Any]:
        place = len(self._stack) - 1
        while self._stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise PickleError("no mark")
        found = self._stack[place + 1 :]
        del self._stack[place:]
        return found

    def _top(self) -> Any:
        if self._stack[-1] is _MARK:
            raise PickleError("a mark in place of a value")
        return self._stack[-1]

    def _tuple(self, count: int) -> None:
        found = tuple(self._pop() for _ in range(count))[::-1]
        self.push(found)

    def _extend(self, values: list[Any]) -> None:
        top = self._top()
        if isinstance(top, list):
            top.extend(values)
        elif not isinstance(top, Opaque):
            raise PickleError("an item for something that is no list")

    def _update(self, values: list[Any]) -> None:
        top = self._top()
        if not isinstance(top, dict | Opaque) or len(values) % 2:
            raise PickleError("an entry for something that is no dict")
        if isinstance(top, dict):
            top.update(_dict_of(values))

    # --- names and calls

    def _name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise PickleError("a name that is no text")
        text = printable(f"{module[:80]}.{name[:80]}")
        if text not in self._names and len(self._names) < _MOST_NAMES:
            self._names[text] = None
            if text not in BUILDERS and text not in PLAIN_NAMES and text not in _RECONSTRUCTORS:
                self.foreign.append(text)
        self.push(Name(text))

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name):
            return Opaque("what something unknown returns")
        if function.text in _RECONSTRUCTORS and isinstance(arguments, tuple) and arguments:
            return self._call(arguments[0], ())
        builder = BUILDERS.get(function.text)
        if builder is None or not isinstance(arguments, tuple):
            return Opaque(function.text)
        self._charge(sum(map(_size, arguments)))
        return builder(*arguments)

    def _reduce(self) -> None:
        arguments = self._pop()
        self.push(self._call(self._pop(), arguments))

    def _build(self) -> None:
        state = self._pop()
        made = self._top()
        self._charge(sum(map(_size, state)) if isinstance(state, tuple) else _size(state))
        if isinstance(made, Array | Kind):
            made.build(state)
        elif isinstance(made, Options) and isinstance(state, dict):
            made.update({key: value for key, value in state.items() if type(key) is str})
        elif isinstance(made, Ordered) and isinstance(state, dict) and isinstance(state.get("_metadata"), dict):
            made.metadata = state["_metadata"]

    def _persistent(self, given: Any) -> None:
        if isinstance(given, tuple) and len(given) > 1 and given[0] == "module":  # how old files name a class
            self.push(given[1])
        else:
            found = describe_storage(given, self._source)
            self.storages.append(found)
            self.push(found)


def _is_key(key: Any) -> bool:
    """Tell keys whose hashes cannot be made to collide: text and bytes are salted, small whole numbers are their own."""
    return type(key) in (str, bytes, bool, type(None)) or (type(key) is int and abs(key) < _LARGEST_KEY)


def _size(value: Any) -> int:
    """Weigh a value for `_charge`: text and bytes are copied many at a time."""
    if isinstance(value, str | bytes):
        return len(value) // 256
    return len(value) if isinstance(value, list | tuple | dict) else 0


def _whole(raw: bytes) -> Any:
    return int.from_bytes(raw, "little", signed=True) if len(raw) <= _LONGEST_NUMBER else Opaque("a number of many digits")


def _int_line(reader: PickleReader) -> None:
    line = reader._line()
    if len(line) > _LONGEST_NUMBER:
        raise PickleError("a number of many digits")
    reader.push(line == b"01" if line in (b"00", b"01") else int(line.rstrip(b"L")))


def _string_line(reader: PickleReader) -> None:
    line = reader._line()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise PickleError("a string without quotes")
    reader.push(line[1:-1].decode("unicode_escape").encode("latin1").decode("latin1"))


def _get(reader: PickleReader, index: int) -> None:
    if index not in reader._memo:
        raise PickleError(f"a value {index} that was not kept")
    reader.push(reader._memo[index])


def _put(reader: PickleReader, index: int) -> None:
    reader._memo[index] = reader._top()


def _mark_then(reader: PickleReader, make: Callable[[list[Any]], Any]) -> None:
    reader.push(make(reader._since_mark()))


def _global_line(reader: PickleReader) -> None:
    module = reader._line().decode("utf-8")
    reader._name(module, reader._line().decode("utf-8"))


def _stack_global(reader: PickleReader) -> None:
    name = reader._pop()
    reader._name(reader._pop(), name)


def _instance(reader: PickleReader) -> None:
    arguments = tuple(reader._since_mark())
    _global_line(reader)
    reader.push(reader._call(reader._pop(), arguments))


def _object(reader: PickleReader) -> None:
    function, *arguments = reader._since_mark()
    reader.push(reader._call(function, tuple(arguments)))


def _new_with_keywords(reader: PickleReader) -> None:
    reader._pop()
    reader._reduce()


def _extension(reader: PickleReader, width: int) -> None:
    reader._take(width)
    reader.push(Opaque("a registered extension"))


def _dict_of(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise PickleError("a key without a value")
    return {key: value for key, value in zip(items[::2], items[1::2], strict=True) if _is_key(key)}


_OPERATIONS: dict[bytes, Callable[[PickleReader], Any]] = {
    b"\x80": lambda r: r._take(1),  # protocol
    b"\x95": lambda r: r._take(8),  # frame
    b"(": lambda r: r.push(_MARK),
    b"0": lambda r: r._stack.pop(),
    b"1": lambda r: r._since_mark(),
    b"2": lambda r: r.push(r._top()),
    b"N": lambda r: r.push(None),
    b"\x88": lambda r: r.push(True),
    b"\x89": lambda r: r.push(False),
    b"I": _int_line,
    b"L": _int_line,
    b"F": lambda r: r.push(float(r._line()[:_LONGEST_NUMBER])),
    b"J": lambda r: r.push(r._number("<i")),
    b"K": lambda r: r.push(r._number("<B")),
    b"M": lambda r: r.push(r._number("<H")),
    b"\x8a": lambda r: r.push(_whole(r._take(r._number("<B")))),
    b"\x8b": lambda r: r.push(_whole(r._take(r._number("<I")))),
    b"G": lambda r: r.push(struct.unpack(">d", r._take(8))[0]),
    b"S": _string_line,
    b"T": lambda r: r.push(r._take(r._number("<I")).decode("latin1")),
    b"U": lambda r: r.push(r._take(r._number("<B")).decode("latin1")),
    b"V": lambda r: r.push(r._line().decode("raw-unicode-escape")),
    b"X": lambda r: r.push(r._text(r._number("<I"))),
    b"\x8c": lambda r: r.push(r._text(r._number("<B"))),
    b"\x8d": lambda r: r.push(r._text(r._number("<Q"))),
    b"B": lambda r: r.push(r._take(r._number("<I"))),
    b"C": lambda r: r.push(r._take(r._number("<B"))),
    b"\x8e": lambda r: r.push(r._take(r._number("<Q"))),
    b"\x96": lambda r: r.push(r._take(r._number("<Q"))),
    b"]": lambda r: r.push([]),
    b"}": lambda r: r.push({}),
    b")": lambda r: r.push(()),
    b"\x8f": lambda r: r.push(Opaque("set")),
    b"\x90": lambda r: r._since_mark(),
    b"\x91": lambda r: _mark_then(r, lambda _items: Opaque("frozenset")),
    b"t": lambda r: _mark_then(r, tuple),
    b"l": lambda r: _mark_then(r, list),
    b"d": lambda r: _mark_then(r, _dict_of),
    b"\x85": lambda r: r._tuple(1),
    b"\x86": lambda r: r._tuple(2),
    b"\x87": lambda r: r._tuple(3),
    b"a": lambda r: r._extend([r._pop()]),
    b"e": lambda r: r._extend(r._since_mark()),
    b"s": lambda r: r._update([r._pop(), r._pop()][::-1]),
    b"u": lambda r: r._update(r._since_mark()),
    b"g": lambda r: _get(r, int(r._line())),
    b"h": lambda r: _get(r, r._number("<B")),
    b"j": lambda r: _get(r, r._number("<I")),
    b"p": lambda r: _put(r, int(r._line())),
    b"q": lambda r: _put(r, r._number("<B")),
    b"r": lambda r: _put(r, r._number("<I")),
    b"\x94": lambda r: _put(r, len(r._memo)),
    b"c": _global_line,
    b"\x93": _stack_global,
    b"R": lambda r: r._reduce(),
    b"\x81": lambda r: r._reduce(),
    b"\x92": _new_with_keywords,
    b"i": _instance,
    b"o": _object,
    b"b": lambda r: r._build(),
    b"P": lambda r: r._persistent(r._line().decode("latin1")),
    b"Q": lambda r: r._persistent(r._pop()),
    b"\x82": lambda r: _extension(r, 1),
    b"\x83": lambda r: _extension(r, 2),
    b"\x84": lambda r: _extension(r, 4),
}
"""Every operation of protocols 0 to 5 but buffers outside of the pickle."""

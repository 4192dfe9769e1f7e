"""What pickles hold, as data: descriptions of arrays and tensors whose bytes are elsewhere, and opaque values for everything else.

`BUILDERS` is the one list of what a pickle may ask for. Each entry makes a plain value or a description out of plain values; what is asked for
beyond it becomes an opaque value that does nothing, whatever is done with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

MOST_DIMENSIONS = 32
_LARGEST = 2**62


class UnbuildableError(ValueError):
    """Arguments that no honest writer gives."""


@final
@dataclass(frozen=True, eq=False)
class Opaque:
    """Something that is not read.

    Attributes:
        name: of what it would be, such as `pathlib.PosixPath`.
        tensor: it is a tensor of a kind that is not read.
    """

    name: str
    tensor: bool = False


@final
@dataclass(frozen=True, eq=False)
class Name:
    """A class or function that a pickle names; it is not imported.

    Attributes:
        text: module and name.
    """

    text: str


@final
@dataclass(frozen=True, eq=False)
class StorageSpec:
    """Numbers that lie elsewhere in the file.

    Attributes:
        key: of the record that holds them.
        dtype: such as `float32`; `uint8` of untyped ones.
        numbers: how many.
        source: whatever the reader was given to tell files apart.
    """

    key: str
    dtype: str
    numbers: int
    source: Any = None

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.numbers * ITEM_BYTES[self.dtype]


@final
@dataclass(frozen=True, eq=False)
class TensorSpec:
    """A tensor.

    Attributes:
        storage: where its numbers lie.
        dtype: such as `float32`.
        offset: of the first number.
        shape: of the tensor.
        stride: in numbers, none negative.
    """

    storage: StorageSpec
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many it shows; a stride of 0 shows one many times."""
        return math.prod(self.shape)


@final
class Options(dict[str, Any]):
    """An `argparse.Namespace`, as a dict."""


@final
class Ordered(dict[str, Any]):
    """A `collections.OrderedDict`.

    Attributes:
        metadata: what torch keeps beside the tensors of a state dict, if anything.
    """

    metadata: Mapping[str, Any] | None = None


@final
class Kind:
    """A `numpy.dtype`.

    Attributes:
        text: such as `<f4`; None of types that are not numbers.
    """

    def __init__(self, name: Any) -> None:
        """Take the name that `numpy.dtype` is called with."""
        sound = isinstance(name, str) and re.fullmatch("[fiu][1248]|b1", name) and name != "f1"
        self.text: str | None = f"<{name}" if sound else None

    def build(self, state: Any) -> None:
        """Take the state, of which the byte order is looked at and nothing else."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "=", "|"):
            self.text = None
        elif self.text is not None:
            self.text = (">" if order == ">" else "<") + self.text[1:]


@final
class Array:
    """A `numpy.ndarray`.

    Attributes:
        values: the array, made of bytes that are there; None of what is not numbers.
    """

    def __init__(self) -> None:
        """Start empty, as numpy does."""
        self.values: NDArray[Any] | None = None

    def build(self, state: Any) -> None:
        """Take the state: version, shape, type, order and bytes."""
        if isinstance(state, tuple) and len(state) == 5:
            raw = state[4].encode("latin1") if isinstance(state[4], str) else state[4]  # text in files of Python 2
            self.values = _array(raw, state[2], state[1], fortran=state[3] is True)


def _array(raw: Any, kind: Any, shape: Any, *, fortran: bool) -> NDArray[Any] | None:
    if not isinstance(kind, Kind) or kind.text is None or not isinstance(raw, bytes):
        return None
    dtype, sizes = np.dtype(kind.text), _sizes(shape)
    if math.prod(sizes) * dtype.itemsize != len(raw):
        raise UnbuildableError(f"an array of shape {sizes} and type {kind.text} in {len(raw)} bytes")
    return np.frombuffer(raw, dtype).reshape(sizes, order="F" if fortran else "C")


def _sizes(given: Any) -> tuple[int, ...]:
    whole = isinstance(given, tuple | list) and all(type(n) is int and 0 <= n < _LARGEST for n in given)
    if not whole or len(given) > MOST_DIMENSIONS:
        raise UnbuildableError("a shape that is none")
    return tuple(given)


ITEM_BYTES: Mapping[str, int] = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
    "complex64": 8, "complex128": 16, "complex32": 4, "uint16": 2, "uint32": 4, "uint64": 8, "float8_e4m3fn": 1, "float8_e5m2": 1,
    "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1, "float4_e2m1fn_x2": 1,
}  # fmt: skip
"""Bytes of a number of each type that is read."""
STORAGES: Mapping[str, str] = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
        "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexDouble": "complex128", "ComplexFloat": "complex64",
        "QInt8": "int8", "QUInt8": "uint8", "QInt32": "int32",
    }.items()
} | {"torch.UntypedStorage": "uint8", "torch.storage.UntypedStorage": "uint8"}  # fmt: skip
"""Names of torch's storages, and the types of their numbers."""
PLAIN_NAMES = frozenset(
    {
        *STORAGES,
        *(f"torch.{dtype}" for dtype in ITEM_BYTES),
        "torch.Tensor",
        "torch.nn.parameter.Parameter",
        "torch.Size",
        "torch.device",
    }
    | {
        "torch.per_tensor_affine",
        "torch.per_channel_affine",
        "torch.qint8",
        "torch.quint8",
        "torch.qint32",
        "torch.strided",
        "torch.serialization._get_layout",
        "numpy.ndarray",
        "builtins.object",
        "__builtin__.object",
    }
)
"""Names that stand for themselves: types and flags, of which nothing is called."""


def describe_storage(given: Any, source: Any = None) -> StorageSpec:
    """Read what torch writes for a storage.

    Args:
        given: the persistent id.
        source: to tell files apart.

    Returns:
        The storage.

    Raises:
        UnbuildableError: it is another thing.
    """
    if not (isinstance(given, tuple) and len(given) >= 5 and given[0] == "storage" and isinstance(given[1], Name)):
        raise UnbuildableError("a persistent id that is no storage")
    dtype, key, numbers = STORAGES.get(given[1].text), given[2], given[4]
    if dtype is None:
        raise UnbuildableError(f"a storage of type {given[1].text}")
    if type(key) is not str or type(numbers) is not int or not 0 <= numbers < _LARGEST:
        raise UnbuildableError("tensor data without a name or size")
    return StorageSpec(key, dtype, numbers, source)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> TensorSpec | Opaque:
    if isinstance(storage, Opaque):
        return storage
    dtype = storage.dtype if isinstance(storage, StorageSpec) else ""
    if len(rest) > 2 and isinstance(rest[2], Name):  # version 3 says the type, its storage has none
        dtype = rest[2].text.removeprefix("torch.")
    if not isinstance(storage, StorageSpec) or dtype not in ITEM_BYTES:
        raise UnbuildableError("a tensor without data, or of a type that is not known")
    sizes, steps = _sizes(shape), _sizes(stride)
    if type(offset) is not int or not 0 <= offset < _LARGEST or len(steps) != len(sizes):
        raise UnbuildableError("a tensor without offset or strides")
    last = offset + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    if math.prod(sizes) and (last + 1) * ITEM_BYTES[dtype] > storage.bytes:
        raise UnbuildableError(f"a tensor of shape {sizes} beyond the {storage.bytes} bytes of its data")
    return TensorSpec(storage, dtype, offset, sizes, steps)


def _typed(function: Any, _type: Any, arguments: Any, _state: Any) -> Any:
    """Make a tensor whose class adds attributes, without these."""
    builder = BUILDERS.get(function.text) if isinstance(function, Name) else None
    if builder is None or not isinstance(arguments, tuple):
        raise UnbuildableError("a tensor of another class")
    return builder(*arguments)


def _scalar(kind: Any, raw: Any) -> Any:
    if isinstance(kind, Kind) and kind.text is not None and isinstance(raw, bytes):
        found = _array(raw, kind, (), fortran=False)
        return None if found is None else found.item()
    return Opaque("numpy.scalar")


def _ordered(items: Any = ()) -> Ordered:
    """Make a dict of pairs, as Python 2 wrote them; later ones write their entries one by one."""
    pairs = [tuple(item) for item in items if isinstance(item, list | tuple) and len(item) == 2] if isinstance(items, list) else []
    return Ordered({key: value for key, value in pairs if type(key) is str})


def _bytes(text: Any, encoding: Any = "latin1") -> bytes:
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise UnbuildableError(f"bytes in the encoding {encoding!r}"[:80])
    return text.encode("latin1")


def _frombuffer(raw: Any, kind: Any, shape: Any, order: Any = "C") -> Array:
    found = Array()
    found.values = _array(raw, kind, shape, fortran=order == "F")
    return found


BUILDERS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_rest: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_rest: tensor,
    "torch._utils._rebuild_meta_tensor_no_storage": lambda *_rest: Opaque("a tensor without data (device meta)", tensor=True),
    "torch._utils._rebuild_sparse_tensor": lambda *_rest: Opaque("a sparse tensor", tensor=True),
    "torch._utils._rebuild_nested_tensor": lambda *_rest: Opaque("a nested tensor", tensor=True),
    "torch._utils._rebuild_qtensor": lambda *_rest: Opaque("a quantised tensor", tensor=True),
    "torch._tensor._rebuild_from_type_v2": _typed,
    "torch.Size": lambda sizes=(): _sizes(sizes),
    "torch.device": lambda *_rest: Opaque("torch.device"),
    "torch.serialization._get_layout": lambda *_rest: Opaque("torch.layout"),
    "argparse.Namespace": lambda *_rest: Options(),
    "numpy.dtype": lambda name, *_flags: Kind(name),
    "numpy.core.multiarray._reconstruct": lambda *_rest: Array(),
    "numpy._core.multiarray._reconstruct": lambda *_rest: Array(),
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _frombuffer,
    "numpy._core.numeric._frombuffer": _frombuffer,
    "_codecs.encode": _bytes,
}
"""What a pickle may call, and what is made of it."""

"""Safetensors files: the header is checked entry by entry, so that a damaged file is told by the tensor that is wrong."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gcaudit.checkpoints.tensors import TensorFile
from gcaudit.errors import CheckpointError, printable
from gcaudit.files import ITEM_BYTES, MOST_DIMENSIONS, OpenFile, StorageSpec, TensorSpec

_HEADER_LIMIT = 25 * 2**20
_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "I32": "int32", "U32": "uint32", "I64": "int64",
    "U64": "uint64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "C64": "complex64",
    "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu", "F4": "float4_e2m1fn_x2",
}  # fmt: skip


def _bits(kind: str) -> int:
    """Return the bits of a number; of F4 two are in a byte."""
    return 4 if kind == "F4" else 8 * ITEM_BYTES[_DTYPES[kind]]


def _header(file: OpenFile) -> tuple[dict[str, Any], int]:
    path = file.path
    file.file.seek(0)
    (length,) = struct.unpack("<Q", file.file.read(8))
    if length > min(file.size - 8, _HEADER_LIMIT):
        raise CheckpointError(
            f"{path}: expected a safetensors header within the file's {file.size} bytes, found one that claims {length}; "
            "the file is truncated or damaged, fetch it again"
        )
    try:
        header = json.loads(file.file.read(length), object_pairs_hook=_without_doubles)
    except RecursionError:
        header = None
    except ValueError as error:
        if "twice" in str(error):
            raise _unsound(path, str(error)) from None
        header = None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: expected a JSON safetensors header, found something else; fetch it again") from None
    return header, 8 + length


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _unsound(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: expected a sound safetensors file: {printable(what)}; fetch it again")


def _entry(path: Path, name: str, entry: Any, available: int) -> tuple[int, int, list[int], str]:
    try:
        (start, end), shape, kind = entry["data_offsets"], entry["shape"], entry["dtype"]
        sound = all(type(number) is int and 0 <= number < 2**63 for number in (start, end, *shape)) and isinstance(kind, str)
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound or len(shape) > MOST_DIMENSIONS:
        raise CheckpointError(f"{path}: tensor {name[:80]!r} has no valid dtype, shape and offsets; fetch the file again")
    if end > available:
        raise CheckpointError(
            f"{path}: tensor {name!r} claims bytes up to {end}, the file has {available}; it is truncated, fetch it again"
        )
    if kind not in _DTYPES:
        raise _unsound(path, f"tensor {name!r} is of type {kind[:20]!r}, which is not known")
    numbers = math.prod(shape)
    if (end - start) * 8 != numbers * _bits(kind):
        raise CheckpointError(
            f"{path}: tensor {name!r} of shape {shape} and type {kind} needs {numbers * _bits(kind) // 8} bytes, "
            f"found {end - start}; the file is damaged, fetch it again"
        )
    return start, end, shape, kind


def read_safetensors(file: OpenFile) -> TensorFile:
    """Look at a safetensors file.

    Args:
        file: open.

    Returns:
        Tensors by name, and `arch` when the metadata name an architecture; and where the tensors' data lie.

    Raises:
        CheckpointError: truncated or damaged; the message names the tensor.
    """
    path = file.path
    header, begin = _header(file)
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or any(type(value) is not str for value in metadata.values()):
        raise _unsound(path, "its metadata are no texts by name")
    entries = {name: _entry(path, name, entry, file.size - begin) for name, entry in header.items()}
    content: dict[str, Any] = {}
    spans, place = {}, 0
    for name, (start, end, *_rest) in sorted(entries.items(), key=lambda item: item[1][:2]):
        if start != place:
            raise _unsound(path, f"tensor {name!r} does not begin where the one before it ends")
        place = end
        spans[name] = begin + start, end - start
    if place != file.size - begin:
        raise _unsound(path, f"{file.size - begin - place} bytes belong to no tensor")
    for name, (start, end, shape, kind) in entries.items():
        dtype = _DTYPES[kind]
        sizes = (*shape[:-1], shape[-1] // 2) if kind == "F4" and shape else tuple(shape)
        storage = StorageSpec(name, "uint8", end - start, file)
        content[name] = TensorSpec(storage, dtype, 0, sizes, _strides(sizes))
    return TensorFile(file, "safetensors", content | _arch_in(metadata, content), spans)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    steps, step = [], 1
    for size in reversed(shape):
        steps.append(step)
        step *= max(1, size)
    return tuple(reversed(steps))


def _arch_in(metadata: Mapping[str, str], content: Mapping[str, Any]) -> dict[str, Any]:
    arch = metadata.get("architecture") or metadata.get("arch")
    return {"arch": arch} if arch and "arch" not in content else {}

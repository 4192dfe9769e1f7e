"""Safetensors files: the header is checked by hand first, so that a damaged file is told by the tensor that is wrong."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from gcaudit.errors import CheckpointError, one_line, printable

_HEADER_LIMIT = 100 * 2**20
_DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


def _safetensors_header(path: Path, size: int) -> dict[str, Any]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(size - 8, _HEADER_LIMIT):
            raise CheckpointError(
                f"{path}: expected a safetensors header within the file's {size} bytes, found one that claims {length}; "
                "the file is truncated or damaged, fetch it again"
            )
        raw = file.read(length)
    try:
        header: dict[str, Any] = json.loads(raw)  # it begins with a brace
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path}: expected a JSON safetensors header, found something else; fetch it again") from None
    for name, entry in header.items():
        if name != "__metadata__":
            _check_safetensors_entry(path, name, entry, size - 8 - length)
    return header


def _check_safetensors_entry(path: Path, name: str, entry: Any, available: int) -> None:
    try:
        (start, end), shape, bits = entry["data_offsets"], entry["shape"], _DTYPE_BITS.get(entry["dtype"])
        sound = all(isinstance(number, int) and 0 <= number < 2**63 for number in (start, end, *shape)) and len(shape) <= 64
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise CheckpointError(f"{path}: tensor {name!r} has no valid dtype, shape and offsets; fetch the file again")
    if end > available:
        raise CheckpointError(
            f"{path}: tensor {name!r} claims bytes up to {end}, the file has {available}; it is truncated, fetch it again"
        )
    numbers = math.prod(shape)
    if bits and (end - start) * 8 != numbers * bits:
        raise CheckpointError(
            f"{path}: tensor {name!r} of shape {shape} and type {entry['dtype']} needs {numbers * bits // 8} bytes, "
            f"found {end - start}; the file is damaged, fetch it again"
        )


def read_safetensors(path: Path, size: int) -> Mapping[str, Any]:
    """Read a safetensors file.

    Args:
        path: the file.
        size: its bytes.

    Returns:
        Tensors by name, and `arch` when the metadata name an architecture.

    Raises:
        CheckpointError: truncated or damaged; the message names the tensor.
    """
    header = _safetensors_header(path, size)
    metadata = header.get("__metadata__") or {}
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: expected a sound safetensors file: {printable(one_line(error))}; fetch it again") from None
    arch = metadata.get("architecture") or metadata.get("arch")
    return {**tensors, **({"arch": arch} if isinstance(arch, str) and "arch" not in tensors else {})}

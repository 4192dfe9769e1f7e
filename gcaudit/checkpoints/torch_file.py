"""Files of `torch.save`, read as data: nothing in them is imported or called, and torch's own unpickler is not asked."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gcaudit.checkpoints.tensors import TensorFile
from gcaudit.errors import CheckpointError, shorten
from gcaudit.files import ITEM_BYTES, OpenFile, PickleError, PickleReader, StorageSpec, open_zip

LEGACY_NUMBER = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The number that files begin with, whatever the protocol of their pickles."""
RESAVE = "re-save the weights where the model's code is: torch.save(model.state_dict(), 'weights.pt')"
_LONGEST_PICKLE = 2**28
_ACTING = frozenset(
    {
        "os",
        "posix",
        "nt",
        "ntpath",
        "posixpath",
        "subprocess",
        "sys",
        "builtins",
        "__builtin__",
        "importlib",
        "imp",
        "runpy",
        "code",
        "pty",
    }
    | {
        "codeop",
        "ctypes",
        "socket",
        "shutil",
        "pickle",
        "_pickle",
        "cPickle",
        "dill",
        "cloudpickle",
        "joblib",
        "marshal",
        "inspect",
    }
    | {"operator", "_operator", "webbrowser", "urllib", "requests", "http", "ftplib", "asyncio", "commands", "popen2", "bdb", "pdb"}
    | {"timeit", "cProfile", "profile", "trace", "pip", "setuptools"}
)
"""Modules whose names no training script saves beside weights."""
_PLAIN_BUILTINS = frozenset(
    f"{module}.{name}"
    for module in ("builtins", "__builtin__")
    for name in (
        "set",
        "frozenset",
        "slice",
        "complex",
        "range",
        "bytearray",
        "list",
        "dict",
        "tuple",
        "int",
        "float",
        "str",
        "bool",
    )
)


def _read_pickle(file: OpenFile, stream: Any, size: int) -> tuple[Any, PickleReader]:
    """Read a pickle; what it wants to import is told even of a damaged one."""
    reader = PickleReader(stream, min(size, _LONGEST_PICKLE), file)
    try:
        content = reader.read()
    except PickleError as error:
        if reader.foreign:
            raise needs_code(file.path, reader.foreign, "a pickle") from None
        raise _damaged(file.path, str(error)) from None
    return content, reader


def imports_of(file: OpenFile) -> list[str]:
    """List what a bare pickle wants to import.

    Args:
        file: open.

    Returns:
        Dotted names in their order, as far as the pickle can be read.
    """
    file.file.seek(0)
    reader = PickleReader(file.file, min(file.size, _LONGEST_PICKLE))
    with suppress(PickleError):
        reader.read()
    return reader.foreign


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: expected a sound torch.save file: {what}; it is damaged, fetch it again")


def needs_code(path: Path, imports: list[str], what: str) -> CheckpointError:
    """Make the refusal of a file that needs code to load.

    Args:
        path: the file.
        imports: what it wants to import.
        what: it is.

    Returns:
        The error to raise.
    """
    wanted = list(dict.fromkeys(imports))
    named = f" that wants to import {shorten(wanted, 8)}" if wanted else ""
    return CheckpointError(
        f"{path}: refused: expected tensors alone, found {what}{named}; gcaudit runs no code from files, {RESAVE}"
    )


def read_torch_zip(file: OpenFile) -> TensorFile:
    """Look at a zip file of `torch.save`.

    Args:
        file: open.

    Returns:
        What was saved, and where the tensors' data lie.

    Raises:
        CheckpointError: it needs code, is damaged, or is another kind of zip.
    """
    path = file.path
    try:
        with open_zip(file.file) as archive:
            entries = archive.infolist()
            records = {entry.filename: entry for entry in entries}
            root = next(iter(records), "").partition("/")[0]
            _check_kind(path, [name.removeprefix(f"{root}/") for name in records])
            if len({name.lower() for name in records}) < len(entries):
                raise CheckpointError(f"{path}: refused: the archive holds two records of one name; {RESAVE}")
            packed = any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries)
            if packed or sum(entry.file_size for entry in entries) > file.size:
                raise CheckpointError(f"{path}: refused: expected records stored as they are, found packed ones; {RESAVE}")
            pickled = archive.read(records[f"{root}/data.pkl"])
            order = archive.read(records[f"{root}/byteorder"])[:8] if f"{root}/byteorder" in records else b"little"
        spans = {
            name.removeprefix(f"{root}/data/"): (_start(file, entry), entry.file_size)
            for name, entry in records.items()
            if name.startswith(f"{root}/data/")
        }
    except CheckpointError:
        raise
    except Exception:  # a damaged archive raises more than BadZipFile
        raise CheckpointError(f"{path}: expected a torch.save file, found a truncated or damaged zip; fetch it again") from None
    content, reader = _read_pickle(file, io.BytesIO(pickled), len(pickled))
    _check_names(path, reader.foreign)
    for key, claimed in _claims(reader.storages).items():
        if key not in spans or claimed > spans[key][1]:
            found = spans[key][1] if key in spans else "none"
            raise _damaged(path, f"tensor data {key!r} claim {claimed} bytes, the file has {found}")
    saved = _dict_in(path, content, reader.foreign)
    return TensorFile(file, "torch.save (zip)", saved, spans, order == b"big", reader.foreign)


def _start(file: OpenFile, entry: zipfile.ZipInfo) -> int:
    """Find the first byte of a record, which is behind a header of its own."""
    file.file.seek(entry.header_offset)
    header = file.file.read(30)
    name, extra = struct.unpack("<HH", header[26:30])
    start = entry.header_offset + 30 + int(name) + int(extra)
    if header[:4] != b"PK\x03\x04" or start + entry.file_size > file.size:
        raise zipfile.BadZipFile
    return start


def _check_kind(path: Path, names: list[str]) -> None:
    """Refuse the other kinds of zip that people have."""
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise needs_code(path, [], "a TorchScript program")
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        raise needs_code(path, [], "an exported program (.pt2)")
    if "data.pkl" not in names:
        what = "a NumPy .npz archive" if any(name.endswith(".npy") for name in names) else "another zip archive"
        raise CheckpointError(f"{path}: expected safetensors or a torch.save file, found {what}")


def _claims(storages: Sequence[StorageSpec]) -> dict[str, int]:
    """Return the bytes that each storage claims at most."""
    claims: dict[str, int] = {}
    for storage in storages:
        claims[storage.key] = max(storage.bytes, claims.get(storage.key, 0))
    return claims


def read_torch_legacy(file: OpenFile) -> TensorFile:
    """Look at a file of `torch.save` as it was before torch 1.6.

    Args:
        file: open.

    Returns:
        What was saved, and where the tensors' data lie.

    Raises:
        CheckpointError: it needs code or is damaged.
    """
    path, foreign, parts, storages = file.path, [], [], []
    file.file.seek(0)
    for _ in range(5):  # magic number, protocol, system, what was saved, keys of the tensor data
        content, reader = _read_pickle(file, file.file, file.size - file.file.tell())
        parts.append(content)
        foreign += reader.foreign
        storages += reader.storages
    _check_names(path, foreign)
    system, saved, keys = parts[2:]
    kinds = {storage.key: storage for storage in storages}
    if not isinstance(keys, list) or any(type(key) is not str for key in keys) or set(keys) != kinds.keys():
        raise _damaged(path, "its tensors and the data that follow disagree")
    claims, spans = _claims(storages), {}
    if sum(claims.values()) > file.size:
        raise _damaged(path, f"tensor data claim {sum(claims.values())} bytes, the file has {file.size}")
    for key in keys:
        (numbers,) = struct.unpack("<q", file.file.read(8).ljust(8, b"\xff"))
        size = numbers * ITEM_BYTES[kinds[key].dtype]
        start = file.file.tell()
        if numbers < 0 or size < claims[key] or start + size > file.size:
            raise _damaged(path, f"tensor data {key!r} claim {claims[key]} bytes, the file has fewer")
        spans[key] = start, size
        file.file.seek(start + size)
    swapped = isinstance(system, Mapping) and system.get("little_endian") is False
    return TensorFile(file, "torch.save (legacy)", _dict_in(path, saved, foreign), spans, swapped, foreign)


def _check_names(path: Path, foreign: list[str]) -> None:
    """Refuse what no training script saves: names of code that acts on the machine. Other names are opaque values, and nothing is built of them."""
    if any(name.partition(".")[0] in _ACTING and name not in _PLAIN_BUILTINS for name in foreign):
        raise needs_code(path, foreign, "a pickle")


def _dict_in(path: Path, content: Any, foreign: list[str]) -> Mapping[str, Any]:
    if isinstance(content, dict):
        return content
    if foreign:
        raise needs_code(path, foreign, "a pickle")
    what = {"TensorSpec": "Tensor", "Array": "ndarray"}.get(type(content).__name__, type(content).__name__)
    raise CheckpointError(f"{path}: expected a dict of tensors, found a {what}; {RESAVE}")

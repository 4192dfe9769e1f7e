"""Files of `torch.save`: scanned without importing anything, then read with `weights_only=True`.

The scan finds what a pickle wants to import, for the refusal, and storages that claim more bytes than the file has, which
torch does not notice when it maps memory.
"""

from __future__ import annotations

import argparse
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from gcaudit.errors import CheckpointError, one_line, shorten

LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
RESAVE = "re-save the weights where the model's code is: torch.save(model.state_dict(), 'weights.pt')"
_PICKLE_LIMIT = 256 * 2**20


class _Inert:
    """Stands for whatever a pickle names: accepts every operation of the pickle machine and does nothing."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass

    def __call__(self, *_args: Any, **_kwargs: Any) -> _Inert:
        return self

    def append(self, _value: Any) -> None:
        pass

    def extend(self, _values: Any) -> None:
        pass

    def add(self, _value: Any) -> None:
        pass


class _Scanner(pickle.Unpickler):
    """Walks a pickle without importing anything; records what it names and which storages it claims."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.imports: list[str] = []
        self.storages: dict[str, tuple[str, int]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        self.imports.append(f"{module}.{name}")
        return type(name, (_Inert,), {"__module__": module})

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage":
            kind = pid[1].__name__ if isinstance(pid[1], type) else "UntypedStorage"
            self.storages[str(pid[2])] = (kind, int(pid[4]))
        return _Inert()


_STORAGE_BYTES = {
    "DoubleStorage": 8, "LongStorage": 8, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16, "FloatStorage": 4,
    "IntStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "ShortStorage": 2,
}  # fmt: skip

_ALLOWED = [argparse.Namespace, np.dtype, type(np.float64(0)), type(np.float32(0)), type(np.int64(0))]
_ALLOWED += [type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "?")]
_NUMPY_SCALAR = np.float64(0).__reduce__()[0]


def _safe_globals() -> list[Any]:
    """Plain containers of numbers and options that training scripts save beside the weights."""
    return [*_ALLOWED, _NUMPY_SCALAR, (_NUMPY_SCALAR, "numpy.core.multiarray.scalar")]


def _scan(file: IO[bytes], path: Path) -> _Scanner:
    scanner = _Scanner(file)
    try:
        scanner.load()
    except (MemoryError, RecursionError):
        raise CheckpointError(f"{path}: the pickle inside is too large or too deep to be a checkpoint; {RESAVE}") from None
    except Exception as error:  # a hostile pickle may raise anything at all
        if not scanner.imports:
            raise CheckpointError(f"{path}: expected a torch.save file, found a damaged pickle ({one_line(error)})") from None
    return scanner


def scan_stream(path: Path, streams: int) -> _Scanner:
    """Scan one of several pickles that follow each other in a file.

    Args:
        path: the file.
        streams: number of the pickle, from 1.

    Returns:
        The scan, with `imports` and `storages`.
    """
    with path.open("rb") as file:
        for _ in range(streams - 1):
            _scan(file, path)
        return _scan(file, path)


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


def read_torch_zip(path: Path) -> Mapping[str, Any]:
    """Read a zip file of `torch.save`, mapping memory where possible.

    Args:
        path: the file.

    Returns:
        What was saved.

    Raises:
        CheckpointError: it needs code, is damaged, or is another kind of zip.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = {entry.filename: entry for entry in archive.infolist()}
            names = [name for name in records if name.endswith("/data.pkl")]
            roots = {name.split("/", 1)[-1].split("/")[0] for name in records}
            if "constants.pkl" in roots or "code" in roots:
                raise needs_code(path, [], "a TorchScript program")
            if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in records):
                raise needs_code(path, [], "an exported program (.pt2)")
            if not names:
                what = "a NumPy .npz archive" if any(name.endswith(".npy") for name in records) else "another zip archive"
                raise CheckpointError(f"{path}: expected safetensors or a torch.save file, found {what}")
            entry = records[names[0]]
            if sum(record.file_size for record in records.values()) > path.stat().st_size or entry.file_size > _PICKLE_LIMIT:
                raise CheckpointError(f"{path}: refused: the archive inflates to more bytes than the file has; {RESAVE}")
            with archive.open(entry) as file:
                scanner = _scan(file, path)
            _check_storages(path, scanner, names[0].removesuffix("data.pkl"), records)
    except zipfile.BadZipFile:
        raise CheckpointError(f"{path}: expected a torch.save file, found a truncated or damaged zip; fetch it again") from None
    return _load_weights(path, scanner, mmap=True)


def _check_storages(path: Path, scanner: _Scanner, root: str, records: Mapping[str, zipfile.ZipInfo]) -> None:
    for key, (kind, numbers) in scanner.storages.items():
        record = records.get(f"{root}data/{key}")
        claimed = numbers * _STORAGE_BYTES.get(kind, 1)
        if record is None or claimed > record.file_size:
            found = "none" if record is None else str(record.file_size)
            raise CheckpointError(
                f"{path}: the tensor data {key!r} claims {claimed} bytes, the file has {found}; it is damaged, fetch it again"
            )


def read_torch_legacy(path: Path) -> Mapping[str, Any]:
    """Read a file of `torch.save` as it was before torch 1.6.

    Args:
        path: the file.

    Returns:
        What was saved.

    Raises:
        CheckpointError: it needs code or is damaged.
    """
    return _load_weights(path, scan_stream(path, streams=4), mmap=False)


def _load_weights(path: Path, scanner: _Scanner, *, mmap: bool) -> Mapping[str, Any]:
    try:
        with torch.serialization.safe_globals(_safe_globals()), path.open("rb") as file:
            # torch.load believes a .safetensors suffix, and maps memory from a path alone
            mmap = mmap and path.suffix != ".safetensors"
            content = torch.load(path if mmap else file, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        foreign = [name for name in scanner.imports if not _is_plain(name)]
        if foreign:
            raise needs_code(path, foreign, "a pickle") from None
        raise CheckpointError(f"{path}: expected tensors alone: {one_line(error)}; {RESAVE}") from None
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error) as error:
        raise CheckpointError(f"{path}: expected a sound torch.save file: {one_line(error)}; fetch it again") from None
    if isinstance(content, Mapping):
        return content
    raise CheckpointError(f"{path}: expected a dict of tensors, found a {type(content).__name__}; {RESAVE}")


def _is_plain(name: str) -> bool:
    """Tell names that torch's weights-only loader knows from foreign ones, to list only the latter."""
    plain = ("torch._utils._rebuild", "torch.storage.", "argparse.Namespace", "numpy.dtype", "_codecs.encode")
    return name.startswith(plain) or name.endswith(("Storage", "multiarray.scalar")) or name == "torch.Size"

"""Files of `torch.save`: scanned without importing anything, then read with `weights_only=True`.

The scan finds what a pickle wants to import, for the refusal, and storages that claim more bytes than the file has, which
torch does not notice when it maps memory.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from gcaudit.errors import CheckpointError, one_line, printable, shorten

LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
RESAVE = "re-save the weights where the model's code is: torch.save(model.state_dict(), 'weights.pt')"


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


class _Scanner(pickle._Unpickler):  # the C one fills as much memory as a damaged memo index asks for
    """Walks a pickle without importing anything; records what it names and which storages it claims."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.imports: list[str] = []
        self.storages: dict[str, int] = {}
        self.content: Any = None
        self.damage: str | None = None

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        self.imports.append(printable(f"{module}.{name}"[:80]))
        return type(name, (_Inert,), {"__module__": module})

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage":
            _, kind, key, _, numbers = pid[:5]
            if not (isinstance(key, str) and isinstance(numbers, int) and numbers >= 0):
                raise pickle.UnpicklingError("tensor data without a name or size")
            claimed = numbers * _STORAGE_BYTES.get(getattr(kind, "__name__", ""), 1)
            self.storages[key] = max(claimed, self.storages.get(key, 0))
        elif isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module":  # how old files name a class
            return pid[1]
        return _Inert()


_STORAGE_BYTES = {
    "DoubleStorage": 8, "LongStorage": 8, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16, "FloatStorage": 4,
    "IntStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "ShortStorage": 2,
}  # fmt: skip


class _Kind:
    """Stands for `numpy.dtype`, whose own `__setstate__` crashes on a damaged state."""

    def __init__(self, name: Any, *_flags: Any) -> None:
        self.name, self.order = name if isinstance(name, str) else "", "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if isinstance(state[1], str) else "?"


def _number(kind: Any, raw: Any) -> Any:
    """Make a plain number of what NumPy writes for its scalars; None for other things than numbers."""
    if isinstance(kind, _Kind) and isinstance(raw, bytes) and re.fullmatch("[fiub][1248]", kind.name) and kind.order in "<>=|":
        return np.frombuffer(raw, f"{kind.order}{kind.name}", 1)[0].item()
    return None


# plain containers of numbers and options that training scripts save beside the weights
_ALLOWED: list[Any] = [
    argparse.Namespace, (_Kind, "numpy.dtype"), (_number, "numpy.core.multiarray.scalar"), (_number, "numpy._core.multiarray.scalar"),
]  # fmt: skip


def _scan(file: IO[bytes], path: Path) -> _Scanner:
    scanner = _Scanner(file)
    try:
        scanner.content = scanner.load()
    except (MemoryError, RecursionError):
        raise CheckpointError(f"{path}: the pickle inside is too large or too deep to be a checkpoint; {RESAVE}") from None
    except Exception as error:  # a hostile pickle may raise anything at all
        scanner.damage = one_line(error)
    return scanner


def imports_of(path: Path) -> list[str]:
    """List what a bare pickle wants to import.

    Args:
        path: the file.

    Returns:
        Dotted names in their order, as far as the pickle can be read.
    """
    with path.open("rb") as file:
        return _scan(file, path).imports


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
            entries = archive.infolist()
            records = {entry.filename: entry for entry in entries}
            root = next(iter(records), "").partition("/")[0]
            _check_kind(path, [name.removeprefix(f"{root}/") for name in records])
            if len({name.lower() for name in records}) < len(entries):
                raise CheckpointError(f"{path}: refused: the archive holds two records of one name; {RESAVE}")
            packed = any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries)
            if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise CheckpointError(f"{path}: refused: expected records stored as they are, found packed ones; {RESAVE}")
            with archive.open(records[f"{root}/data.pkl"]) as file:
                scanner = _scan(file, path)
    except CheckpointError:
        raise
    except Exception:  # a damaged archive raises more than BadZipFile
        raise CheckpointError(f"{path}: expected a torch.save file, found a truncated or damaged zip; fetch it again") from None
    for key, claimed in scanner.storages.items():
        record = records.get(f"{root}/data/{key}")
        if record is None or claimed > record.file_size:
            found = "none" if record is None else str(record.file_size)
            raise _damaged(path, f"tensor data {key!r} claim {claimed} bytes, the file has {found}")
    return _load_weights(path, scanner, mmap=True)


def _check_kind(path: Path, names: list[str]) -> None:
    """Refuse the other kinds of zip that people have."""
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise needs_code(path, [], "a TorchScript program")
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        raise needs_code(path, [], "an exported program (.pt2)")
    if "data.pkl" not in names:
        what = "a NumPy .npz archive" if any(name.endswith(".npy") for name in names) else "another zip archive"
        raise CheckpointError(f"{path}: expected safetensors or a torch.save file, found {what}")


def read_torch_legacy(path: Path) -> Mapping[str, Any]:
    """Read a file of `torch.save` as it was before torch 1.6.

    Args:
        path: the file.

    Returns:
        What was saved.

    Raises:
        CheckpointError: it needs code or is damaged.
    """
    with path.open("rb") as file:
        scans = [_scan(file, path) for _ in range(5)]  # magic number, protocol, system, what was saved, keys of the tensor data
    saved, keys = scans[3], scans[4].content
    if not saved.damage:
        if not isinstance(keys, list) or {str(key) for key in keys} != saved.storages.keys():
            raise _damaged(path, "its tensors and the data that follow disagree")
        if sum(saved.storages.values()) > path.stat().st_size:
            claimed = sum(saved.storages.values())
            raise _damaged(path, f"tensor data claim {claimed} bytes, the file has {path.stat().st_size}")
    return _load_weights(path, saved, mmap=False)


def _load_weights(path: Path, scanner: _Scanner, *, mmap: bool) -> Mapping[str, Any]:
    foreign = [name for name in scanner.imports if not _is_plain(name)]
    if scanner.damage and not foreign:
        raise _damaged(path, scanner.damage)
    try:
        with torch.serialization.safe_globals(_ALLOWED), path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old storages and pickle protocols
            # torch.load believes a .safetensors suffix, and maps memory from a path alone
            mmap = mmap and path.suffix != ".safetensors"
            content = torch.load(path if mmap else file, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        if foreign:
            raise needs_code(path, foreign, "a pickle") from None
        # torch's own text tells people to load without weights_only; its reason is one sentence of it
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().split(". ")[0].split("\n")[0]
        raise CheckpointError(
            f"{path}: expected tensors alone, found what torch refuses: {printable(reason[:160])}; {RESAVE}"
        ) from None
    except Exception as error:  # a damaged file may raise anything at all
        raise _damaged(path, one_line(error)) from None
    if scanner.damage:
        raise _damaged(path, scanner.damage)
    if isinstance(content, Mapping):
        return content
    raise CheckpointError(f"{path}: expected a dict of tensors, found a {type(content).__name__}; {RESAVE}")


def _is_plain(name: str) -> bool:
    """Tell names that torch's weights-only loader knows from foreign ones, to list only the latter."""
    plain = ("torch._utils._rebuild", "torch.storage.", "argparse.Namespace", "numpy.dtype", "_codecs.encode", "torch.Size")
    of_numpy = name.startswith("numpy.") and name.endswith("multiarray.scalar")
    return name.startswith(plain) or of_numpy or (name.startswith("torch.") and name.endswith("Storage"))

"""Untrusted bytes in, named tensors and hints out. Nothing in a checkpoint is ever executed.

The content decides the format, never the suffix. Safetensors and `torch.save` files are read, the latter with `weights_only=True`
after an inert scan that also catches storages larger than the file. Files that need code to load (pickled modules, TorchScript,
`torch.export`) are refused with the list of what they wanted to import.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gcaudit.errors import CheckpointError, shorten

PLAIN_CONTAINERS = ("state_dict", "model", "net", "network", "module")
EMA_CONTAINERS = ("state_dict_ema", "model_ema", "ema_state_dict")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".th", ".tar")

_HEADER_LIMIT = 100 * 2**20
_PICKLE_LIMIT = 256 * 2**20
_LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
_RESAVE = "re-save the weights where the model's code is: torch.save(model.state_dict(), 'weights.pt')"
_FOREIGN = {
    b"\x89HDF": "an HDF5 (Keras) file",
    b"GGUF": "a GGUF file",
    b"version https://git-lfs": "a Git LFS pointer, not the weights; run git lfs pull",
    b"<!DO": "an HTML page; the download went wrong",
    b"<htm": "an HTML page; the download went wrong",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"7z\xbc\xaf": "a 7-Zip archive; unpack it first",
}
_DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@final
@dataclass(frozen=True)
class Hints:
    """What a checkpoint says of itself.

    Attributes:
        arch: architecture name, with or without a `timm:` or `torchvision:` prefix.
        arch_args: arguments of the architecture (in_chans, img_size, ...).
        preprocessing: input_size, mean, std, interpolation, crop_pct, as far as they are given.
        source: where that was found.
    """

    arch: str | None = None
    arch_args: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None


@final
@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read and checked.

    Attributes:
        path: as given.
        format: what the bytes are.
        tensors: name to tensor, all finite.
        container: the key the tensors lay under, None for the dict itself.
        other_containers: further keys that hold weights and were not taken.
        hints: architecture and preprocessing, as far as the file tells.
        sha256: of the file's bytes; of a folder, of its weight files' digests in order.
        bytes: size of the weight files.
    """

    path: Path
    format: str
    tensors: Mapping[str, Tensor]
    container: str | None
    other_containers: tuple[str, ...]
    hints: Hints
    sha256: str
    bytes: int


def read_checkpoint(path: str | Path, *, ema: bool = False) -> Checkpoint:
    """Read a checkpoint file, or a folder with `config.json` and weights.

    Args:
        path: the file or folder.
        ema: take the exponential moving average of the weights where the file has one.

    Returns:
        The tensors, still unmatched to any architecture.

    Raises:
        CheckpointError: missing, empty, truncated, damaged or unsafe file, no tensors, NaN or inf weights.
    """
    place = Path(path)
    try:
        if place.is_dir():
            return _read_folder(place, ema)
        content, kind = _read_file(place)
        container, tensors, others = _choose_container(content, place, ema)
        _check_finite(tensors, place)
        hints = _hints_of(content)
        return Checkpoint(place, kind, tensors, container, others, hints, _sha256(place), place.stat().st_size)
    except FileNotFoundError:
        raise CheckpointError(f"expected a checkpoint at {place}, found nothing there; check the path") from None
    except OSError as error:
        raise CheckpointError(f"expected a readable checkpoint at {place}: {error.strerror or error}") from None


def _read_file(path: Path) -> tuple[Mapping[str, Any], str]:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(64)
    if not size:
        raise CheckpointError(f"{path}: expected a checkpoint, found an empty file; fetch or save it again")
    if start[:4] == b"PK\x03\x04":
        return _read_torch_zip(path), "torch.save (zip)"
    if start.startswith(_LEGACY_MAGIC):
        return _read_torch_legacy(path), "torch.save (legacy)"
    if len(start) > 8 and start[8:9] == b"{":
        return _read_safetensors(path, size), "safetensors"
    if start[:1] == b"\x80":
        names = _scan_stream(path, streams=1).imports
        raise _needs_code(path, names, "a bare pickle")
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            raise CheckpointError(f"{path}: expected safetensors or a torch.save file, found {what}")
    raise CheckpointError(
        f"{path}: expected safetensors or a torch.save file, found bytes {start[:8].hex(' ')} of neither; "
        "convert it with safetensors.torch.save_file(model.state_dict(), ...)"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- safetensors ---------------------------------------------------------------------------------------------------


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
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path}: expected a JSON safetensors header, found something else; fetch it again") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: expected a safetensors header with named tensors, found a {type(header).__name__}")
    for name, entry in header.items():
        if name != "__metadata__":
            _check_safetensors_entry(path, name, entry, size - 8 - length)
    return header


def _check_safetensors_entry(path: Path, name: str, entry: Any, available: int) -> None:
    try:
        start, end = entry["data_offsets"]
        numbers, bits = math.prod(entry["shape"]), _DTYPE_BITS.get(entry["dtype"])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path}: tensor {name!r} has no valid dtype, shape and offsets; fetch the file again") from None
    if end > available:
        raise CheckpointError(
            f"{path}: tensor {name!r} claims bytes up to {end}, the file has {available}; it is truncated, fetch it again"
        )
    if bits and (end - start) * 8 != numbers * bits:
        raise CheckpointError(
            f"{path}: tensor {name!r} of shape {entry['shape']} and type {entry['dtype']} needs {numbers * bits // 8} bytes, "
            f"found {end - start}; the file is damaged, fetch it again"
        )


def _read_safetensors(path: Path, size: int) -> Mapping[str, Any]:
    header = _safetensors_header(path, size)
    metadata = header.get("__metadata__") or {}
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: expected a sound safetensors file: {_one_line(error)}; fetch it again") from None
    arch = metadata.get("architecture") or metadata.get("arch")
    return {**tensors, **({"arch": arch} if isinstance(arch, str) and "arch" not in tensors else {})}


# --- torch.save ------------------------------------------------------------------------------------------------------


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
        raise CheckpointError(f"{path}: the pickle inside is too large or too deep to be a checkpoint; {_RESAVE}") from None
    except Exception as error:  # a hostile pickle may raise anything at all
        if not scanner.imports:
            raise CheckpointError(f"{path}: expected a torch.save file, found a damaged pickle ({_one_line(error)})") from None
    return scanner


def _scan_stream(path: Path, streams: int) -> _Scanner:
    with path.open("rb") as file:
        for _ in range(streams - 1):
            _scan(file, path)
        return _scan(file, path)


def _needs_code(path: Path, imports: list[str], what: str) -> CheckpointError:
    wanted = list(dict.fromkeys(imports))
    named = f" that wants to import {shorten(wanted, 8)}" if wanted else ""
    return CheckpointError(f"{path}: refused: expected tensors alone, found {what}{named}; gcaudit runs no code from files, {_RESAVE}")


def _read_torch_zip(path: Path) -> Mapping[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            records = {entry.filename: entry for entry in archive.infolist()}
            names = [name for name in records if name.endswith("/data.pkl")]
            roots = {name.split("/", 1)[-1].split("/")[0] for name in records}
            if "constants.pkl" in roots or "code" in roots:
                raise _needs_code(path, [], "a TorchScript program")
            if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in records):
                raise _needs_code(path, [], "an exported program (.pt2)")
            if not names:
                what = "a NumPy .npz archive" if any(name.endswith(".npy") for name in records) else "another zip archive"
                raise CheckpointError(f"{path}: expected safetensors or a torch.save file, found {what}")
            entry = records[names[0]]
            if sum(record.file_size for record in records.values()) > path.stat().st_size or entry.file_size > _PICKLE_LIMIT:
                raise CheckpointError(f"{path}: refused: the archive inflates to more bytes than the file has; {_RESAVE}")
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


def _read_torch_legacy(path: Path) -> Mapping[str, Any]:
    return _load_weights(path, _scan_stream(path, streams=4), mmap=False)


def _load_weights(path: Path, scanner: _Scanner, *, mmap: bool) -> Mapping[str, Any]:
    try:
        with torch.serialization.safe_globals(_safe_globals()), path.open("rb") as file:
            # torch.load believes a .safetensors suffix, and maps memory from a path alone
            mmap = mmap and path.suffix != ".safetensors"
            content = torch.load(path if mmap else file, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        foreign = [name for name in scanner.imports if not _is_plain(name)]
        if foreign:
            raise _needs_code(path, foreign, "a pickle") from None
        raise CheckpointError(f"{path}: expected tensors alone: {_one_line(error)}; {_RESAVE}") from None
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error) as error:
        raise CheckpointError(f"{path}: expected a sound torch.save file: {_one_line(error)}; fetch it again") from None
    if isinstance(content, Mapping):
        return content
    raise CheckpointError(f"{path}: expected a dict of tensors, found a {type(content).__name__}; {_RESAVE}")


def _is_plain(name: str) -> bool:
    """Tell names that torch's weights-only loader knows from foreign ones, to list only the latter."""
    plain = ("torch._utils._rebuild", "torch.storage.", "argparse.Namespace", "numpy.dtype", "_codecs.encode")
    return name.startswith(plain) or name.endswith(("Storage", "multiarray.scalar")) or name == "torch.Size"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:160] + "..." if len(text) > 160 else text or type(error).__name__


# --- what is inside --------------------------------------------------------------------------------------------------


def _tensors_in(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _choose_container(
    content: Mapping[str, Any], path: Path, ema: bool
) -> tuple[str | None, dict[str, Tensor], tuple[str, ...]]:
    found = {name: _tensors_in(content.get(name)) for name in (*EMA_CONTAINERS, *PLAIN_CONTAINERS)}
    found = {name: tensors for name, tensors in found.items() if tensors}
    order = (*EMA_CONTAINERS, *PLAIN_CONTAINERS) if ema else PLAIN_CONTAINERS
    if ema and not any(name in found for name in EMA_CONTAINERS):
        raise CheckpointError(f"{path}: expected averaged weights under {', '.join(EMA_CONTAINERS)}, found none; drop --ema")
    chosen = next((name for name in order if name in found), None)
    if chosen is not None:
        return chosen, found[chosen], tuple(name for name in found if name != chosen)
    tensors = _tensors_in(content)
    if tensors:
        return None, tensors, tuple(found)
    if found:
        raise CheckpointError(f"{path}: expected plain weights, found only averaged ones under {next(iter(found))}; add --ema")
    keys = shorten([str(key) for key in content]) or "nothing"
    raise CheckpointError(f"{path}: expected a dict of tensors, found no tensors but {keys}; {_RESAVE}")


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_sparse or tensor.is_quantized:
            continue
        values = tensor.to(torch.float32) if tensor.element_size() < 2 else tensor
        if not bool(torch.isfinite(values).all()):
            bad = int((~torch.isfinite(values)).sum())
            raise CheckpointError(f"{path}: expected finite weights, found {bad} NaN or inf in tensor {name!r}; the training broke")


def _plain_dict(value: Any) -> dict[str, Any]:
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


_PREPROCESSING = ("input_size", "img_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")


def _preprocessing_in(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: config[key] for key in _PREPROCESSING if config.get(key) is not None}
    side = found.pop("img_size", None)
    if side is not None and "input_size" not in found:
        sides = list(side) if isinstance(side, list | tuple) else [side, side]
        found["input_size"] = [int(config.get("in_chans") or 3), *sides[:2]]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def _hints_of(content: Mapping[str, Any]) -> Hints:
    args = _plain_dict(content.get("args"))
    arch, source = content.get("arch"), "arch"
    if not isinstance(arch, str):
        arch, source = args.get("model"), "args.model"
    arch_args = _plain_dict(args.get("model_kwargs"))
    if isinstance(args.get("in_chans"), int):
        arch_args["in_chans"] = args["in_chans"]
    if not isinstance(arch, str):
        return Hints(None, arch_args, _preprocessing_in(args))
    return Hints(arch, arch_args, _preprocessing_in(args), f"the checkpoint's {source}")


# --- folders ---------------------------------------------------------------------------------------------------------

_SINGLE = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_INDEX = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected JSON: {_one_line(error)}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found a {type(content).__name__}")
    return content


def _shards(folder: Path, index: Path) -> list[Path]:
    mapping = _read_json(index).get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise CheckpointError(f"{index}: expected a 'weight_map' from tensor names to files, found none")
    names = list(dict.fromkeys(mapping.values()))
    outside = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if outside:
        raise CheckpointError(f"{index}: expected shards in the same folder, found {outside[0]!r}")
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise CheckpointError(f"{folder}: expected the shards named in {index.name}, missing {shorten(absent)}; fetch them")
    return [folder / name for name in names]


def _weight_files(folder: Path) -> list[Path]:
    for name in _INDEX:
        if (folder / name).is_file():
            return _shards(folder, folder / name)
    for name in _SINGLE:
        if (folder / name).is_file():
            return [folder / name]
    others = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in WEIGHT_SUFFIXES)
    if len(others) == 1:
        return others
    if others:
        names = shorten([path.name for path in others])
        raise CheckpointError(f"{folder}: expected one weight file, found {names}; name the file itself")
    raise CheckpointError(f"{folder}: expected model.safetensors or pytorch_model.bin, found no weights; name a weight file")


def _config_hints(folder: Path) -> Hints:
    path = folder / "config.json"
    if not path.is_file():
        return Hints()
    config = _read_json(path)
    arch = config.get("architecture")
    nested = config.get("pretrained_cfg")
    preprocessing = _preprocessing_in({**config, **(nested if isinstance(nested, dict) else {})})
    arch_args = _plain_dict(config.get("model_args"))
    if not isinstance(arch, str):
        return Hints(None, arch_args, preprocessing)
    return Hints(arch, arch_args, preprocessing, "config.json")


def _read_folder(folder: Path, ema: bool) -> Checkpoint:
    files = _weight_files(folder)
    content: dict[str, Any] = {}
    kinds: set[str] = set()
    for path in files:
        part, kind = _read_file(path)
        content.update(part)
        kinds.add(kind)
    container, tensors, others = _choose_container(content, folder, ema)
    _check_finite(tensors, folder)
    hints = _config_hints(folder)
    hints = hints if hints.arch else _hints_of(content)
    digests = [_sha256(path) for path in files]
    sha256 = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    kind = f"folder of {len(files)} {' and '.join(sorted(kinds))} file{'s' if len(files) > 1 else ''}"
    return Checkpoint(folder, kind, tensors, container, others, hints, sha256, sum(path.stat().st_size for path in files))

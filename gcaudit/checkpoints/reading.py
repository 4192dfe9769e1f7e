"""Reading a checkpoint file or folder.

The content decides the format, never the suffix. Safetensors and `torch.save` files are read as data, by a reader of this project that
imports and calls nothing; files that need code to load (pickled modules, TorchScript, `torch.export`) are refused with the list of what they
wanted to import. Each file is opened once and read once: its digest is of the very bytes that the weights were made of.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import final

from torch import Tensor

from gcaudit.checkpoints.configs import config_hints, read_json
from gcaudit.checkpoints.contents import Chooser, WeightSet, check_finite, choose_container, weight_sets
from gcaudit.checkpoints.hints import Hints, hints_of, small_tensors
from gcaudit.checkpoints.safetensors_file import read_safetensors
from gcaudit.checkpoints.tensors import TensorFile, check_spread, load_tensors
from gcaudit.checkpoints.torch_file import LEGACY_NUMBER, imports_of, needs_code, read_torch_legacy, read_torch_zip
from gcaudit.checkpoints.wrappers import is_tar, open_tar_member, open_zip_member
from gcaudit.errors import CheckpointError, foreign_content, one_line, shorten
from gcaudit.files import OpenFile

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".th", ".tar")


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
        versions: of modules by name, as `state_dict` keeps them; None where they were not saved.
        skipped: names of kinds of values that were not read.
        other_files: further files of a folder that hold weights and were not taken, but for other formats of the customary names.
        hints: architecture and preprocessing, as far as the file tells.
        sha256: of the file's bytes, of an archive those of the file in it; of a folder, of its weight files' digests in order.
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
    other_files: tuple[str, ...] = ()
    versions: Mapping[str, int] | None = None
    skipped: tuple[str, ...] = ()


SetChooser = Callable[[Sequence[WeightSet], Hints], WeightSet]
"""Takes one of several sets of weights, with what the file says of itself."""


def read_checkpoint(path: str | Path, *, ema: bool = False, key: str | None = None, choose: SetChooser | None = None) -> Checkpoint:
    """Read a checkpoint file, or a folder with `config.json` and weights.

    Args:
        path: the file or folder.
        ema: take the exponential moving average of the weights where the file has one.
        key: under which the weights lie; None looks for them.
        choose: takes one of several sets, in their customary order; None takes the first.

    Returns:
        The tensors, still unmatched to any architecture.

    Raises:
        CheckpointError: missing, empty, truncated, damaged or unsafe file, no tensors, NaN or inf weights.
    """
    place = Path(path)
    try:
        how = _How(ema, key, choose)
        return _read_folder(place, how) if place.is_dir() else _read_files(place, [place], how)
    except FileNotFoundError:
        raise CheckpointError(f"expected a checkpoint at {place}, found nothing there; check the path") from None
    except OSError as error:
        raise CheckpointError(f"expected a readable checkpoint at {place}, found {error.strerror or one_line(error)}") from None


def _within(inner: OpenFile, kind: str) -> TensorFile:
    """Look at the file in an archive, which may not be an archive again: some hold themselves."""
    found = _look_at(inner, None)
    return replace(found, format=f"{found.format} in a {kind} archive")


@final
@dataclass(frozen=True)
class _How:
    ema: bool
    key: str | None
    choose: SetChooser | None


def _look_at(file: OpenFile, stack: ExitStack | None) -> TensorFile:
    """Find out by its content what a file is, and what it holds; an archive of one weight file is that file."""
    path, start = file.path, file.file.peek(64)[:64]
    if start[:4] == b"PK\x03\x04":
        inner = open_zip_member(file, WEIGHT_SUFFIXES) if stack is not None else None
        return read_torch_zip(file) if inner is None or stack is None else _within(stack.enter_context(inner), "zip")
    if stack is not None and is_tar(file):
        return _within(stack.enter_context(open_tar_member(file, WEIGHT_SUFFIXES)), "tar")
    if len(start) > 8 and start[8:9] == b"{":
        return read_safetensors(file)
    if LEGACY_NUMBER in start:
        return read_torch_legacy(file)
    if start[:1] == b"\x80":
        raise needs_code(path, imports_of(file), "a bare pickle")
    if (what := foreign_content(start)) is not None:
        raise CheckpointError(f"{path}: expected safetensors or a torch.save file, found {what}")
    raise CheckpointError(
        f"{path}: expected safetensors or a torch.save file, found bytes {start[:8].hex(' ')} of neither; "
        "convert it with safetensors.torch.save_file(model.state_dict(), ...)"
    )


def _read_files(place: Path, paths: Sequence[Path], how: _How, said: Hints | None = None) -> Checkpoint:
    """Read the files of one checkpoint: look at them all, choose, and read of each what was chosen while its bytes are digested."""
    with ExitStack() as stack:
        files = [_look_at(stack.enter_context(OpenFile(path)), stack) for path in paths]
        whole = {name: value for file in files for name, value in file.content.items()}
        content = files[0].content if len(files) == 1 else whole
        foreign = list(dict.fromkeys(name for file in files for name in file.foreign))
        if foreign and not weight_sets(content):
            raise needs_code(place, foreign, "a pickle")
        choose: Chooser | None = None
        if how.choose is not None:
            told = said if said is not None and said.arch else hints_of(content, {})
            choose = partial(_choose, how.choose, told)
        taken, chosen, others = choose_container(content, place, how.ema, how.key, choose)
        check_spread(chosen, place)
        options = small_tensors(content)
        loaded, digesting = load_tensors(files, [*chosen.values(), *options])
        size = sum(file.file.size for file in files)
    tensors = {name: loaded[spec] for name, spec in chosen.items()}
    check_finite(tensors, place)
    digests = [digest() for digest in digesting]
    hints = hints_of(content, {spec: loaded[spec] for spec in options})
    sha256 = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    kinds = " and ".join(sorted({file.format for file in files}))
    return Checkpoint(
        place, kinds, tensors, taken.key, others, hints, sha256, size, versions=taken.versions, skipped=tuple(foreign)
    )


_SINGLE = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_INDEX = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


_TRAINING_STATE = re.compile(r"(optimizer|scheduler|training_args|rng_state|random_states|scaler|trainer_state)\b|random_states_")
"""What training scripts save beside the weights."""


def _shards(folder: Path, index: Path) -> list[Path]:
    mapping = read_json(index).get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise CheckpointError(f"{index}: expected a 'weight_map' from tensor names to files, found none")
    outside = [name for name in mapping.values() if not isinstance(name, str) or Path(name).name != name or not name.isprintable()]
    if outside:
        raise CheckpointError(f"{index}: expected shards in the same folder, found {outside[0]!r}")
    names = list(dict.fromkeys(mapping.values()))
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


def _other_files(folder: Path, taken: Sequence[Path]) -> tuple[str, ...]:
    """Name the weight files that were not taken; hubs keep the same weights in several formats under customary names."""
    customary = {*_SINGLE, *(name.removesuffix(".index.json") for name in _INDEX), *(path.name for path in taken)}
    shards = re.compile(r"(model|pytorch_model)-\d+-of-\d+\.(safetensors|bin)")
    found = sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix in WEIGHT_SUFFIXES)
    return tuple(name for name in found if name not in customary and not shards.fullmatch(name) and not _TRAINING_STATE.match(name))


def _choose(choose: SetChooser, hints: Hints, sets: Sequence[WeightSet]) -> WeightSet:
    return choose(sets, hints)


def _read_folder(folder: Path, how: _How) -> Checkpoint:
    files = _weight_files(folder)
    said = config_hints(folder)
    found = _read_files(folder, files, how, said)
    kind = f"folder of {len(files)} {found.format} file{'s' if len(files) > 1 else ''}"
    return replace(found, format=kind, hints=said if said.arch else found.hints, other_files=_other_files(folder, files))

"""What is inside a checkpoint: the weights among other things, and hints on the architecture."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from gcaudit.checkpoints.torch_file import RESAVE
from gcaudit.errors import CheckpointError, printable, shorten
from gcaudit.files import Opaque, TensorSpec

PLAIN_CONTAINERS = ("state_dict", "model", "net", "network", "module")
EMA_CONTAINERS = ("state_dict_ema", "model_ema", "ema_state_dict")
_CUSTOMARY = (*PLAIN_CONTAINERS, "model_state_dict", "weights", "params", None, "teacher")
"""Keys of weights that are taken before others, where several fit as well."""
_EMA_WORDS = re.compile(r"(^|[._])(ema|averaged?|swa|shadow)([._]|$)", re.IGNORECASE)
_INNER_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")
"""Names that torch.compile, activation checkpointing and FSDP put anywhere into a name."""
_DEEPEST = 3
_MOST_SETS, _LONGEST_NAME, _MOST_DOTS = 1000, 500, 40


@final
@dataclass(frozen=True, eq=False)
class WeightSet:
    """Tensors that lie together in a checkpoint.

    Attributes:
        key: under which they lie, with dots where it is deeper; None for the file itself.
        tensors: by name, wrappers' names inside of them taken out.
        versions: of modules by name, as `state_dict` keeps them; None where they were not saved.
    """

    key: str | None
    tensors: Mapping[str, TensorSpec | Opaque]
    versions: Mapping[str, int] | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of tensors of floating-point numbers."""
        found = {name: spec for name, spec in self.tensors.items() if isinstance(spec, TensorSpec)}
        return {name: spec.shape for name, spec in found.items() if spec.dtype.startswith(("float", "bfloat"))}

    @property
    def numbers(self) -> int:
        """How many numbers the tensors have."""
        return sum(spec.numbers for spec in self.tensors.values() if isinstance(spec, TensorSpec))

    @property
    def averaged(self) -> bool:
        """Whether its key says that these are averages over training."""
        return self.key is not None and (self.key in EMA_CONTAINERS or _EMA_WORDS.search(self.key) is not None)


Chooser = Callable[[Sequence[WeightSet]], WeightSet]
"""Takes one of several sets."""


def _tensors_in(content: Any) -> dict[str, TensorSpec | Opaque]:
    if not isinstance(content, Mapping):
        return {}
    return {name: value for name, value in content.items() if isinstance(name, str) and _is_tensor(value)}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, TensorSpec) or (isinstance(value, Opaque) and value.tensor)


def _check_kinds(tensors: Mapping[str, TensorSpec | Opaque], path: Path) -> dict[str, TensorSpec]:
    """Refuse tensors of kinds that are not read, and names that would break a line of text."""
    known = {}
    for name, tensor in tensors.items():
        if not name.isprintable():
            raise CheckpointError(f"{path}: expected printable names of tensors, found {ascii(name)[:80]}; {RESAVE}")
        if isinstance(tensor, Opaque):
            raise CheckpointError(f"{path}: expected plain tensors, found {tensor.name} under {name[:80]!r}; {RESAVE}")
        known[name] = tensor
    return known


def _unwrapped(tensors: Mapping[str, TensorSpec | Opaque]) -> dict[str, TensorSpec | Opaque]:
    """Take wrappers' names out of tensors' names, unless two become one."""
    found = {_INNER_WRAPPERS.sub("", name): value for name, value in tensors.items()}
    return found if len(found) == len(tensors) else dict(tensors)


def _versions(content: Mapping[str, Any]) -> dict[str, int] | None:
    metadata = getattr(content, "metadata", None)
    if not isinstance(metadata, Mapping):
        return None
    versions = {name: said.get("version") for name, said in metadata.items() if isinstance(name, str) and isinstance(said, Mapping)}
    return {_INNER_WRAPPERS.sub("", f"{name}.")[:-1]: number for name, number in versions.items() if type(number) is int}


def weight_sets(content: Mapping[str, Any]) -> list[WeightSet]:
    """Find all tensors that lie together under some key, at most three keys deep.

    Args:
        content: what was read.

    Returns:
        The sets, those of the file itself first; a dict in several places is one set.

    Raises:
        CheckpointError: there are far too many, or names are far too long.
    """
    found: list[WeightSet] = []
    seen: set[int] = set()

    def look(place: Mapping[str, Any], key: str | None, depth: int) -> None:
        if id(place) in seen:  # a file may have one dict in a million places
            return
        seen.add(id(place))
        if tensors := _tensors_in(place):
            if len(found) == _MOST_SETS or any(len(name) > _LONGEST_NAME or name.count(".") > _MOST_DOTS for name in tensors):
                raise CheckpointError(
                    f"expected up to {_MOST_SETS} sets of tensors with names of up to {_LONGEST_NAME} characters and {_MOST_DOTS} dots, found more"
                )
            found.append(WeightSet(key, _unwrapped(tensors), _versions(place)))
        for name, value in place.items() if depth else ():
            if isinstance(name, str) and isinstance(value, Mapping):
                look(value, name if key is None else f"{key}.{name}", depth - 1)

    look(content, None, _DEEPEST)
    return found


def _kinds(tensors: Mapping[str, Any]) -> set[tuple[str, tuple[int, ...]]]:
    """Return the ends of tensors' names, which no prefix changes, and their shapes."""
    return {(".".join(name.split(".")[-2:]), getattr(value, "shape", ())) for name, value in tensors.items()}


def _lists_like(content: Mapping[str, Any], tensors: Mapping[str, Any]) -> list[str]:
    """Name the keys, such as `ema.shadow_params`, under which other weights of the same network lie as a list of tensors."""
    found: list[str] = []
    seen: set[int] = set()

    def look(place: Mapping[str, Any], before: str, depth: int) -> None:
        for name, value in place.items():
            if not isinstance(name, str) or not isinstance(value, Mapping | list) or id(value) in seen:
                continue
            seen.add(id(value))
            if isinstance(value, list):
                if len(value) > 1 and 2 * len(value) > len(tensors) and all(map(_is_tensor, value)):
                    found.append(before + name)
            elif depth > 1:
                look(value, f"{before}{name}.", depth - 1)

    look(content, "", _DEEPEST)
    return found


def _customary_order(one: WeightSet) -> tuple[bool, int, int]:
    """Order sets: those under customary keys first, and large ones before small ones."""
    place = _CUSTOMARY.index(one.key) if one.key in _CUSTOMARY else len(_CUSTOMARY)
    bare = not any(isinstance(spec, TensorSpec) and spec.shape for spec in one.tensors.values())
    return bare, place, -one.numbers


def choose_container(
    content: Mapping[str, Any], path: Path, ema: bool, key: str | None = None, choose: Chooser | None = None
) -> tuple[WeightSet, dict[str, TensorSpec], tuple[str, ...]]:
    """Find the weights in a checkpoint.

    Args:
        content: what was read.
        path: for messages.
        ema: take averaged weights.
        key: where they lie; None looks for them.
        choose: takes one of several sets, which stand in their customary order; None takes the first.

    Returns:
        The set, its tensors, and the other keys that hold weights.

    Raises:
        CheckpointError: there are no weights, or not of the kind asked for.
    """
    every = weight_sets(content)
    if not every:
        keys = shorten([ascii(key)[:40] for key in content]) or "nothing"
        raise CheckpointError(f"{path}: expected a dict of tensors, found no tensors but {keys}; {RESAVE}")
    candidates = sorted((one for one in every if one.averaged == ema), key=_customary_order)
    if key is not None:
        candidates = [one for one in every if one.key == key]
        if not candidates:
            told = shorten([printable(one.key or "the file itself")[:80] for one in every], 8)
            raise CheckpointError(
                f"{path}: expected weights under {printable(key[:80])!r}, found some under {told}; see --weights-key"
            )
    elif ema and not candidates:
        raise CheckpointError(f"{path}: expected averaged weights under {', '.join(EMA_CONTAINERS)}, found none; drop --ema")
    elif not candidates or (all(_customary_order(one)[0] for one in candidates) and len(every) > len(candidates)):
        raise CheckpointError(
            f"{path}: expected plain weights, found only averaged ones under {printable(str(every[-1].key))}; add --ema"
        )
    chosen = candidates[0] if choose is None or len(candidates) < 2 else choose(candidates)
    tensors = _check_kinds(chosen.tensors, path)
    own = _kinds(chosen.tensors)
    alike = [one.key or "the file itself" for one in every if one is not chosen and 2 * len(_kinds(one.tensors) & own) > len(own)]
    others = tuple(dict.fromkeys(printable(name)[:80] for name in (*alike, *_lists_like(content, tensors))))
    return chosen, tensors, others


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that are NaN or infinite.

    Args:
        tensors: by name.
        path: for messages.

    Raises:
        CheckpointError: naming the tensor.
    """
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        if tensor.dtype == torch.float4_e2m1fn_x2:  # a type without NaN and inf, nor any arithmetic
            continue
        values = tensor.to(torch.float32) if tensor.element_size() < 2 else tensor
        real = torch.view_as_real(values) if values.is_complex() else values
        # both are NaN where any value is; in one reading of memory
        if real.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(real))).all()):
            bad = int((~torch.isfinite(values)).sum())
            raise CheckpointError(f"{path}: expected finite weights, found {bad} NaN or inf in tensor {name!r}; the training broke")

"""What is inside a checkpoint: the weights among other things, and hints on the architecture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gcaudit.checkpoints.torch_file import RESAVE
from gcaudit.errors import CheckpointError, printable, shorten
from gcaudit.files import Opaque, TensorSpec

WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
"""Prefixes that wrappers around a network put before its names."""
_WRAPPED = re.compile(f"^({'|'.join(map(re.escape, WRAPPERS))})+")
PLAIN_CONTAINERS = ("state_dict", "model", "net", "network", "module")
EMA_CONTAINERS = ("state_dict_ema", "model_ema", "ema_state_dict")
_DEEPEST = 3


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


def _is_like(tensors: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Tell whether most names are the same, wrappers' prefixes apart: these are weights of the same network."""
    names, known = ({_WRAPPED.sub("", name) for name in some} for some in (tensors, others))
    return len(names & known) * 2 > len(known)


def _further_weights(content: Mapping[str, Any], tensors: Mapping[str, Any]) -> list[str]:
    """Name the keys, such as `ema.shadow`, under which other weights of the same network lie: by name, or as a list of as many tensors."""
    found: list[str] = []
    seen: set[int] = set()

    def look(place: Mapping[str, Any], before: str, depth: int) -> None:
        for name, value in place.items():
            if not isinstance(name, str) or not isinstance(value, Mapping | list) or id(value) in seen:
                continue
            seen.add(id(value))  # a file may have one dict in a million places
            if _is_like(_tensors_in(value), tensors) or _is_list_like(value, tensors):
                found.append(before + name)
            elif isinstance(value, Mapping) and depth > 1:
                look(value, f"{before}{name}.", depth - 1)

    look(content, "", _DEEPEST)
    return found


def _is_list_like(value: Any, tensors: Mapping[str, Any]) -> bool:
    return isinstance(value, list) and len(value) > 1 and 2 * len(value) > len(tensors) and all(map(_is_tensor, value))


def choose_container(
    content: Mapping[str, Any], path: Path, ema: bool
) -> tuple[str | None, dict[str, TensorSpec], tuple[str, ...]]:
    """Find the weights in a checkpoint.

    Args:
        content: what was read.
        path: for messages.
        ema: take averaged weights.

    Returns:
        The key they lay under (None: the dict itself), the tensors, and the other keys that hold weights.

    Raises:
        CheckpointError: there are no weights, or not of the kind asked for.
    """
    found = {name: _tensors_in(content.get(name)) for name in (*EMA_CONTAINERS, *PLAIN_CONTAINERS)}
    found = {name: tensors for name, tensors in found.items() if tensors}
    order = (*EMA_CONTAINERS, *PLAIN_CONTAINERS) if ema else PLAIN_CONTAINERS
    if ema and not any(name in found for name in EMA_CONTAINERS):
        raise CheckpointError(f"{path}: expected averaged weights under {', '.join(EMA_CONTAINERS)}, found none; drop --ema")
    chosen = next((name for name in order if name in found), None)
    tensors = found[chosen] if chosen is not None else _tensors_in(content)
    if tensors:
        alike = [name for name in _further_weights(content, tensors) if name not in found and name != chosen]
        others = tuple(printable(str(name))[:80] for name in (*found, *alike) if name != chosen)
        return chosen, _check_kinds(tensors, path), others
    if found:
        raise CheckpointError(f"{path}: expected plain weights, found only averaged ones under {next(iter(found))}; add --ema")
    keys = shorten([ascii(key)[:40] for key in content]) or "nothing"
    raise CheckpointError(f"{path}: expected a dict of tensors, found no tensors but {keys}; {RESAVE}")


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

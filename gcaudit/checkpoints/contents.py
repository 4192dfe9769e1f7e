"""What is inside a checkpoint: the weights among other things, and hints on the architecture."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from gcaudit.checkpoints.torch_file import RESAVE
from gcaudit.errors import CheckpointError, shorten

WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
"""Prefixes that wrappers around a network put before its names."""
_WRAPPED = re.compile(f"^({'|'.join(map(re.escape, WRAPPERS))})+")
PLAIN_CONTAINERS = ("state_dict", "model", "net", "network", "module")
EMA_CONTAINERS = ("state_dict_ema", "model_ema", "ema_state_dict")
_DEEPEST = 3
_EXPANDED_LIMIT = 2**28


@final
@dataclass(frozen=True)
class Hints:
    """What a checkpoint says of itself.

    Attributes:
        arch: architecture name, with or without a `timm:` or `torchvision:` prefix.
        arch_args: arguments of the architecture (in_chans, img_size, ...).
        preprocessing: input_size, mean, std, interpolation, crop_pct, as far as they are given.
        source: where that was found.
        unread: options that change the network or the labels, and are not used.
        disagreeing: preprocessing that two places in the file say differently; the first was taken.
    """

    arch: str | None = None
    arch_args: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    unread: tuple[str, ...] = ()
    disagreeing: tuple[str, ...] = ()


def _tensors_in(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _is_like(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    """Tell whether most names are the same, wrappers' prefixes apart: these are weights of the same network."""
    names, known = ({_WRAPPED.sub("", name) for name in some} for some in (tensors, others))
    return len(names & known) * 2 > len(known)


def _further_weights(content: Mapping[str, Any], tensors: Mapping[str, Tensor], depth: int = _DEEPEST) -> list[str]:
    """Name the keys, such as `ema.shadow`, under which other weights of the same network lie: by name, or as a list of as many tensors."""
    found = []
    for name, value in content.items():
        if not isinstance(name, str) or value is content:
            continue
        if _is_like(_tensors_in(value), tensors) or _is_list_like(value, tensors):
            found.append(name)
        elif isinstance(value, Mapping) and depth > 1:
            found += [f"{name}.{inner}" for inner in _further_weights(value, tensors, depth - 1)]
    return found


def _is_list_like(value: Any, tensors: Mapping[str, Tensor]) -> bool:
    count = len(value) if isinstance(value, list | tuple) and all(isinstance(item, Tensor) for item in value) else 0
    return 2 * count > len(tensors) and count > 1


def choose_container(content: Mapping[str, Any], path: Path, ema: bool) -> tuple[str | None, dict[str, Tensor], tuple[str, ...]]:
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
        return chosen, tensors, tuple(str(name) for name in (*found, *alike) if name != chosen)
    if found:
        raise CheckpointError(f"{path}: expected plain weights, found only averaged ones under {next(iter(found))}; add --ema")
    keys = shorten([ascii(key)[:40] for key in content]) or "nothing"
    raise CheckpointError(f"{path}: expected a dict of tensors, found no tensors but {keys}; {RESAVE}")


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that are NaN, infinite or not there at all, and names that would break a line of text.

    Args:
        tensors: by name.
        path: for messages.

    Raises:
        CheckpointError: naming the tensor.
    """
    for name, tensor in tensors.items():
        if not name.isprintable():
            raise CheckpointError(f"{path}: expected printable names of tensors, found {ascii(name)[:80]}; {RESAVE}")
        if tensor.is_meta:
            raise CheckpointError(f"{path}: expected weights, found tensor {name!r} without data (device meta); {RESAVE}")
        if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.layout != torch.strided or tensor.is_quantized:
            continue
        if tensor.dtype == torch.float4_e2m1fn_x2:  # a type without NaN and inf, nor any arithmetic
            continue
        if tensor.numel() > max(_EXPANDED_LIMIT, tensor.untyped_storage().nbytes()):
            raise CheckpointError(
                f"{path}: refused: tensor {name!r} spreads {tensor.untyped_storage().nbytes()} bytes over {tensor.numel()} numbers; "
                f"{RESAVE}"
            )
        values = tensor.to(torch.float32) if tensor.element_size() < 2 else tensor
        if not bool(torch.isfinite(values).all()):
            bad = int((~torch.isfinite(values)).sum())
            raise CheckpointError(f"{path}: expected finite weights, found {bad} NaN or inf in tensor {name!r}; the training broke")


def plain_dict(value: Any) -> dict[str, Any]:
    """Read options that a training script saved.

    Args:
        value: a Namespace, a mapping, or anything else.

    Returns:
        A dict; empty for anything else.
    """
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def _plain_value(value: Any) -> Any:
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.device.type == "cpu" and value.numel() <= 16):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value if isinstance(value, str | int | float | list) else None


_NETWORK_OPTIONS = {"in_chans": "in_chans", "gp": "global_pool", "bn_eps": "bn_eps"}
"""Options of timm's training script that change the network, and the arguments of its architectures that they become."""
_SCRIPTS = {"timm": {"gp", "model_kwargs", "drop_path"}, "torchvision": {"val_crop_size", "val_resize_size"}}
"""Options that only the training script of one library has: it says whose architecture `model` is."""
_UNREAD_OPTIONS = ("class_map", "input_img_mode")
"""Options of timm's training script that change labels or pixels, and are not followed."""
_PLACES = ("args", "hyper_parameters", "config", "cfg", "opt", "pretrained_cfg")
"""Keys under which training scripts save their options."""
_PREPROCESSING = ("input_size", "img_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")


def preprocessing_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """Pick timm's preprocessing keys out of options.

    Args:
        config: options.

    Returns:
        Those that are set, tuples and tensors as lists; `img_size` becomes `input_size`.
    """
    found = {key: _plain_value(config.get(key)) for key in _PREPROCESSING}
    found = {key: value for key, value in found.items() if value not in (None, "")}
    crop, resize = config.get("val_crop_size"), config.get("val_resize_size")  # of torchvision's training script
    if isinstance(crop, int) and isinstance(resize, int) and 0 < crop <= resize:
        found = {"input_size": [3, crop, crop]} | found | ({} if "crop_pct" in found else {"resize_size": resize})
    side, channels = found.pop("img_size", None), config.get("in_chans")
    if side is not None and "input_size" not in found:
        sides = side if isinstance(side, list) else [side, side]
        found["input_size"] = [channels if isinstance(channels, int) else 3, *sides[:2]]
    return found


def hints_of(content: Mapping[str, Any]) -> Hints:
    """Read what training scripts write beside the weights: `arch`, `args.model` and their kin.

    Args:
        content: what was read.

    Returns:
        The hints, with `arch` None when there is no name.
    """
    args = plain_dict(content.get("args"))
    arch, source = content.get("arch"), "arch"
    if not isinstance(arch, str):
        arch, source = args.get("model"), "args.model"
        script = next((family for family, options in _SCRIPTS.items() if options & args.keys()), None)
        if isinstance(arch, str) and script and ":" not in arch:
            arch = f"{script}:{arch}"
    arch_args = plain_dict(args.get("model_kwargs"))
    for option, name in _NETWORK_OPTIONS.items():
        value = args.get(option)
        if isinstance(value, int | float | str) and not isinstance(value, bool) and value != "":
            arch_args.setdefault(name, value)
    beside = {name: value for name, value in content.items() if not isinstance(value, Tensor)}  # a buffer may be called mean
    preprocessing, disagreeing = agreed_preprocessing([plain_dict(content.get(place)) for place in _PLACES] + [beside])
    unread = tuple(name for name in _UNREAD_OPTIONS if args.get(name) not in (None, "", "RGB"))
    if not isinstance(arch, str):
        return Hints(None, arch_args, preprocessing, None, unread, disagreeing)
    return Hints(arch, arch_args, preprocessing, f"the checkpoint's {source}", unread, disagreeing)


def agreed_preprocessing(places: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Read preprocessing from several places.

    Args:
        places: options, the first win.

    Returns:
        The preprocessing, and the parts of it that two places say differently.
    """
    taken: dict[str, Any] = {}
    disagreeing = []
    for found in map(preprocessing_in, places):
        disagreeing += [name for name, value in found.items() if name in taken and taken[name] != value]
        taken = found | taken
    return taken, tuple(dict.fromkeys(disagreeing))

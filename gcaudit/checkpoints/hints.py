"""What a checkpoint says of itself: names and options that training scripts write beside the weights, as far as they are short and plain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from torch import Tensor

from gcaudit.errors import printable
from gcaudit.files import Array, Opaque, TensorSpec

_FEW, _LONGEST_TEXT, _LARGEST_NUMBER = 16, 200, 1e15
"""Options that say something of a network are a few numbers and short texts; others are not looked at."""


@final
@dataclass(frozen=True)
class Hints:
    """What a checkpoint says of itself.

    Attributes:
        arch: architecture name, with or without a `timm:` or `torchvision:` prefix.
        arch_args: arguments of the architecture (in_chans, img_size, ...).
        preprocessing: input_size, mean, std, interpolation, crop_pct, as far as they are given.
        source: where that was found.
        unread: arguments that are neither numbers nor short texts, and options that change labels or pixels: none of them is used.
        config: of transformers, as it is in the file.
        disagreeing: preprocessing that two places in the file say differently; the first was taken.
    """

    arch: str | None = None
    arch_args: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    unread: tuple[str, ...] = ()
    disagreeing: tuple[str, ...] = ()
    config: Mapping[str, Any] | None = None


def plain_dict(value: Any) -> dict[str, Any]:
    """Read options that a training script saved.

    Args:
        value: a mapping, or anything else.

    Returns:
        A dict with text as keys; empty for anything else.
    """
    return {key: item for key, item in value.items() if isinstance(key, str)} if isinstance(value, Mapping) else {}


def short_text(value: Any) -> str | None:
    """Read a name.

    Args:
        value: anything.

    Returns:
        The text where it is one, short and printable; else None.
    """
    found = _plain_value(value)
    return found if isinstance(found, str) and found else None


def _options(content: Mapping[str, Any]) -> dict[str, Any]:
    return plain_dict(content.get("args"))


def small_tensors(content: Mapping[str, Any]) -> list[TensorSpec]:
    """List tensors among the options of a training script, such as a mean.

    Args:
        content: what was saved.

    Returns:
        Those of a few numbers.
    """
    return [value for value in _options(content).values() if isinstance(value, TensorSpec) and value.numbers <= _FEW]


def _plain_value(value: Any) -> Any:
    """Return a number, a text or a list of a few of them; None for anything else."""
    if isinstance(value, Array):
        value = value.values
    if isinstance(value, np.ndarray | Tensor):
        value = value.tolist() if not getattr(value, "is_meta", False) and math.prod(value.shape) <= _FEW else None
    if isinstance(value, list | tuple):
        parts = [_plain_value(item) if not isinstance(item, list | tuple) else None for item in value[: _FEW + 1]]
        return parts if len(parts) <= _FEW and None not in parts else None
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_TEXT and value.isprintable() else None
    return value if isinstance(value, int | float) and abs(value) <= _LARGEST_NUMBER else None


_NETWORK_OPTIONS = {"in_chans": "in_chans", "gp": "global_pool", "bn_eps": "bn_eps"}
"""Options of timm's training script that change the network, and the arguments of its architectures that they become."""
_SCRIPTS = {"timm": {"gp", "model_kwargs", "drop_path"}, "torchvision": {"val_crop_size", "val_resize_size"}}
"""Options that only the training script of one library has: it says whose architecture `model` is."""
_UNREAD_OPTIONS = ("class_map", "input_img_mode")
"""Options of timm's training script that change labels or pixels, and are not followed."""
_PLACES = ("hyper_parameters", "config", "cfg", "opt", "pretrained_cfg")
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
    crop, resize = (
        _plain_value(config.get("val_crop_size")),
        _plain_value(config.get("val_resize_size")),
    )  # of torchvision's training script
    if isinstance(crop, int) and isinstance(resize, int) and 0 < crop <= resize:
        found = {"input_size": [3, crop, crop]} | found | ({} if "crop_pct" in found else {"resize_size": resize})
    side, channels = found.pop("img_size", None), config.get("in_chans")
    if side is not None and "input_size" not in found:
        sides = side if isinstance(side, list) else [side, side]
        found["input_size"] = [channels if isinstance(channels, int) else 3, *sides[:2]]
    return found


def arguments_in(given: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Pick arguments of an architecture out of what a file says.

    Args:
        given: names and values, or anything else.

    Returns:
        Those that are numbers, short texts or short lists of them; and the names of the others.
    """
    found, unread = {}, []
    for name, value in plain_dict(given).items():
        plain = _plain_value(value)
        if name.isidentifier() and len(name) <= _LONGEST_TEXT and (plain is not None or value is None):
            found[name] = plain
        else:
            unread.append(printable(name[:80]))
    return found, tuple(unread)


def hints_of(content: Mapping[str, Any], loaded: Mapping[TensorSpec, Tensor]) -> Hints:
    """Read what training scripts write beside the weights: `arch`, `args.model` and their kin.

    Args:
        content: what was read.
        loaded: tensors among the options, from `small_tensors`.

    Returns:
        The hints, with `arch` None when there is no name.
    """
    args = {name: loaded.get(value, value) if isinstance(value, TensorSpec) else value for name, value in _options(content).items()}
    arch, source = short_text(content.get("arch")), "arch"
    if arch is None:
        arch, source = short_text(args.get("model")), "args.model"
        script = next((family for family, options in _SCRIPTS.items() if options & args.keys()), None)
        if arch and script and ":" not in arch:
            arch = f"{script}:{arch}"
    arch_args, unread = arguments_in(args.get("model_kwargs"))
    for option, name in _NETWORK_OPTIONS.items():
        value = _plain_value(args.get(option))
        if isinstance(value, int | float | str) and not isinstance(value, bool) and value != "":
            arch_args.setdefault(name, value)
    beside = {
        name: value for name, value in content.items() if not isinstance(value, TensorSpec | Opaque)
    }  # a buffer may be called mean
    preprocessing, disagreeing = agreed_preprocessing([args, *(plain_dict(content.get(place)) for place in _PLACES), beside])
    unread += tuple(name for name in _UNREAD_OPTIONS if _plain_value(args.get(name)) not in (None, "", "RGB"))
    return Hints(arch, arch_args, preprocessing, f"the checkpoint's {source}" if arch else None, unread, disagreeing)


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

"""Names of other versions and of the original authors -> the names of an architecture, as timm and torchvision convert them."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

_DENSE = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")
_LINEAR = re.compile(r"\.mlp\.linear_([12])\.")
_POSITIONS = re.compile(r"pos_embed|position_embedding|relative_position|rel_pos|patch_embed")

_LARGEST = 2**24
"""Numbers of a tensor that is converted, where the network has no larger ones."""

Renaming = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def _of_torchvision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo the names of densenet before torch 0.4, and of the vision transformer's first version."""
    found = {_DENSE.sub(r"\1\2.", name): tensor for name, tensor in tensors.items()}
    return {_LINEAR.sub(lambda match: f".mlp.{3 * (int(match[1]) - 1)}.", name): tensor for name, tensor in found.items()}


def _of_timm(module: nn.Module) -> list[Renaming]:
    """Return timm's own conversions for the file that a model is of."""
    convert = getattr(sys.modules.get(type(module).__module__), "checkpoint_filter_fn", None)
    if convert is None:
        return []

    def renamed(tensors: Mapping[str, Tensor], **options: Any) -> Mapping[str, Tensor]:
        with torch.no_grad():
            found = convert(dict(tensors), module, **options)
        return {name: tensor for name, tensor in found.items() if isinstance(name, str) and isinstance(tensor, Tensor)}

    scaled = "adapt_layer_scale" in inspect.signature(convert).parameters  # of DeiT III, whose builder passes it
    return [renamed, partial(renamed, adapt_layer_scale=True)] if scaled else [renamed]


def _of_transformers(module: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Load as the library does, which converts older names, and return what it made of the tensors."""
    utilities = import_module("transformers.utils.logging")
    verbosity, bar = utilities.get_verbosity(), utilities.is_progress_bar_enabled()
    utilities.set_verbosity_error()
    utilities.disable_progress_bar()
    try:
        options = {"config": module.config, "state_dict": dict(tensors), "output_loading_info": True, "dtype": torch.float32}
        pooler = {} if getattr(module, "pooler", module) is not None else {"add_pooling_layer": False}
        made, told = type(module).from_pretrained(None, **options, **pooler)
    finally:
        utilities.set_verbosity(verbosity)
        if bar:
            utilities.enable_progress_bar()
    odd = {*told["missing_keys"], *(entry[0] for entry in told["mismatched_keys"])}
    found = {name: tensor for name, tensor in made.state_dict().items() if name not in odd}
    return found | {name: tensors[name] for name in told["unexpected_keys"] if name in tensors}


def renamings(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Convert names and shapes to those of a module, in all ways that there are.

    Args:
        module: of timm or torchvision.
        tensors: by the names of a file.

    Yields:
        What did it, and the tensors under their new names; a conversion that changes nothing or breaks is left out.
    """
    ways: list[tuple[str, Renaming]] = []
    package = type(module).__module__.partition(".")[0]
    if package == "torchvision":
        ways.append(("torchvision", _of_torchvision))
    if package == "timm":
        ways += [("timm", way) for way in _of_timm(module)]
    if package == "transformers":
        ways.append(("transformers", partial(_of_transformers, module)))
    if _beyond(module, tensors):
        return
    for name, way in ways:
        try:
            found = way(tensors)
        except Exception:  # noqa: S112 - a conversion that is given other names than it knows may raise anything
            continue
        if found.keys() != tensors.keys() or any(found[key] is not tensors[key] for key in found):
            yield name, found


def _beyond(module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Tell tensors that no conversion is to be asked for: patches of another size are another network, and resampling costs their size squared."""
    own = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    patch = next((shape for name, shape in own.items() if name.endswith("patch_embed.proj.weight")), None)
    largest = max((math.prod(shape) for shape in own.values()), default=0)
    for name, tensor in tensors.items():
        if (
            patch is not None
            and name.endswith("patch_embed.proj.weight")
            and tensor.ndim == 4
            and tuple(tensor.shape[2:]) != patch[2:]
        ):
            return True
        if tensor.numel() > max(_LARGEST, 4 * largest) or 0 in tensor.stride():
            return True
    return False


def resampled(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """Name the position embeddings that a conversion has given another shape, with their numbers of positions."""
    # values of the same shape have only moved
    shapes = {tuple(tensor.shape) for tensor in before.values()}
    names = [name for name, tensor in after.items() if _POSITIONS.search(name) and tuple(tensor.shape) not in shapes]
    found = []
    for name in names:
        same = before.get(name)
        old = "x".join(map(str, same.shape)) if same is not None else "another grid"
        found.append(f"{name} from {old} to {'x'.join(map(str, after[name].shape))}")
    return found


def dropped(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """Name the tensors that a conversion has left out: those of whose numbers none is in what it gave, but for positions and counters."""
    kept: dict[int, list[tuple[int, int]]] = {}
    for tensor in after.values():
        kept.setdefault(tensor.untyped_storage().data_ptr(), []).append(_span(tensor))

    def is_kept(tensor: Tensor) -> bool:
        start, end = _span(tensor)
        return any(begin < end and start < stop for begin, stop in kept.get(tensor.untyped_storage().data_ptr(), ()))

    return [
        name
        for name, tensor in before.items()
        if name not in after and tensor.is_floating_point() and not _POSITIONS.search(name) and not is_kept(tensor)
    ]


def _span(tensor: Tensor) -> tuple[int, int]:
    """Return the first byte of a tensor and the one behind its last."""
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else -1
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()

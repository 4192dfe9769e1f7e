"""Building a network without the random numbers that it begins with: its parameters take no memory until they are written to."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

_RANDOM = frozenset((Tensor.normal_, Tensor.uniform_, Tensor.erfinv_))
_INIT = frozenset(
    value for name, value in vars(init).items() if name.endswith("_") and not name.startswith("_") and callable(value)
)
"""torch's initialisers, inside of which a mode is not asked."""
_SCALING = frozenset((Tensor.mul_, Tensor.add_, Tensor.sub_, Tensor.div_, Tensor.clamp_, Tensor.zero_, Tensor.fill_, Tensor.copy_))


@final
class Unfilled(TorchFunctionMode):
    """Leaves the values of parameters undefined, while the context is open; buffers and all else are computed.

    Every parameter has to be given a value afterwards.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function, or return the parameter that it would fill."""
        target = args[0] if args else (kwargs or {}).get("tensor")
        if isinstance(target, nn.Parameter) and (function in _RANDOM or function in _SCALING or function in _INIT):
            return target
        return function(*args, **(kwargs or {}))


def take_over(module: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Prepare tensors to become a module's own, without a copy where none is needed.

    Args:
        module: that they are for.
        tensors: by its names.

    Returns:
        Tensors of the module's types, each contiguous, of which no two share memory.
    """
    own, seen, found = module.state_dict(), set(), {}
    for name, tensor in tensors.items():
        kept = tensor.to(own[name].dtype)
        place = kept.untyped_storage().data_ptr()
        if kept.is_contiguous() and kept.numel() and place not in seen and kept is tensor:
            seen.add(place)
        elif kept is tensor:
            kept = tensor.clone(memory_format=torch.contiguous_format)
        found[name] = kept
    return found

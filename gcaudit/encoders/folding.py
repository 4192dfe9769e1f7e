"""BatchNorm folded into the convolution before it, where that changes nothing but rounding.

In eval mode BatchNorm is an affine map of each channel, a * x + b, and a convolution followed by it is the convolution with weights
a * W and bias a * bias + b. Folding spares a pass over every map, forward and backward.

Whether a BatchNorm may be folded is seen in a run of the network, not guessed from the order of its modules: the convolution must be called
once, with its own weights, and its output must go into that BatchNorm and nowhere else.
"""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = (torch.conv2d, F.conv2d)
_NORMS = (torch.batch_norm, F.batch_norm)
_LOOKS = ("dim", "size", "__get__", "is_floating_point")
"""Functions that look at a tensor's shape and kind, not at its numbers."""
_AGREE = {torch.float64: 1e-8}
_AGREE_OTHERWISE = 1e-3


def _tensors(arguments: Iterable[Any]) -> Iterable[Tensor]:
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, list | tuple):
            yield from _tensors(argument)


@final
class _Watch(TorchFunctionMode):
    """Record which tensors go into which function, by identity; holding them keeps identities apart."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Any] = []
        self.uses: Counter[int] = Counter()
        self.convolutions: list[tuple[int, int]] = []
        self.norms: list[tuple[int, int]] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        given = list(_tensors((*args, *kwargs.values())))
        self.held += [*given, result]
        if isinstance(result, Tensor) or getattr(function, "__name__", "") not in _LOOKS:
            self.uses.update(id(tensor) for tensor in given)
        if function in _CONVOLUTIONS and len(given) > 1:
            self.convolutions.append((id(given[1]), id(result)))
        elif function in _NORMS and len(given) > 1:
            self.norms.append((id(given[1]), id(given[0])))
        return result


def _pairs(module: nn.Module, run: Callable[[nn.Module], Any]) -> list[tuple[str, str]]:
    """Name the convolutions and the BatchNorms that alone take their outputs."""
    with torch.no_grad(), _Watch() as watch:
        run(module)
    convolutions = {id(child.weight): name for name, child in module.named_modules() if isinstance(child, nn.Conv2d)}
    norms = {
        id(child.running_mean): name
        for name, child in module.named_modules()
        if type(child) in (nn.BatchNorm2d, BatchNormAct2d) and child.running_mean is not None and not child.training
    }
    calls = Counter(weight for weight, _ in watch.convolutions)
    norm_calls = Counter(mean for mean, _ in watch.norms)
    made = {output: weight for weight, output in watch.convolutions}
    return [
        (convolutions[made[taken]], norms[mean])
        for mean, taken in watch.norms
        if taken in made
        and made[taken] in convolutions
        and mean in norms
        and watch.uses[taken] == calls[made[taken]] == norm_calls[mean] == 1
        and watch.uses[made[taken]] == 1
    ]


def _fold(convolution: nn.Conv2d, norm: Any) -> None:
    weight = convolution.weight.detach().to(torch.float64)
    mean, variance = norm.running_mean.to(torch.float64), norm.running_var.to(torch.float64)
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().to(torch.float64)
    bias = -mean if convolution.bias is None else convolution.bias.detach().to(torch.float64) - mean
    bias = bias * scale
    if norm.bias is not None:
        bias = bias + norm.bias.detach().to(torch.float64)
    kind = convolution.weight.dtype
    convolution.weight = nn.Parameter((weight * scale[:, None, None, None]).to(kind), requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(kind), requires_grad=False)


def _rest_of(norm: Any) -> nn.Module:
    """Return what a normalisation does after normalising."""
    return nn.Sequential(OrderedDict(drop=norm.drop, act=norm.act)) if isinstance(norm, BatchNormAct2d) else nn.Identity()


def fold_batch_norms(module: nn.Module, run: Callable[[nn.Module], Tensor]) -> tuple[nn.Module, int]:
    """Fold every BatchNorm that may be.

    Args:
        module: a network in eval mode; left as it is.
        run: runs it on a few images and returns the embeddings; every function it calls on the network must be called here too.

    Returns:
        A copy of the network with folded weights, and how many BatchNorms were folded; the network itself and 0 when there are none, or
        when the copy's embeddings differ by more than deep networks round.
    """
    if not any(isinstance(child, nn.BatchNorm2d) for child in module.modules()):
        return module, 0
    pairs = _pairs(module, run)
    if not pairs:
        return module, 0
    folded = copy.deepcopy(module)
    for convolution, norm in pairs:
        found: Any = folded.get_submodule(norm)
        _fold(folded.get_submodule(convolution), found)  # type: ignore[arg-type]
        parent, _, name = norm.rpartition(".")
        setattr(folded.get_submodule(parent), name, _rest_of(found))
    with torch.no_grad():
        before, after = run(module), run(folded)
    if not bool((before - after).norm() <= _AGREE.get(before.dtype, _AGREE_OTHERWISE) * before.norm()):
        return module, 0
    return folded, len(pairs)

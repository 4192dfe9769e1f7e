"""A Lipschitz constant of an embedding, bounded layer by layer.

    |f(x) - f(y)| <= L |x - y|  for all x, y,      L = product over a chain of layers, sum over branches that are added

Each layer's constant is that of its worst input, and a network's that of the worst inputs of all its layers at once, which no image is: the bound
is certain and far too large. Layers without a constant (attention, gates that multiply two maps) have no bound.

A convolution with kernel W of o x i x k x k, stride s, zeros around it: with W_t the o x i matrix at offset t, and at most m = ceil(k/s)^2 offsets
by which one pixel is read,

    |W * x| <= sqrt(m) |(W_1 ... W_kk)| |x|,     <= k |(W_1^T ... W_kk^T)| |x|,     <= sum_t |W_t| |x|,

spectral norms all: the first since every output is a matrix times a patch and a pixel is in m patches, the second of the adjoint, the third as each
offset is a shift and a matrix. The smallest is taken.

References: Szegedy et al., "Intriguing properties of neural networks", ICLR 2014, section 4.3; Singla, Feizi, "Fantastic four: differentiable bounds on
singular values of convolution layers", ICLR 2021; Kim, Papamakarios, Mnih, "The Lipschitz constant of self-attention", ICML 2021 (that it has none).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.parametrize import is_parametrized

from gcaudit.encoders.nodes import node_of, trace
from gcaudit.encoders.taps import Tap

_SLOPES: Mapping[str, float] = {
    "Identity": 1.0,
    "Dropout": 1.0,
    "Dropout2d": 1.0,
    "DropPath": 1.0,
    "Flatten": 1.0,
    "ReLU": 1.0,
    "ReLU6": 1.0,
    "Hardtanh": 1.0,
    "Tanh": 1.0,
    "Softplus": 1.0,
    "Sigmoid": 0.25,
    "Hardsigmoid": 1 / 6,
    "SiLU": 1.0999,
    "Hardswish": 1.5,
    "GELU": 1.1290,
    "Mish": 1.0885,
}
"""The largest slope of functions of single numbers, rounded up; 1 where entries are kept, dropped by none in eval mode, or rearranged."""
_KEEP = {
    torch.flatten,
    torch.permute,
    torch.transpose,
    torch.reshape,
    torch.unbind,
    torch.chunk,
    torch.split,
    "view",
    "reshape",
    "flatten",
    "contiguous",
    "permute",
    "transpose",
    "squeeze",
    "float",
    "unbind",
    "chunk",
    "split",
}
_NAMED = {name.lower(): slope for name, slope in _SLOPES.items()}
_IN_PLACE = {"iadd", "isub", "imul", "itruediv", "iand", "ior"}
_BATCH_NORMS = ("BatchNorm1d", "BatchNorm2d", "BatchNormAct2d")
_ADD = {operator.add, operator.iadd, torch.add, "add", "add_", operator.sub, operator.isub, torch.sub, "sub", "sub_"}


class _UnboundedError(Exception):
    """There is no constant, or none is known; says of what."""


def lipschitz_bound(module: nn.Module, tap: Tap, inputs: Tensor) -> tuple[float | None, str]:
    """Bound the Lipschitz constant of an embedding over all inputs, in Euclidean norm.

    Args:
        module: the network, in eval mode.
        tap: where the embedding is taken.
        inputs: (1, C, H, W), to learn the sizes of maps.

    Returns:
        The bound for the network's own input and an empty reason, or None and why there is none.
    """
    graph = trace(module)
    place = node_of(graph, tap)
    if place is None:
        return None, "the network's graph cannot be traced up to the embedding"
    walk = _Bounds(module, graph)
    try:
        with torch.no_grad():
            walk.run(inputs)
        embedding = walk.sizes[place]
        found = walk.bounds[place] / math.sqrt(_averaged(embedding, tap))
    except _UnboundedError as error:
        return None, f"{error} has no Lipschitz constant that is known here"
    except Exception:  # a traced network may refuse in any way
        return None, "the network's graph cannot be run"
    return (found, "") if math.isfinite(found) else (None, "the bound is beyond the range of 64-bit floating point")


@final
class _Bounds(fx.Interpreter):
    """Runs a graph, and keeps a bound beside every value that depends on the input; what is unbounded matters only where it is used."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(module, graph=graph, garbage_collect_values=False)
        self.bounds = _Known()
        self.sizes: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        self.sizes[n] = tuple(found.shape) if isinstance(found, Tensor) else ()
        if n.op == "placeholder":
            self.bounds[n] = 1.0
        elif _has_tensor(found) and any(self.bounds.depends(node) for node in n.all_input_nodes):
            try:
                self.bounds[n] = self._bound(n)
            except _UnboundedError as error:
                self.bounds.unbounded[n] = error
            if self._in_place(n):
                self._overwrite(n.args[0], n)
        return found

    def _in_place(self, n: fx.Node) -> bool:
        """Tell whether a node changes its first operand too."""
        if n.op == "call_module":
            return bool(getattr(self.module.get_submodule(str(n.target)), "inplace", False))
        name = _called(n.target)
        return (
            name.endswith("_")
            or (n.op == "call_function" and name in _IN_PLACE)
            or bool(n.kwargs.get("inplace", len(n.args) > 1 and n.args[-1] is True))
        )

    def _overwrite(self, operand: Any, n: fx.Node) -> None:
        """Let what comes after see what a node has made of its first operand, and of what that is a view of."""
        while isinstance(operand, fx.Node) and self.bounds.depends(operand):
            if n in self.bounds.unbounded:
                self.bounds.unbounded[operand] = self.bounds.unbounded[n]
                self.bounds.pop(operand, None)
            elif operand in self.bounds:
                self.bounds[operand] = max(self.bounds[operand], self.bounds[n])
            operand = operand.args[0] if operand.args and (operand.target in _KEEP or operand.target is operator.getitem) else None

    def _spread(self, operand: fx.Node, n: fx.Node) -> float:
        """Return by how much a smaller operand's bound grows where it is repeated over a larger one."""
        return math.sqrt(max(1.0, math.prod(self.sizes[n]) / max(1, math.prod(self.sizes[operand]))))

    def _bound(self, n: fx.Node) -> float:
        if n.op == "call_module":
            if len(n.args) != 1 or n.kwargs or not isinstance(n.args[0], fx.Node):
                raise _UnboundedError(f"{n.target} ({type(self.module.get_submodule(str(n.target))).__name__}) of several maps")
            return self.bounds[n.args[0]] * _layer(self.module.get_submodule(str(n.target)), str(n.target), self.sizes[n.args[0]])
        if n.target in _ADD:
            scale = abs(float(self._given(n, 2, "alpha", 1)))
            operands = [(n.args[0], 1.0), (n.args[1] if len(n.args) > 1 else n.kwargs.get("other"), scale)]
            known = [(node, factor) for node, factor in operands if isinstance(node, fx.Node) and self.bounds.depends(node)]
            return sum(self.bounds[node] * factor * self._spread(node, n) for node, factor in known)
        if n.target in (torch.cat, torch.concat):
            parts = n.args[0] if n.args else n.kwargs.get("tensors")
            given = [node for node in _parts(parts) if isinstance(node, fx.Node) and self.bounds.depends(node)]
            return math.sqrt(sum(self.bounds[node] ** 2 for node in given))
        first = n.args[0] if n.args else None
        others = [node for node in _nodes((n.args[1:], n.kwargs)) if self.bounds.depends(node)]
        if not isinstance(first, fx.Node) or others:
            raise _UnboundedError(f"{n.name}, {_called(n.target)} of several maps,")
        return self.bounds[first] * self._function(n, first)

    def _function(self, n: fx.Node, first: fx.Node) -> float:
        target: Any = n.target
        size = self.sizes[first]
        if target in (functional.dropout, functional.dropout2d):
            if self._given(n, 2, "training", True) is False:
                return 1.0
            raise _UnboundedError(f"{n.name}, {_called(target)} that is active in eval mode too,")
        if target is operator.getitem and all(
            isinstance(part, int | slice | None) or part is ... for part in _parts_of_index(n.args[1])
        ):
            return 1.0  # every entry once at most, other than by a list of places
        named = 1.0 if target in _KEEP else _NAMED.get(_called(target).rstrip("_"))
        if named is not None:
            return named
        if target is functional.pad and n.kwargs.get("mode", n.args[2] if len(n.args) > 2 else "constant") == "constant":
            return 1.0
        if target in ("mean", torch.mean) and self.sizes[n]:
            return math.sqrt(math.prod(self.sizes[n]) / math.prod(size))
        if target is functional.adaptive_avg_pool2d:
            return _adaptive(size, self.sizes[n])
        if target is functional.avg_pool2d:
            layer: nn.Module = nn.AvgPool2d(*n.args[1:], **n.kwargs)  # type: ignore[arg-type]
            return _layer(layer, n.name, size)
        if target is functional.layer_norm:
            weight, eps = (self._given(n, place, name, other) for place, name, other in ((2, "weight", None), (4, "eps", 1e-5)))
            return _largest(1.0 if weight is None else weight) / math.sqrt(eps)
        if target in (operator.mul, operator.imul, torch.mul, "mul", "mul_") and len(n.args) == 2:
            return _largest(self._given(n, 1, "other", None)) * self._spread(first, n)
        raise _UnboundedError(f"{n.name}, {_called(target)},")

    def _given(self, n: fx.Node, place: int, name: str, other: Any) -> Any:
        """Return the value of an argument that does not depend on the input."""
        given = n.args[place] if len(n.args) > place else n.kwargs.get(name, other)
        return self.env[given] if isinstance(given, fx.Node) else given


class _Known(dict[fx.Node, float]):
    """Bounds by node; looking one up that there is none of says why."""

    def __init__(self) -> None:
        super().__init__()
        self.unbounded: dict[fx.Node, _UnboundedError] = {}

    def depends(self, node: fx.Node) -> bool:
        """Tell whether a value depends on the input."""
        return node in self or node in self.unbounded

    def __missing__(self, node: fx.Node) -> float:
        raise self.unbounded.get(node, _UnboundedError(node.name))


def _averaged(size: tuple[int, ...], tap: Tap) -> int:
    """Count the positions over which a tap averages."""
    if len(size) == 3:
        return size[1]
    return math.prod(size[1:-1] if tap.channels_last else size[2:])


def _nodes(value: Any) -> list[fx.Node]:
    """List the nodes in arguments, however deep."""
    if isinstance(value, fx.Node):
        return [value]
    if isinstance(value, dict):
        return [node for part in value.values() for node in _nodes(part)]
    return [node for part in value for node in _nodes(part)] if isinstance(value, tuple | list) else []


def _has_tensor(found: Any) -> bool:
    """Tell a map, or several, from sizes and numbers, of which the network's shape alone depends."""
    return any(isinstance(part, Tensor) for part in _parts(found))


def _parts_of_index(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _parts(found: Any) -> tuple[Any, ...]:
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def _largest(factor: Any) -> float:
    return float(torch.as_tensor(factor).detach().double().abs().max())


def _called(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


def _layer(layer: nn.Module, name: str, size: tuple[int, ...]) -> float:
    """Bound the constant of a layer."""
    told = f"{name} ({type(layer).__name__})"
    kind = type(layer).__name__
    if (
        isinstance(layer, nn.Conv2d)
        and layer.padding_mode == "zeros"
        and (kind in ("Conv2d", "Conv2dSame") or is_parametrized(layer))
    ):
        return convolution_norm(layer.weight, layer.groups, layer.stride, layer.dilation)
    if type(layer) is nn.Linear or (isinstance(layer, nn.Linear) and is_parametrized(layer)):
        return _norm(layer.weight)
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and kind in _BATCH_NORMS and layer.running_var is not None:
        scale = 1 / (layer.running_var.double() + layer.eps).sqrt() * (1 if layer.weight is None else layer.weight.double().abs())
        after = [
            _layer(part, name, size) for part in (getattr(layer, "drop", None), getattr(layer, "act", None)) if part is not None
        ]
        return float(scale.max()) * math.prod(after)
    if isinstance(layer, nn.LayerNorm | nn.GroupNorm) and kind in ("LayerNorm", "LayerNorm2d", "GroupNorm"):
        return (1 if layer.weight is None else float(layer.weight.double().abs().max())) / math.sqrt(layer.eps)
    if type(layer) is nn.LeakyReLU:
        return max(1.0, abs(layer.negative_slope))
    if type(layer) is nn.AdaptiveAvgPool2d:
        shape = layer.output_size if isinstance(layer.output_size, tuple) else (layer.output_size, layer.output_size)
        return _adaptive(size, (*size[:2], *(old if new is None else new for old, new in zip(size[2:], shape, strict=True))))
    if type(layer) in (nn.MaxPool2d, nn.AvgPool2d):
        assert isinstance(layer, nn.MaxPool2d | nn.AvgPool2d)
        return _pool(layer)
    slope = _SLOPES.get(kind)
    if slope is None:
        raise _UnboundedError(told)
    return slope


def _pool(layer: nn.MaxPool2d | nn.AvgPool2d) -> float:
    """A maximum, like a mean, changes by no more than its patch; a pixel is in several patches."""
    kernel, stride = _pair(layer.kernel_size), _pair(layer.stride)
    dilation = _pair(getattr(layer, "dilation", 1))
    reads, area = math.sqrt(_reads(kernel, stride, dilation)), math.prod(kernel)
    if isinstance(layer, nn.AvgPool2d):
        if layer.divisor_override:
            return reads * math.sqrt(area) / abs(layer.divisor_override)
        if _pair(layer.padding) == (0, 0) and not layer.ceil_mode:
            return reads / math.sqrt(area)
    return reads


def _adaptive(size: tuple[int, ...], found: tuple[int, ...]) -> float:
    windows = [old / new for old, new in zip(size[-2:], found[-2:], strict=True)]
    if any(window != int(window) for window in windows):
        raise _UnboundedError("an adaptive pooling with windows of several sizes")
    return 1 / math.sqrt(math.prod(windows))


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _reads(kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> int:
    """Count the offsets by which one pixel is read, at most."""
    return math.prod(math.ceil(k / (s // math.gcd(s, d))) for k, s, d in zip(kernel, stride, dilation, strict=True))


def _norm(matrix: Tensor) -> float:
    """Return the largest singular value, through the smaller of both products with the transposed."""
    rows = matrix.detach().to("cpu", torch.float64)
    rows = rows if rows.shape[0] <= rows.shape[1] else rows.T
    return math.sqrt(max(0.0, float(torch.linalg.eigvalsh(rows @ rows.T)[-1])))


def convolution_norm(weight: Tensor, groups: int = 1, stride: Any = 1, dilation: Any = 1) -> float:
    """Bound the spectral norm of a convolution with zeros around its input, of any size.

    Args:
        weight: (O, I/groups, h, w).
        groups: of channels that do not see one another.
        stride: of the outputs.
        dilation: of the kernel.

    Returns:
        The least of three bounds, the largest over groups; exact for 1 x 1 kernels.
    """
    h, w = weight.shape[2:]
    reads = _reads((h, w), _pair(stride), _pair(dilation))
    ways: tuple[Callable[[Tensor], float], ...] = (
        lambda part: math.sqrt(reads) * _norm(part.flatten(1)),
        lambda part: math.sqrt(h * w) * _norm(part.transpose(0, 1).flatten(1)),
        lambda part: sum(_norm(part[:, :, row, column]) for row in range(h) for column in range(w)),
    )
    return max(min(way(part) for way in ways) for part in weight.chunk(groups))

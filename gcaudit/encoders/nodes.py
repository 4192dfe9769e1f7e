"""Layers by the node names of torchvision and timm: `layer4.1.relu_1` for a second call, `flatten` and `layer1.0.add` for functions.

A node is found by tracing the network symbolically, and is then taken by a hook: of the layer whose call it is, or of the layer that it goes into. The
network that runs stays the one that was loaded, and what the hook takes is compared with what the traced graph gives.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import torch
from timm.models import get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from gcaudit.encoders.taps import Tap, layer_tap, main_output
from gcaudit.errors import ArchitectureError

_NUMBERED = re.compile(r"(.+)_(\d+)")


def named_tap(module: nn.Module, name: str, inputs: Tensor) -> Tap:
    """Tap what a name stands for: a layer, one of its calls, or a function between layers.

    Args:
        module: the network, in eval mode.
        name: of `module.named_modules()`, with `_N` for call N of a layer, from 0; or a node's name.
        inputs: one image, to see what the layer gives.

    Returns:
        The tap.

    Raises:
        ArchitectureError: there is no such layer, or it is not called; the nearest names are told.
    """
    layers = [layer for layer, _ in module.named_modules() if layer]
    if name in layers:
        return layer_tap(module, Tap(name, "output"), inputs)
    numbered = _NUMBERED.fullmatch(name)
    if numbered and numbered[1] in layers:
        return layer_tap(module, Tap(numbered[1], "output", call=int(numbered[2]), node=name), inputs)
    if (tap := node_tap(module, name, inputs)) is not None:
        return layer_tap(module, tap, inputs)
    close = get_close_matches(name, [*layers, *node_names(module)], n=3) or layers[-3:] or ["none: it has no layers"]
    raise ArchitectureError(
        f"expected the name of a layer, found {name!r}; did you mean {', '.join(close)}? gcaudit inspect MODEL --layers lists them"
    )


def node_tap(module: nn.Module, name: str, inputs: Tensor) -> Tap | None:
    """Find what a function in a network's forward gives, under its node name.

    Args:
        module: the network, in eval mode.
        name: as `torchvision.models.feature_extraction.get_graph_node_names` has it.
        inputs: one image, to see that the tap gives what the node does.

    Returns:
        A tap of what goes into the next layer; None where the network cannot be traced, has no such node, or none that a layer takes.
    """
    graph, names = _traced(module)
    calls: Counter[Any] = Counter()
    wanted = next((node for node, known in names.items() if known == name), None)
    for node in graph.nodes if wanted is not None else ():
        if node.op == "call_module":
            if node.args and node.args[0] is wanted:
                tap = Tap(str(node.target), "before", call=calls[node.target], node=name)
                return tap if _gives(module, graph, wanted, tap, inputs) else None
            calls[node.target] += 1
    return None


def node_names(module: nn.Module) -> Iterator[str]:
    """List the functions between layers that `node_tap` can find by name; none where the network cannot be traced."""
    for node, name in _traced(module)[1].items():
        takers = (user for user in node.users if user.op == "call_module" and user.args and user.args[0] is node)
        if node.op in ("call_function", "call_method") and next(takers, None) is not None:
            yield name


def _traced(module: nn.Module) -> tuple[fx.Graph, dict[fx.Node, str]]:
    """Return the graph of a network and its nodes' names; both empty where its control flow depends on the image."""
    modules: Any = get_notrace_modules  # untyped in timm
    functions: Any = get_notrace_functions
    try:
        tracer = NodePathTracer(leaf_modules=list(modules()), autowrap_functions=tuple(functions()))
        return tracer.trace(module), dict(tracer.node_to_qualname)
    except Exception:  # in any of its ways
        return fx.Graph(), {}


def _gives(module: nn.Module, graph: fx.Graph, node: fx.Node, tap: Tap, inputs: Tensor) -> bool:
    """Tell whether a tap takes what a node of the traced graph gives."""
    seen: list[Any] = []

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            found = super().run_node(n)
            if n is node:
                seen.append(found.clone() if isinstance(found, Tensor) else found)
            return found

    with torch.no_grad():
        Watch(module, graph=graph).run(inputs)
        with tap.captured(module) as found:
            module(inputs)
    ours, theirs = main_output(found[tap.call]), main_output(seen[0]) if seen else None
    return isinstance(ours, Tensor) and isinstance(theirs, Tensor) and torch.equal(ours, theirs)

"""Layers by the node names of torchvision and timm: `layer4.1.relu_1` for a second call, `flatten` and `layer1.0.add` for functions.

A node is found by tracing the network symbolically, and is then taken by a hook: of the layer whose call it is, or of the layer that it goes into. The
network that runs stays the one that was loaded, and what the hook takes is compared with what the traced graph gives.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from timm.models import get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from gcaudit.encoders.taps import LOGITS, Tap, layer_tap, main_output
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
    if name == LOGITS:
        return layer_tap(module, Tap("", "output", node=LOGITS), inputs)
    graph, nodes = _traced(module)
    tap = _tap_of(graph, nodes, name)
    numbered = _NUMBERED.fullmatch(name)
    if name not in nodes and numbered and numbered[1] in layers:
        tap = Tap(numbered[1], "output", call=int(numbered[2]), node=name)
    if tap is not None:
        return layer_tap(module, tap, inputs)
    if name in nodes:
        raise ArchitectureError(
            f"expected a function whose result a layer takes first, found that none takes {name!r}; name a layer: gcaudit inspect MODEL --layers lists them"
        )
    known = [node for node in nodes if node not in layers and _tap_of(graph, nodes, node) is not None]
    close = get_close_matches(name, [*layers, *known], n=3) or layers[-3:] or ["none: it has no layers"]
    raise ArchitectureError(
        f"expected the name of a layer, found {name!r}; did you mean {', '.join(close)}? gcaudit inspect MODEL --layers lists them"
    )


def check_node(module: nn.Module, tap: Tap, inputs: Tensor) -> None:
    """Compare what a tap of a node takes with what the traced graph gives there.

    Args:
        module: the network, with its weights.
        tap: any; one of a layer's name has nothing to compare.
        inputs: (1, C, H, W), an image that is not blank.

    Raises:
        ArchitectureError: they differ, as where a function works in place, or it is not one output an image.
    """
    graph, nodes = _traced(module) if tap.node else (fx.Graph(), {})
    if tap.node not in nodes:
        return
    inputs = torch.cat([inputs, inputs.flip(-1) * 0.5 + 0.1])
    node, seen = nodes[tap.node], []

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            found = super().run_node(n)
            if n is node:
                seen.append(found.clone() if isinstance(found, Tensor) else main_output(found))
            return found

    try:
        with torch.no_grad():
            Watch(module, graph=graph).run(inputs)
            with tap.captured(module) as found:
                module(inputs)
        ours, theirs = main_output(found[tap.call]), seen[0]
        same = len(ours) == 2 and torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6, equal_nan=True)
    except Exception:  # a network may refuse two images, or its graph, in any way
        same = False
    if not same:
        raise ArchitectureError(
            f"expected {tap.node!r} to give one output an image that a hook can take, found that it does not; name a layer: "
            "gcaudit inspect MODEL --layers lists them"
        )


def _tap_of(graph: fx.Graph, nodes: Mapping[str, fx.Node], name: str) -> Tap | None:
    """Return the tap of a layer's call, or of what goes into the layer that takes a function's result; None where there is neither."""
    wanted = nodes.get(name)
    calls: Counter[str] = Counter()
    for node in graph.nodes if wanted is not None else ():
        if node.op != "call_module":
            continue
        layer = str(node.target)
        if node is wanted:
            return Tap(layer, "output", call=calls[layer], node=name)
        if node.args and node.args[0] is wanted:
            return Tap(layer, "before", call=calls[layer], node=name) if wanted.op in ("call_function", "call_method") else None
        calls[layer] += 1
    return None


def trace(module: nn.Module) -> fx.Graph:
    """Return the graph of a network; it has no nodes where its control flow depends on the image."""
    return _traced(module)[0]


def node_of(graph: fx.Graph, tap: Tap) -> fx.Node | None:
    """Find what a tap takes in a graph.

    Args:
        graph: of `trace`.
        tap: any.

    Returns:
        The node; None where the graph does not call the layer, or where something stands between it and the embedding.
    """
    if not tap.layer:
        return next(
            (node.all_input_nodes[0] for node in graph.nodes if node.op == "output" and len(node.all_input_nodes) == 1), None
        )
    calls = [node for node in graph.nodes if node.op == "call_module" and node.target == tap.layer]
    if not calls or not (tap.meets_layer or tap.side == "output"):
        return None
    node: fx.Node = calls[tap.call]
    return node if tap.side == "output" else node.all_input_nodes[0]


def _traced(module: nn.Module) -> tuple[fx.Graph, dict[str, fx.Node]]:
    """Return the graph of a network and its nodes' names; both empty where its control flow depends on the image."""
    modules: Any = get_notrace_modules  # untyped in timm
    functions: Any = get_notrace_functions
    try:
        tracer = NodePathTracer(leaf_modules=list(modules()), autowrap_functions=tuple(functions()))
        graph = tracer.trace(module)
        return graph, {name: node for node, name in tracer.node_to_qualname.items()}
    except Exception:  # in any of its ways
        return fx.Graph(), {}

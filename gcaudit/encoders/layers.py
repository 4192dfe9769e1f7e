"""The layers of a network that `--layer` can name, with what they give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from gcaudit.encoders.encoder import Encoder
from gcaudit.encoders.taps import dry_input, main_output


@final
@dataclass(frozen=True)
class Layer:
    """A layer of a network.

    Attributes:
        name: for `--layer`.
        kind: name of its class.
        shape: of its output for one image, without the first dimension; None where it is not called or gives no tensor.
        calls: how often it is called for one image.
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None
    calls: int


def list_layers(encoder: Encoder) -> list[Layer]:
    """Run a network on one blank image and look at what its layers give.

    Args:
        encoder: with its module on the CPU.

    Returns:
        All layers in the network's own order.
    """
    module = encoder.module
    shapes: dict[str, tuple[int, ...]] = {}
    calls: dict[str, int] = {}
    layers = [(name, child) for name, child in module.named_modules() if name]

    def watch(name: str, child: nn.Module) -> Any:
        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            found = main_output(output)
            if isinstance(found, Tensor) and found.ndim:
                shapes[name] = tuple(found.shape[1:])

        return child.register_forward_hook(note)

    handles = [watch(name, child) for name, child in layers]
    try:
        with torch.no_grad():
            module(encoder.preprocessing.normalize(dry_input(encoder.preprocessing.input_size, module)))
    finally:
        for handle in handles:
            handle.remove()
    return [Layer(name, type(child).__name__, shapes.get(name), calls.get(name, 0)) for name, child in layers]

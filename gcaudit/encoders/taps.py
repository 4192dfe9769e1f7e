"""Where the embedding is taken: timm's pre-logits, the classifier's input, or any layer's output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from gcaudit.errors import ArchitectureError

LOGITS = "logits"
"""Stands for the network's own output, where no layer has this name."""
_CHANNELS_FIRST = (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@final
@dataclass(frozen=True)
class Tap:
    """A place in a network.

    Attributes:
        layer: name of the module.
        side: `pre_logits` (timm's own), `input` of the classifier, `output` of the module, or what goes into it (`before`).
        pooling: what was done to maps, for the report.
        channels_last: maps are (N, H, W, C).
        meets_layer: the embedding is what goes into the layer; with timm's pre-logits, a norm or a second head may stand between them.
        call: which call of the module in one run, from 0; -1 for the last.
        node: name of this call or of the function before it, where that is what was asked for.
    """

    layer: str
    side: Literal["pre_logits", "input", "output", "before"]
    pooling: str = ""
    channels_last: bool = False
    meets_layer: bool = True
    call: int = -1
    node: str = ""

    @property
    def name(self) -> str:
        """What `--layer` calls it, or the name of the classifier."""
        return self.node or self.layer

    @property
    def at_head(self) -> bool:
        """Whether the layer is the classifier, rather than one that was asked for."""
        return self.side in ("pre_logits", "input")

    def captured(self, module: nn.Module) -> AbstractContextManager[list[Any]]:
        """Record what goes into or comes out of the layer while the context is open; a list that grows by one entry a call."""
        return captured(module, self.layer, "input" if self.side == "pre_logits" else self.side)

    def vectors(self, found: Sequence[Any]) -> Tensor:
        """Make one vector an image of what was recorded; maps are averaged over space.

        Args:
            found: by `captured`, in one run.

        Returns:
            (N, D).

        Raises:
            ArchitectureError: the layer was not called, or gives no tensors.
        """
        if not found:
            raise ArchitectureError(f"expected a layer that is called, found that {self.layer!r} is not; choose another --layer")
        return _to_vectors(found[self.call], self.channels_last)

    def describe(self) -> str:
        """Say in words what the embedding is."""
        if self.side == "pre_logits":
            return f"forward_head(..., pre_logits=True), {'input of' if self.meets_layer else 'before what leads to'} {self.layer}"
        if not self.layer:
            return "the network's output"
        side = "input" if self.side == "input" else "output"
        return f"{side} of {self.name}" + (f", {self.pooling}" if self.pooling else "")

    def __call__(self, module: nn.Module, inputs: Tensor, *, logits: bool = False) -> tuple[Tensor, Tensor | None]:
        """Run the network.

        Args:
            module: the network.
            inputs: (N, C, H, W), normalised.
            logits: also return the head's output.

        Returns:
            Embeddings (N, D), and logits (N, classes) or None.
        """
        if self.side == "pre_logits":
            network: Any = module
            features = network.forward_features(inputs)
            embeddings = network.forward_head(features, pre_logits=True)
            return _to_vectors(embeddings, self.channels_last), network.forward_head(features) if logits else None
        with self.captured(module) as found:
            output = main_output(module(inputs))
        return self.vectors(found), output if logits else None


@contextmanager
def captured(module: nn.Module, layer: str, side: str) -> Iterator[list[Any]]:
    """Record what goes into or comes out of a layer while the context is open.

    Args:
        module: the network.
        layer: name of a module in it.
        side: `input`, `output`, or `before`: the input, kept from a layer that works in place.

    Yields:
        A list that grows by one entry a call of the layer.
    """
    found: list[Any] = []

    def before(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
        found.append(main_output(arguments[0]).clone() if side == "before" else arguments[0])

    def after(_module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
        # a layer that follows may work in place, on this very tensor
        kept = main_output(output)
        found.append(kept.clone() if isinstance(kept, Tensor) else kept)

    target = module.get_submodule(layer)
    handle = target.register_forward_hook(after) if side == "output" else target.register_forward_pre_hook(before)
    try:
        yield found
    finally:
        handle.remove()


def main_output(output: Any) -> Any:
    """Take the tensor that matters from what a network returns.

    Args:
        output: a tensor, a tuple, a dict or an object with `logits`.

    Returns:
        The logits, or the first entry.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict):
        return output.get("logits", next(iter(output.values()), None))
    if hasattr(output, "logits"):
        return output.logits
    return output[0] if isinstance(output, tuple | list) and output else output


def _to_vectors(found: Any, channels_last: bool) -> Tensor:
    found = main_output(found)
    if not isinstance(found, Tensor) or found.ndim < 2:
        raise ArchitectureError(f"expected a layer that gives tensors, found {type(found).__name__}; choose another --layer")
    if found.ndim == 2:
        return found
    if found.ndim == 3:
        return found.mean(1)
    dims = tuple(range(1, found.ndim - 1)) if channels_last else tuple(range(2, found.ndim))
    return found.mean(dims)


def _pooling(found: Any, channels_last: bool) -> str:
    shape = tuple(main_output(found).shape[1:])
    if len(shape) < 2:
        return ""
    if len(shape) == 2:
        return f"averaged over {shape[0]} tokens"
    sides = shape[:-1] if channels_last else shape[1:]
    return f"averaged over {'x'.join(str(side) for side in sides)} positions"


def layer_tap(module: nn.Module, tap: Tap, inputs: Tensor) -> Tap:
    """Look at what a layer gives; maps are averaged over space.

    Args:
        module: the network.
        tap: of a layer of `module.named_modules()`.
        inputs: one image.

    Returns:
        The tap, with what was done to maps.

    Raises:
        ArchitectureError: the layer is not called, or not so often.
    """
    with tap.captured(module) as found:
        module(inputs)
    if not found:
        raise ArchitectureError(f"expected a layer that is called, found that {tap.layer!r} is not; choose another --layer")
    if tap.call >= len(found):
        raise ArchitectureError(
            f"expected a call of {tap.layer} from {tap.layer}_0 to {tap.layer}_{len(found) - 1}, found {tap.name!r}; choose another --layer"
        )
    channels_last = _is_channels_last(module, module.get_submodule(tap.layer))
    vectors = _to_vectors(found[tap.call], channels_last)
    if len(vectors) != len(inputs):
        raise ArchitectureError(
            f"expected one output an image, found {len(vectors)} of {tap.name!r}, which sees parts of images; choose another --layer"
        )
    return replace(tap, pooling=_pooling(found[tap.call], channels_last), channels_last=channels_last)


def _is_channels_last(module: nn.Module, layer: nn.Module) -> bool:
    """Tell whether a layer's maps are (N, H, W, C): some layers say by their kind, others by the network they are in."""
    if type(layer) in (nn.Linear, nn.LayerNorm):
        return True
    order = getattr(layer, "dims", None)  # of torchvision's Permute
    if isinstance(layer, _CHANNELS_FIRST) or order == [0, 3, 1, 2]:
        return False
    return getattr(module, "output_fmt", "NCHW") == "NHWC" or type(module).__name__ == "SwinTransformer"


def classifier_tap(module: nn.Module, inputs: Tensor) -> Tap:
    """Tap the input of the classifier: the last Linear that alone decides the network's output.

    SqueezeNet and its like classify by a 1x1 convolution on a map; its input is averaged over space.

    Args:
        module: the network.
        inputs: one image.

    Returns:
        The tap.

    Raises:
        ArchitectureError: the network ends in no classifier.
    """
    calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []
    handles = []
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear | nn.Conv2d):
            handles.append(
                child.register_forward_hook(
                    lambda m, args, out, name=name: calls.append((name, m, args[0], out)), always_call=False
                )
            )
    try:
        output = main_output(module(inputs))
    finally:
        for handle in handles:
            handle.remove()
    for name, child, given, made in reversed(calls):
        if not isinstance(output, Tensor) or output.ndim != 2:
            break
        pointwise = isinstance(child, nn.Conv2d) and child.kernel_size == (1, 1) and made.shape[:2] == output.shape
        if (pointwise or made.shape == output.shape) and (made is output or _decides(module, name, inputs)):
            return Tap(name, "input", _pooling(given, False))
    last = calls[-1][0] if calls else "a layer's name"
    raise ArchitectureError(f"expected a network that ends in a Linear classifier, found none; name the layer: --layer {last}")


def _decides(module: nn.Module, layer: str, inputs: Tensor) -> bool:
    """Tell whether the network's output depends on the image through a layer's output alone; a squeeze-and-excitation's does not."""
    image = inputs.detach().clone().requires_grad_()
    cut: list[Tensor] = []

    def replace(_module: nn.Module, _arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        cut.append(output.detach().requires_grad_())
        return cut[-1].clone()

    handle = module.get_submodule(layer).register_forward_hook(replace)
    try:
        with torch.enable_grad():
            output = main_output(module(image.clone())).sum()
            around, *through = torch.autograd.grad(output, [image, *cut], allow_unused=True) if output.requires_grad else [None]
    finally:
        handle.remove()
    return around is None and any(gradient is not None for gradient in through)


def pre_logits_tap(module: nn.Module) -> Tap:
    """Tap a timm model where timm does: forward_head(forward_features(x), pre_logits=True).

    Args:
        module: a timm model.

    Returns:
        The tap; its layer is the classifier's name.
    """
    config = getattr(module, "pretrained_cfg", None) or {}
    classifier = config.get("classifier") or "head"
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return Tap(names[0], "pre_logits", "", getattr(module, "output_fmt", "NCHW") == "NHWC")


def head_modules(module: nn.Module, tap: Tap) -> tuple[str, ...]:
    """Name the classifier's modules.

    Args:
        module: the network.
        tap: where the embedding is taken.

    Returns:
        Names; empty when unknown.
    """
    config = getattr(module, "pretrained_cfg", None)
    classifier = config.get("classifier") if isinstance(config, dict) else getattr(config, "classifier", None)
    if tap.side == "pre_logits" and classifier:
        return (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return (tap.layer,) if tap.side == "input" else ()


def dry_input(size: tuple[int, int, int], module: nn.Module) -> Tensor:
    """Make one blank image for looking at shapes.

    Args:
        size: (C, H, W).
        module: where it will go.

    Returns:
        (1, C, H, W) zeros of the module's type.
    """
    sample = next(module.parameters(), torch.zeros(0))
    return torch.zeros(1, *size, dtype=sample.dtype, device=sample.device)

"""What theory asks of the network itself: how flat its loss is, and how fast its embedding can change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gcaudit.data import ImageSet, stream_batches
from gcaudit.encoders import dry_input, lipschitz_bound, main_output, picture_transform
from gcaudit.errors import one_line
from gcaudit.geometry import Flatness, derive_seed, random_order_keys, sampled_flatness
from gcaudit.passes.runner import Runner

_IMAGES, _BATCHES = 256, 8


@final
class _Head(nn.Module):
    """A network that returns its logits, whatever it returns them in."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = main_output(self.network(inputs))
        return found


def look_at_flatness(runner: Runner, images: ImageSet) -> tuple[Flatness | None, str]:
    """Measure slope and sharpness of the head's loss, on at most 256 images in 8 random batches, each image of any class alike.

    Args:
        runner: the model, whose head has the classes of the data.
        images: the data set.

    Returns:
        Both, or None and the reason.
    """
    seed = derive_seed(runner.settings.seed, "flatness images")
    batches = _draw(images, seed)
    if len(batches) < 3:
        return None, f"slope and sharpness need at least 3 batches of images, found {len(images.labels)} images"
    device, kind = runner.device, runner.kind
    normalize = runner.encoder.preprocessing.normalizer(device, kind)
    transform = picture_transform(runner.encoder.preprocessing)
    numbers = torch.tensor(images.class_numbers)
    data = []
    for batch in stream_batches(images.reader, images.index, batches, transform, workers=0, pin=False):
        pixels = batch.pixels.to(device)
        pixels = pixels.to(kind) if pixels.is_floating_point() else pixels.to(kind) / 255
        if len(pixels):
            data.append((normalize(pixels), numbers[images.labels[batch.positions]].to(device)))
    network = _Head(runner.encoder.module.to(device))
    try:
        with _learning(network), sdpa_kernel(SDPBackend.MATH):  # the other kernels of attention have no second derivative
            return sampled_flatness(network, data, seed=derive_seed(runner.settings.seed, "flatness")), ""
    except torch.OutOfMemoryError:
        return None, f"memory ran out at {_IMAGES // _BATCHES} images a batch"
    except (RuntimeError, ValueError) as error:
        return None, f"the loss could not be differentiated twice: {one_line(error)}"


def _draw(images: ImageSet, seed: int) -> list[list[int]]:
    """Choose images, each of a class drawn anew and at most half of all: a balanced draw would make batches unlike each other, and their products too small."""
    size, classes = len(images.labels), len(images.class_names)
    order = torch.argsort(random_order_keys(seed, images.index))
    waiting = [order[images.labels[order] == number].tolist() for number in range(classes)]
    drawn = (random_order_keys(derive_seed(seed, "classes"), torch.arange(4 * _IMAGES)) % classes).tolist()
    chosen = [waiting[number].pop() for number in drawn if waiting[number]][: min(_IMAGES, size // 2)]
    batches = torch.tensor(chosen, dtype=torch.int64).chunk(_BATCHES) if chosen else ()
    return [part.tolist() for part in batches]


@contextmanager
def _learning(network: nn.Module) -> Iterator[None]:
    """Let parameters have gradients for a while."""
    frozen = [weight for weight in network.parameters() if weight.is_floating_point() and not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_()
    try:
        yield
    finally:
        for weight in frozen:
            weight.requires_grad = False


def look_at_layers(runner: Runner) -> tuple[float | None, str]:
    """Bound the embedding's Lipschitz constant with respect to what the Jacobian is taken of.

    Args:
        runner: the model.

    Returns:
        The constant, in embedding units per pixel unit, or None and the reason.
    """
    preprocessing: Any = runner.encoder.preprocessing
    blank = dry_input(preprocessing.input_size, runner.network)
    bound, reason = lipschitz_bound(runner.network, runner.encoder.tap, blank)
    if bound is None or runner.settings.input_space == "normalized":
        return bound, reason
    return bound / min(preprocessing.std), ""

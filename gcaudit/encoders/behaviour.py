"""Whether a network is a function of one image: embeddings of others mean nothing, and differ with the batch size and from run to run."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gcaudit.encoders.taps import Tap
from gcaudit.errors import ArchitectureError, shorten
from gcaudit.report import ReportWarning, warn

_TOLERANCE = 1e-3
"""Of the norm: far more than kernels for other batch sizes differ by, far less than dropout or batch statistics do."""

_AGAIN = 3
"""Dropout of a few numbers may leave all of them once."""


def check_module(module: nn.Module, name: str) -> None:
    """Refuse parameters and buffers that are not finite; those of files are looked at when they are read.

    Args:
        module: the network.
        name: for the message.

    Raises:
        ArchitectureError: naming the first.
    """
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    bad = [key for key, tensor in tensors.items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())]
    if bad:
        raise ArchitectureError(f"expected finite weights of {name}, found NaN or inf in {shorten(bad, 3)}; the training broke")


def behaviour_warnings(module: nn.Module, tap: Tap, noise: Tensor, embedding: Tensor) -> list[ReportWarning]:
    """Look whether an image's embedding depends on anything but the image.

    Args:
        module: the network.
        tap: where the embedding is taken.
        noise: (1, C, H, W), an image.
        embedding: (1, D), what it gave.

    Returns:
        Warnings: other numbers each time, other numbers beside other images, one of several outputs taken.
    """
    found = []
    with torch.no_grad():
        if any(_differ(embedding, tap(module, noise)[0]) for _ in range(_AGAIN)):
            line = "the network gives another embedding each time it sees an image, as dropout does: numbers differ from run to run"
            found.append(warn("network", line))
        elif _depends_on_others(module, tap, noise, embedding):
            line = "the embedding of an image depends on the images beside it, as with statistics of the batch: numbers differ with --batch-size"
            found.append(warn("network", line))
        calls, outputs = (0, 0) if tap.side == "pre_logits" else _calls_and_outputs(module, tap, noise)
    if calls > 1:
        found.append(
            warn(
                "network",
                f"{tap.layer} is called {{n}} times for an image, of which the last was taken; name another --layer, such as {tap.layer}_0 for the first",
                count=calls,
            )
        )
    if outputs > 1:
        found.append(
            warn("network", "the network has {n} outputs, of which the first was taken; name a --layer for others", count=outputs)
        )
    return found


def _depends_on_others(module: nn.Module, tap: Tap, noise: Tensor, embedding: Tensor) -> bool:
    try:
        beside, _ = tap(module, torch.cat([noise, noise.flip(-1) * 0.5 + 0.1]))
    except Exception:  # it may be made for one image at a time
        return False
    return len(beside) == 2 and _differ(embedding, beside[:1])


def _differ(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return True
    tolerance = max(_TOLERANCE, 4 * torch.finfo(a.dtype).eps)  # half precision rounds more than that
    return bool((a.double() - b.double()).norm() > tolerance * a.double().norm().clamp(min=1e-12))


def _calls_and_outputs(module: nn.Module, tap: Tap, noise: Tensor) -> tuple[int, int]:
    """Count calls of the layer, and what might be an embedding or logits among what a network returns."""
    with tap.captured(module) as calls:
        output = module(noise)
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    return len(calls) if tap.call < 0 else 1, sum(isinstance(part, Tensor) and part.ndim == 2 for part in parts)

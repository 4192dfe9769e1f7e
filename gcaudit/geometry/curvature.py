"""Flatness of the loss over the parameters: its slope, and the sharpness of the place it is at.

    slope     = |grad L|^2,      sharpness = tr(H) / P,      L = mean cross-entropy of N images, H its Hessian, P parameters

Hutchinson: for random signs v, v^T H v has mean tr(H) and, as v_i^2 = 1, the variance 2 sum over i != j of H_ij^2, less than with any other
distribution. Each v takes a backward pass through a backward pass over all images, whatever P is; the spread over vectors is the standard error. Both
are of the images at hand: of N others from the same distribution, the slope's mean is larger than the distribution's by tr(Cov grad)/N.

References: Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines", 1989; Dherin, Munn, Rosca,
Barrett, "Why neural networks find simple solutions", NeurIPS 2022 (the slope); Munn, Dherin, Gonzalvo, NeurIPS 2024, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gcaudit.geometry.counter import derive_seed, random_bits
from gcaudit.geometry.estimate import Estimate, missing
from gcaudit.geometry.interval import student_quantile

Batches = Iterable[tuple[Tensor, Tensor]]
"""Inputs and labels; it is gone through once for the slope, and once for each vector."""


@final
@dataclass(frozen=True)
class Flatness:
    """How flat the loss is where a network stands.

    Attributes:
        loss: mean cross-entropy in nats, of the images at hand.
        slope: squared norm of its gradient; no interval, since it is no estimate for these images.
        sharpness: trace of its Hessian over the number of parameters, with the standard error of its random vectors.
        parameters: P.
        images: N.
    """

    loss: float
    slope: Estimate
    sharpness: Estimate
    parameters: int
    images: int


def flatness(network: nn.Module, batches: Batches, *, vectors: int = 16, seed: int = 0) -> Flatness:
    """Measure slope and sharpness.

    Args:
        network: from inputs to logits, in the mode it is in: in eval mode images do not see one another.
        batches: inputs and int64 labels, such as a list or a `DataLoader` that does not shuffle.
        vectors: of the sharpness, at least 2.
        seed: of the vectors.

    Returns:
        Both, in nats per squared parameter unit; `parameters` are those that require a gradient.

    Raises:
        ValueError: fewer than 2 vectors, no images, or no parameters.
    """
    weights: list[Tensor] = [weight for weight in network.parameters() if weight.requires_grad]
    if vectors < 2 or not weights:
        raise ValueError(f"expected at least 2 vectors and a parameter, found {vectors} and {len(weights)}")
    count, loss, gradient = 0, 0.0, [torch.zeros_like(weight, dtype=torch.float64, device="cpu") for weight in weights]
    for summed, rows in _losses(network, batches):
        count, loss = count + rows, loss + float(summed.detach())
        found = _parts(torch.autograd.grad(summed, weights, allow_unused=True), weights)
        gradient = [total + part.double().cpu() for total, part in zip(gradient, found, strict=True)]
    if count == 0:
        raise ValueError("expected at least one image, found none")
    size = sum(weight.numel() for weight in weights)
    slope = float(sum(float((total / count).square().sum()) for total in gradient))
    drawn = [
        _along(network, batches, weights, _signs(weights, derive_seed(seed, "sharpness", str(number)))) for number in range(vectors)
    ]
    return Flatness(
        loss / count,
        _finite(slope, count),
        _sharpness(torch.tensor(drawn, dtype=torch.float64) / (count * size), count),
        size,
        count,
    )


def _losses(network: nn.Module, batches: Batches) -> Iterator[tuple[Tensor, int]]:
    """Sum the loss over each batch."""
    with torch.enable_grad():
        for inputs, labels in batches:
            yield cross_entropy(network(inputs), labels, reduction="sum"), len(labels)


def _parts(found: Iterable[Tensor | None], weights: list[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(weight) if part is None else part for part, weight in zip(found, weights, strict=True)]


def _signs(weights: list[Tensor], seed: int) -> list[Tensor]:
    found = []
    for number, weight in enumerate(weights):
        bits = random_bits(derive_seed(seed, str(number)), torch.arange(weight.numel()))
        found.append(torch.where(bits < 0, -1.0, 1.0).view(weight.shape).to(weight))
    return found


def _along(network: nn.Module, batches: Batches, weights: list[Tensor], signs: list[Tensor]) -> float:
    """Return v^T H v of the summed loss."""
    total = 0.0
    for summed, _ in _losses(network, batches):
        gradients = torch.autograd.grad(summed, weights, create_graph=True, allow_unused=True)
        slope = sum((g * v).sum() for g, v in zip(gradients, signs, strict=True) if g is not None)
        if isinstance(slope, Tensor) and slope.requires_grad:
            turned = _parts(torch.autograd.grad(slope, weights, allow_unused=True), weights)
            total += sum(float((part * v).sum(dtype=torch.float64)) for part, v in zip(turned, signs, strict=True))
    return total


def _finite(value: float, count: int) -> Estimate:
    number = torch.tensor(value)
    return (
        Estimate(value, n=count)
        if bool(number.isfinite())
        else missing("the value is beyond the range of 64-bit floating point", count)
    )


def _sharpness(drawn: Tensor, count: int) -> Estimate:
    value, error = float(drawn.mean()), float(drawn.std() / len(drawn) ** 0.5)
    if not (math.isfinite(value) and math.isfinite(error)):
        return missing("the value is beyond the range of floating point", count)
    half = student_quantile(len(drawn) - 1) * error
    return Estimate(value, error, (value - half, value + half), count, details={"vectors": len(drawn)})

"""Flatness of the loss over the parameters: its slope, and the sharpness of the place it is at.

    slope     = |grad L|^2,      sharpness = tr(H) / P,      L = mean cross-entropy of N images, H its Hessian, P parameters

Hutchinson: for random signs v, v^T H v has mean tr(H) and, as v_i^2 = 1, the variance 2 sum over i != j of H_ij^2, less than with any other
distribution. Each v takes a backward pass through a backward pass over all images, whatever P is; the spread over vectors is the standard error. `flatness`
is of the images at hand: of N others from the same distribution, the slope's mean is larger than the distribution's by tr(Cov grad)/N, which is
most of it where training has ended. `sampled_flatness` is of the distribution, from several batches drawn from it.

References: Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines", 1989; Dherin, Munn, Rosca,
Barrett, "Why neural networks find simple solutions", NeurIPS 2022 (the slope); Munn, Dherin, Gonzalvo, NeurIPS 2024, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

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

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        kept = ("value", "stderr", "ci95", "n", "reason", "details")
        both = {name: {key: getattr(getattr(self, name), key) for key in kept} for name in ("slope", "sharpness")}
        return {"loss": self.loss, "parameters": self.parameters, "images": self.images, **both}

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> Flatness:
        """Read it back.

        Args:
            found: from `to_json`.
        """
        both = {}
        for name in ("slope", "sharpness"):
            kept = dict(found[name])
            interval = kept.pop("ci95")
            both[name] = Estimate(ci95=None if interval is None else (interval[0], interval[1]), **kept)
        return Flatness(found["loss"], **both, parameters=found["parameters"], images=found["images"])


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
    count, loss, gradient = 0, 0.0, _zeros(weights)
    for summed, rows, found in _gradients(network, batches, weights):
        count, loss = count + rows, loss + summed
        gradient = [total + part for total, part in zip(gradient, found, strict=True)]
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


def sampled_flatness(network: nn.Module, batches: Batches, *, vectors: int = 2, seed: int = 0) -> Flatness:
    """Estimate slope and sharpness for the distribution that images were drawn from.

    With G_b the sum of gradients over batch b of n_b images, products of different batches have no bias: slope = (|sum G_b|^2 - sum |G_b|^2) / (N^2 -
    sum n_b^2), with the jackknife's standard error over batches. It may fall below 0 where the slope is small. Each batch has random vectors of its own,
    so that the spread of the batches' sharpness holds the noise of images and of vectors.

    Args:
        network: as for `flatness`.
        batches: at least 3, each a random draw; gone through twice, and once for each vector.
        vectors: of the sharpness, for each batch.
        seed: of the vectors.

    Returns:
        Both; the slope's `plug_in` is that of the images at hand.

    Raises:
        ValueError: fewer than 3 batches, or no parameters.
    """
    weights: list[Tensor] = [weight for weight in network.parameters() if weight.requires_grad]
    counts: list[float] = []
    losses: list[float] = []
    squares: list[float] = []
    total = _zeros(weights)
    for summed, rows, gradient in _gradients(network, batches, weights):
        counts.append(float(rows))
        losses.append(summed)
        squares.append(_product(gradient, gradient))
        total = [before + part for before, part in zip(total, gradient, strict=True)]
    if len(counts) < 3 or not weights:
        raise ValueError(f"expected at least 3 batches and a parameter, found {len(counts)} and {len(weights)}")
    along = torch.tensor(
        [_product(gradient, total) for _, _, gradient in _gradients(network, batches, weights)], dtype=torch.float64
    )
    n, own = torch.tensor(counts, dtype=torch.float64), torch.tensor(squares, dtype=torch.float64)
    count, size, whole = int(n.sum()), sum(weight.numel() for weight in weights), _product(total, total)
    value = (whole - float(own.sum())) / (count**2 - float(n.square().sum()))
    without = (whole - 2 * along + 2 * own - own.sum()) / ((count - n).square() - n.square().sum() + n.square())
    turned = torch.zeros(len(n), dtype=torch.float64)
    for number in range(vectors):
        for place, (graph, _) in enumerate(_losses(network, batches)):
            signs = _signs(weights, derive_seed(seed, "sharpness", f"{number} {place}"))
            turned[place] += _turned(graph, weights, signs) / vectors
    shares = turned / (n * size)
    slope = _with_spread(value, math.sqrt((len(n) - 1) * float(without.var(correction=0))), len(n), count, plug_in=whole / count**2)
    spread = float(((shares - float(turned.sum()) / (count * size)) * n).square().sum() / (len(n) - 1) * len(n)) ** 0.5 / count
    sharpness = _with_spread(float(turned.sum()) / (count * size), spread, len(n), count, vectors=vectors)
    return Flatness(sum(losses) / count, slope, sharpness, size, count)


def _check_twice(slope: Tensor) -> None:
    """Refuse functions that are marked as differentiable once: torch takes their gradients for constants here, without a word."""
    seen, waiting = set(), [slope.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node.name().endswith("::Error"):
            raise RuntimeError("a function of the network is marked as differentiable once")
        seen.add(node)
        waiting += [before for before, _ in node.next_functions]


def _with_spread(value: float, error: float, batches: int, count: int, **details: Any) -> Estimate:
    if not (math.isfinite(value) and math.isfinite(error)):
        return missing("the value is beyond the range of floating point", count)
    half = student_quantile(batches - 1) * error
    return Estimate(value, error, (value - half, value + half), count, details=details)


def _zeros(weights: list[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(weight, dtype=torch.float64, device="cpu") for weight in weights]


def _product(first: list[Tensor], second: list[Tensor]) -> float:
    return sum(float((a * b).sum()) for a, b in zip(first, second, strict=True))


def _gradients(network: nn.Module, batches: Batches, weights: list[Tensor]) -> Iterator[tuple[float, int, list[Tensor]]]:
    """Sum the loss over each batch, and take its gradient in float64."""
    for summed, rows in _losses(network, batches):
        found = _parts(torch.autograd.grad(summed, weights, allow_unused=True), weights)
        yield float(summed.detach()), rows, [part.double().cpu() for part in found]


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
    return sum(_turned(summed, weights, signs) for summed, _ in _losses(network, batches))


def _turned(summed: Tensor, weights: list[Tensor], signs: list[Tensor]) -> float:
    """Return v^T H v of a loss."""
    gradients = torch.autograd.grad(summed, weights, create_graph=True, allow_unused=True)
    slope = sum((g * v).sum() for g, v in zip(gradients, signs, strict=True) if g is not None)
    if not (isinstance(slope, Tensor) and slope.requires_grad):
        return 0.0
    _check_twice(slope)
    turned = _parts(torch.autograd.grad(slope, weights, allow_unused=True), weights)
    return sum(float((part * v).sum(dtype=torch.float64)) for part, v in zip(turned, signs, strict=True))


def _finite(value: float, count: int) -> Estimate:
    number = torch.tensor(value)
    return (
        Estimate(value, n=count)
        if bool(number.isfinite())
        else missing("the value is beyond the range of 64-bit floating point", count)
    )


def _sharpness(drawn: Tensor, count: int) -> Estimate:
    value, error = float(drawn.mean()), float(drawn.std() / len(drawn) ** 0.5)
    return _with_spread(value, error, len(drawn), count, vectors=len(drawn))

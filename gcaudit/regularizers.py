"""Geometric complexity as a penalty while a network is trained.

The geometric complexity of z(x) over a batch of B images is (1/B) sum over images of ||dz/dx||_F^2. With a random vector v, E[v v^T] = I, one
backward pass gives an unbiased value of it, ||J^T v||^2, whatever the dimension of z; its own gradient, by a second backward pass, is unbiased for
the gradient of the penalty. So the penalty costs the same at the embedding and at the logits, where the paper tries it for want of this.

Reference: Dherin, Munn, Rosca, Barrett, "Why neural networks find simple solutions: the many regularizers of geometric complexity", NeurIPS 2022;
Munn, Dherin, Gonzalvo, NeurIPS 2024, section 5; Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1989.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gcaudit.encoders import LOGITS, Tap, classifier_tap, head_modules, main_output, named_tap, pre_logits_tap
from gcaudit.errors import RequestError

_NORMS = (nn.modules.batchnorm._BatchNorm,)


@final
class GeometricComplexity:
    """The geometric complexity of an embedding as a penalty, to be added to the loss.

    `exact` differentiates one backward pass through a random vector at the embedding. `finite-step` moves each image by `step` times a random normal
    u and takes ||z(x + step u) - z(x)||^2 / step^2: one forward pass more in place of a second backward one. Where z is smooth its mean is off by
    step^2 (E||u^T H u||^2 / 4 + E<J u, T(u, u, u)> / 3), H and T the second and third derivatives of z; where a kink of a ReLU lies within
    the step, in proportion to it.

    In train mode a batch norm takes its statistics of the batch, so that an image's embedding depends on the others. The penalty then is that of the
    Jacobian of the whole batch, (1/B) ||d(z_1 ... z_B)/d(x_1 ... x_B)||_F^2: without the directions along which the statistics would undo a
    change, and with what images do to one another. `frozen_statistics` takes the running statistics for the penalty alone, as an audit does in eval
    mode, at the cost of one more forward pass.

    It works under autocast (where the penalty has the precision of its layers), with `DistributedDataParallel`, and with `torch.compile`: compiled
    code cannot be differentiated twice and cannot be looked into, so a compiled network runs uncompiled but for the finite step at the logits. With `exact`,
    attention runs in torch's plain kernel, the only one that has a second derivative: it keeps the whole attention matrix.

    Attributes:
        steps: how often it was called; `state_dict` keeps it, so that schedules go on after a restart.
        last: the geometric complexity of the last batch that it was taken of, without gradient; None before.

    Example:
        >>> penalty = GeometricComplexity(1e-4)
        >>> outputs, complexity = penalty(model, images)  # doctest: +SKIP
        >>> (criterion(outputs, labels) + complexity).backward()  # doctest: +SKIP
    """

    def __init__(
        self,
        weight: float,
        layer: str | None = None,
        *,
        vectors: int | Literal["all"] = 1,
        method: Literal["exact", "finite-step"] = "exact",
        step: float = 0.01,
        std: Sequence[float] | None = None,
        frozen_statistics: bool = False,
        warmup: int = 0,
        every: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        """Settle what is penalised.

        Args:
            weight: that multiplies the complexity.
            layer: whose output is the embedding, as for `gcaudit score --layer`, averaged over positions; `logits` for the network's output; None for the
                input of its classifier.
            vectors: random vectors a batch; `all` takes each dimension once, which is no estimate and costs as many backward passes.
            method: `exact` or `finite-step`.
            step: length of the finite step along each axis, in units of the network's input.
            std: of the normalisation, one a channel, so that the complexity is per squared pixel of images in [0, 1]; None takes the network's input.
            frozen_statistics: take running statistics of batch norms.
            warmup: calls over which the weight grows from 0, linearly.
            every: calls of which only the first is penalised, with so many times the weight, so that its mean stays.
            generator: of the random vectors; None for torch's own.

        Raises:
            RequestError: a number is out of range.
        """
        for name, number, least in (("weight", weight, 0), ("warmup", warmup, 0), ("every", every, 1)):
            if not (math.isfinite(number) and number >= least):
                raise RequestError(f"expected {name} of at least {least}, found {number}")
        if method not in ("exact", "finite-step"):
            raise RequestError(f"expected a method of exact or finite-step, found {method!r}")
        if vectors != "all" and (isinstance(vectors, str) or vectors < 1):
            raise RequestError(f"expected vectors of at least 1, or 'all', found {vectors!r}")
        if method == "finite-step" and (vectors == "all" or not (math.isfinite(step) and step > 0)):
            raise RequestError(f"expected a number of vectors and a step above 0 with finite-step, found {vectors!r} and {step}")
        self.weight, self.layer, self.vectors, self.method, self.step = weight, layer, vectors, method, step
        self.std = None if std is None else tuple(std)
        self.frozen_statistics, self.warmup, self.every = frozen_statistics, warmup, every
        self.steps = 0
        self.last: Tensor | None = None
        self._generator = generator
        self._taps: dict[int, Tap] = {}

    def __call__(self, model: nn.Module, images: Tensor) -> tuple[Any, Tensor]:
        """Run the network, and take the penalty of the same pass where that is possible.

        Args:
            model: the network, also within `DistributedDataParallel` or compiled.
            images: (B, C, H, W), its input.

        Returns:
            What the network returns, and the penalty times its weight: a number with a gradient, 0 where the schedule leaves it out.

        Raises:
            RequestError: the layer is not there, or does not depend on the images.
        """
        strength = self._strength()
        self.steps += 1
        if strength == 0:
            return model(images), images.new_zeros(())
        take = self._exact if self.method == "exact" else self._finite
        outputs, complexity = take(model, images)
        self.last = complexity.detach()
        return outputs, strength * complexity

    def _strength(self) -> float:
        """Return the weight of this call."""
        if self.steps % self.every:
            return 0.0
        grown = 1.0 if self.warmup == 0 else min(1.0, self.steps / self.warmup)
        return self.weight * self.every * grown

    def state_dict(self) -> dict[str, int]:
        """Return what a restart needs."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where a run was stopped.

        Args:
            state: of `state_dict`.
        """
        self.steps = int(state["steps"])

    def _exact(self, model: nn.Module, images: Tensor) -> tuple[Any, Tensor]:
        inputs = images if images.requires_grad else images.detach().requires_grad_()
        network = _network(model)
        if self.frozen_statistics:
            outputs = model(images)
            with _frozen(network), sdpa_kernel(SDPBackend.MATH):
                embeddings = self._embed(network, inputs, network)[1]
        else:
            with sdpa_kernel(SDPBackend.MATH):
                outputs, embeddings = self._embed(network if _is_compiled(model) else model, inputs, network)
        if not embeddings.requires_grad:
            raise RequestError("expected an embedding that depends on the images, found one without a gradient; leave no_grad out")
        rows, scale = len(images), self._scale(images)
        total = images.new_zeros((), dtype=torch.promote_types(images.dtype, torch.float32))
        with torch.autocast(images.device.type, enabled=False):
            for direction in self._directions(embeddings, network):
                (gradient,) = torch.autograd.grad(embeddings, inputs, direction, create_graph=True)
                total = total + (gradient.to(total.dtype) / scale).square().sum()
        return outputs, total / (rows * (1 if self.vectors == "all" else self.vectors))

    def _directions(self, embeddings: Tensor, network: nn.Module) -> Iterator[Tensor]:
        """Make what is multiplied with the Jacobian: random signs, or one dimension after the other."""
        if self.vectors != "all":
            for _ in range(self.vectors):
                bits = torch.randint(0, 2, embeddings.shape, device=embeddings.device, generator=self._generator)
                yield bits.to(embeddings.dtype) * 2 - 1
            return
        # where images do not see one another, one dimension of all of them at once
        rows: list[int | slice] = list(range(len(embeddings))) if not self.frozen_statistics and _mixes(network) else [slice(None)]
        for row in rows:
            for place in range(embeddings.shape[1]):
                one = torch.zeros_like(embeddings)
                one[row, place] = 1
                yield one

    def _finite(self, model: nn.Module, images: Tensor) -> tuple[Any, Tensor]:
        network = _network(model)
        whole = model if self.layer == LOGITS else network if _is_compiled(model) else model
        again = model if self.layer == LOGITS and _is_compiled(model) else network
        with ExitStack() as stack:
            outputs = None
            if self.frozen_statistics:
                outputs = model(images)
                stack.enter_context(_frozen(network))
            before = _random_state(images.device)
            own, embeddings = self._embed(again if self.frozen_statistics else whole, images, network)
            rows, scale = len(images), self._scale(images)
            total = images.new_zeros((), dtype=torch.promote_types(images.dtype, torch.float32))
            for _ in range(int(self.vectors)):
                direction = torch.randn(images.shape, dtype=images.dtype, device=images.device, generator=self._generator) / scale
                with _unnoticed(network, before, images.device):
                    moved = self._embed(again, images + self.step * direction, network)[1]
                total = total + ((moved - embeddings).to(total.dtype) / self.step).square().sum()
        return outputs if self.frozen_statistics else own, total / (rows * int(self.vectors))

    def _embed(self, model: nn.Module, inputs: Tensor, network: nn.Module) -> tuple[Any, Tensor]:
        """Run a network, and take what it embeds images to."""
        if self.layer == LOGITS:
            outputs = model(inputs)
            return outputs, main_output(outputs).flatten(1)
        tap = self._taps.get(id(network)) or self._taps.setdefault(id(network), _find_tap(network, self.layer, inputs))
        with tap.captured(network) as found:
            outputs = model(inputs)
        return outputs, tap.vectors(found)

    def _scale(self, images: Tensor) -> Tensor:
        if self.std is None:
            return images.new_ones(())
        return images.new_tensor(self.std).view(1, -1, 1, 1)


def _network(model: nn.Module) -> nn.Module:
    """Take a network out of what is wrapped around it."""
    found: Any = model
    while True:
        inner = getattr(found, "_orig_mod", None) if _is_compiled(found) else None
        if inner is None and isinstance(found, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = found.module
        if inner is None:
            return found  # type: ignore[no-any-return]
        found = inner


def _is_compiled(model: nn.Module) -> bool:
    return hasattr(model, "_orig_mod")


def _mixes(network: nn.Module) -> bool:
    """Tell whether an image's embedding depends on the other images of the batch."""
    return any(isinstance(module, _NORMS) and (module.training or module.running_mean is None) for module in network.modules())


def _find_tap(network: nn.Module, layer: str | None, inputs: Tensor) -> Tap:
    """Find where the embedding is, by one image in eval mode."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            one = inputs[:1].detach()
            if layer is not None:
                return named_tap(network, layer, one)
            names = head_modules(network, pre_logits_tap(network))
            return Tap(names[0], "input") if names else classifier_tap(network, one)
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Let batch norms take their running statistics, and leave them as they are."""
    norms = [module for module in network.modules() if isinstance(module, _NORMS) and module.training]
    for module in norms:
        module.eval()
    try:
        yield
    finally:
        for module in norms:
            module.train()


def _random_state(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _set_random_state(state: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)


@contextmanager
def _unnoticed(network: nn.Module, before: list[Tensor], device: torch.device) -> Iterator[None]:
    """Run a network once more with the same dropout, and leave no trace in its running statistics and in torch's random numbers."""
    after = _random_state(device)
    kept = [
        (module, name, buffer) for module in network.modules() for name, buffer in module._buffers.items() if buffer is not None
    ]
    for module, name, buffer in kept:  # which the first pass has kept for its gradient, so that they are not to be changed in place
        module._buffers[name] = buffer.clone()
    _set_random_state(before, device)
    try:
        yield
    finally:
        _set_random_state(after, device)
        for module, name, buffer in kept:
            module._buffers[name] = buffer

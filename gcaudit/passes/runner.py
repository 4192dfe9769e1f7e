"""An encoder made ready for many images: on its device, in its precision, folded, laid out, perhaps compiled.

    pixels -> embeddings, energies, predictions

One forward pass; the energies are one VJP (or more) on the same graph. What comes out stays on the device.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from gcaudit.encoders import Encoder, dry_input, fold_batch_norms
from gcaudit.errors import AuditError, RequestError, one_line
from gcaudit.geometry import ESTIMATORS, Estimator, batch_energies, copies_per_image, never_alone, vectors_per_image
from gcaudit.passes.batchsize import BatchSize, sizes_to_try

Precision = Literal["float32", "tf32", "bfloat16", "float64"]
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16", "float64")
InputSpace = Literal["pixel", "normalized"]
INPUT_SPACES: tuple[InputSpace, ...] = ("pixel", "normalized")

_MEMORY_SHARE = 0.25
_DEVICE_SHARE = 0.8
_FORWARD_SHARE = 64
"""`exact` copies an image about D / 64 times while there are other images: the copies' forward passes then cost 1 or 2 percent."""


@final
@dataclass(frozen=True)
class RunSettings:
    """How a batch is run.

    Attributes:
        device: a torch device, or `auto`.
        precision: of the forward and backward pass; moments are float64 always.
        batch_size: None finds one by timing.
        seed: of the random vectors.
        estimator: of the energies.
        vectors: VJPs an image.
        input_space: what the Jacobian is taken with respect to.
        compile: compile the network with torch.compile.
    """

    device: str = "auto"
    precision: Precision = "float32"
    batch_size: int | None = None
    seed: int = 0
    estimator: Estimator = "sketch"
    vectors: int = 1
    input_space: InputSpace = "pixel"
    compile: bool = False

    def __post_init__(self) -> None:
        """Check names and numbers.

        Raises:
            RequestError: a name is unknown, or a number out of range.
        """
        named: tuple[tuple[str, str, tuple[str, ...]], ...] = (
            ("gc", self.estimator, ESTIMATORS),
            ("precision", self.precision, PRECISIONS),
            ("input-space", self.input_space, INPUT_SPACES),
        )
        for name, value, known in named:
            if value not in known:
                raise RequestError(f"expected --{name} of {', '.join(known)}; found {value!r}")
        for name, number in (("vectors", self.vectors), ("batch-size", self.batch_size)):
            if number is not None and number < 1:
                raise RequestError(f"expected --{name} of at least 1, found {number}")


@final
@dataclass(frozen=True)
class Outputs:
    """What a batch gave, on the device.

    Attributes:
        embeddings: (N, D).
        energies: (N,) float64, or None when they were not asked for.
        predictions: (N,) int64 of the head, or None.
        logits: (N, classes) of the head, or None.
        logit_energies: (N,) float64 of the head's outputs, or None when they were not asked for.
    """

    embeddings: Tensor
    energies: Tensor | None
    predictions: Tensor | None
    logits: Tensor | None = None
    logit_energies: Tensor | None = None


def resolve_device(name: str) -> torch.device:
    """Turn `--device` into a device that is there.

    Args:
        name: `auto`, `cpu`, `cuda`, `cuda:1`, ...

    Returns:
        The device.

    Raises:
        RequestError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        text = one_line(error)
        raise RequestError(f"expected --device auto, cpu or a device of this machine, found {name!r} ({text})") from None
    return device


@final
class Runner:
    """An encoder on a device.

    Attributes:
        encoder: as given; what is run may be a copy of its module.
        settings: as asked for.
        device: where it runs.
        kind: float32 or float64, of its inputs and weights.
        layout: of its inputs and maps in memory.
        folded: BatchNorms that were folded into convolutions.
    """

    def __init__(self, encoder: Encoder, settings: RunSettings) -> None:
        """Move the encoder to its device and make it fast.

        Args:
            encoder: the values of its weights are left as they are; its module may be moved.
            settings: how.

        Raises:
            RequestError: there is no such device, or compiled code cannot take so many vectors.
        """
        self.encoder = encoder
        self.settings = settings
        self.device = resolve_device(settings.device)
        self._estimator, self._vectors = vectors_per_image(settings.estimator, settings.vectors, encoder.dim)
        if settings.compile and self._vectors > 1:
            # the second VJP through one compiled graph was seen to be wrong without a word (torch 2.15)
            raise RequestError(
                f"expected --compile with one vector an image, found {self._vectors}; pass --vectors 1, or leave --compile out"
            )
        self.kind = torch.float64 if settings.precision == "float64" else torch.float32
        folded, self.folded = _folded(encoder, encoder.module.to(self.kind))
        self._module = folded.to(self.device)
        self._normalize = encoder.preprocessing.normalizer(self.device, self.kind)
        self.layout = self._choose_layout()
        self._encode: Callable[..., tuple[Tensor, Tensor | None]] = self._plain
        if settings.compile:
            self._encode = _compiled(self._plain)
        self._sizes = {want: self._batch_size(want) for want in (False, True)}
        self._graph_measured = False

    @property
    def network(self) -> nn.Module:
        """What is run: the encoder's module, or a copy of it with other weights that computes the same embedding."""
        return self._module

    @cached_property
    def _takes_two(self) -> bool:
        """Whether an image that is alone can be put beside itself: a network may be made for one image at a time."""
        blank = dry_input(self.encoder.preprocessing.input_size, self._module).repeat(2, 1, 1, 1)
        try:
            with torch.no_grad():
                return len(self._plain(blank.contiguous(memory_format=self.layout), False)[0]) == 2
        except Exception:  # it may refuse in any way; what ails it otherwise comes up again in the pass
            return False

    def _choose_layout(self) -> torch.memory_format:
        """Channels last is faster for convolutions on CPUs, and on tensor cores; the float32 kernels of cuDNN like it less.

        A network that looks at maps with `view` cannot take it, which is found out by trying.
        """
        tensor_cores = self.settings.precision in ("tf32", "bfloat16")
        kernels = [parameter for parameter in self._module.parameters() if parameter.ndim == 4]
        if not kernels or not (self.device.type == "cpu" or tensor_cores):
            return torch.contiguous_format
        blank = dry_input(self.encoder.preprocessing.input_size, self._module)
        try:
            for kernel in kernels:
                kernel.data = kernel.data.contiguous(memory_format=torch.channels_last)
            with torch.enable_grad():
                leaf = blank.contiguous(memory_format=torch.channels_last).requires_grad_()
                embeddings, _ = self._plain(leaf, self.encoder.head_outputs is not None)
                if embeddings.requires_grad:
                    torch.autograd.grad(embeddings.sum(), leaf, allow_unused=True)
        except Exception:  # a network may refuse in any way; what ails it otherwise comes up again in the pass
            for kernel in kernels:
                kernel.data = kernel.data.contiguous()
            return torch.contiguous_format
        return torch.channels_last

    def _batch_size(self, want: bool) -> BatchSize:
        if self.settings.batch_size is not None:
            return BatchSize(self.settings.batch_size, self.settings.batch_size, fixed=True)
        first, largest = sizes_to_try(math.prod(self.encoder.preprocessing.input_size), self.device.type)
        slow = (want and self._estimator == "exact") or self.settings.compile
        return BatchSize(2 * first, 2 * first, fixed=True) if slow else BatchSize(first, largest)

    @contextmanager
    def numerics(self) -> Iterator[None]:
        """Set the device and the float32 kernels to what was asked for, and put the process's settings back."""
        matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
        before = matmul.fp32_precision, conv.fp32_precision
        precision = self.settings.precision
        matmul.fp32_precision = conv.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        try:
            with (
                torch.autocast(self.device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext(),
                torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext(),
            ):
                yield
        finally:
            matmul.fp32_precision, conv.fp32_precision = before

    def embed(self, pixels: Tensor) -> Tensor:
        """Embed images as `Encoder.embed` does, on the graph when there is one; open `numerics` around it.

        Args:
            pixels: (N, C, H, W) in [0, 1], on the device.

        Returns:
            (N, D).
        """
        return self._encode(self._leaf(pixels), False)[0]

    def largest_batch(self) -> int:
        """Return how many images should be decoded at a time: no batch that is run has more."""
        return max(size.largest for size in self._sizes.values())

    def images_per_batch(self, want: bool) -> int:
        """Return how many images the next batch should have.

        Args:
            want: whether energies are wanted.
        """
        rows = self._sizes[want].size
        return max(1, rows // max(1, self.encoder.dim // _FORWARD_SHARE)) if want and self._estimator == "exact" else rows

    def halve(self) -> bool:
        """Make batches smaller after memory ran out.

        Returns:
            Whether that was possible.
        """
        if max(size.size for size in self._sizes.values()) == 1:
            return False
        for size in self._sizes.values():
            size.cap(max(1, size.size // 2))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return True

    def run(self, pixels: Tensor, index: Tensor, *, want: bool, logits: bool, logit_energies: bool = False) -> Outputs:
        """Run a batch; while the batch size is being sought, take its time.

        Args:
            pixels: (N, C, H, W) uint8 or floating point in [0, 1].
            index: (N,) int64 index of each image in its data set.
            want: whether energies are wanted.
            logits: whether the head's outputs are wanted.
            logit_energies: whether, with energies, those of the head's outputs are wanted too.

        Returns:
            What it gave, on the device.
        """
        wants = (want, logits or logit_energies, logit_energies)
        size = self._sizes[want]
        if size.settled:
            return self._run(pixels, index, *wants)
        self._wait()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        began = time.perf_counter()
        with self._graph_watch(len(pixels)) if want and not self._graph_measured else nullcontext():
            outputs = self._run(pixels, index, *wants)
        self._wait()
        full = len(pixels) == size.size
        size.record(len(pixels), time.perf_counter() - began)
        if full and self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            room = _DEVICE_SHARE * (free + torch.cuda.memory_reserved(self.device))
            size.cap(int(len(pixels) * room / max(1, torch.cuda.max_memory_allocated(self.device))))
        return outputs

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @contextmanager
    def _graph_watch(self, images: int) -> Iterator[None]:
        """Weigh what the graph of a batch keeps, and hold later batches to a share of the memory that is free."""
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield
        self._graph_measured = True
        weights = {parameter.untyped_storage().data_ptr() for parameter in self._module.parameters()}
        per_image = max(1, sum(size for place, size in kept.items() if place not in weights)) / images
        if self.device.type == "cpu":
            self._sizes[True].cap(int(_MEMORY_SHARE * _free_memory() / per_image))

    def _inputs(self, pixels: Tensor) -> Tensor:
        x = pixels.to(self.device, non_blocking=True)
        return x.to(self.kind) if x.is_floating_point() else x.to(self.kind) / 255

    def _leaf(self, pixels: Tensor) -> Tensor:
        """Return what gradients are taken with respect to."""
        return self._normalize(pixels) if self.settings.input_space == "normalized" else pixels

    def _plain(self, leaf: Tensor, logits: bool) -> tuple[Tensor, Tensor | None]:
        inputs = leaf if self.settings.input_space == "normalized" else self._normalize(leaf)
        return self.encoder.tap(self._module, inputs, logits=logits)

    def _run(self, pixels: Tensor, index: Tensor, want: bool, logits: bool, logit_energies: bool) -> Outputs:
        x = self._inputs(pixels)
        copies = copies_per_image(self._estimator, self.encoder.dim, len(x), self._sizes[True].size) if want else 1
        count = len(x)
        if want and count * copies == 1 and self._takes_two:
            x, index = never_alone(x, index, copies)
        if copies > 1:
            x = x.repeat_interleave(copies, 0)
        x = x.contiguous(memory_format=self.layout)
        with torch.enable_grad() if want else torch.inference_mode():
            leaf = self._leaf(x).requires_grad_(want)
            z, scores = self._encode(leaf, logits and self.encoder.head_outputs is not None)
            found: list[Tensor | None] = [None, None]
            both = (scores if logit_energies else None, z) if want else ()
            for place, made in enumerate(both):  # the embedding's last, after which the graph is free
                if made is not None:
                    estimator, vectors = vectors_per_image(self._estimator, self._vectors, made.shape[1])
                    energies = batch_energies(
                        made,
                        leaf,
                        index,
                        estimator=estimator,
                        vectors=vectors,
                        seed=self.settings.seed,
                        copies=copies,
                        keep_graph=made is not z,
                    )
                    found[place] = energies[:count]
        scores = None if scores is None else scores.detach()[::copies][:count]
        predictions = None if scores is None else scores.argmax(1)
        return Outputs(z.detach()[::copies][:count], found[1], predictions, scores, found[0])


def _folded(encoder: Encoder, module: nn.Module) -> tuple[nn.Module, int]:
    blank = dry_input(encoder.preprocessing.input_size, module).repeat(2, 1, 1, 1) + 0.5
    blank[1, :, : blank.shape[2] // 2] = 0.25
    try:
        return fold_batch_norms(module, lambda network: encoder.tap(network, encoder.preprocessing.normalize(blank))[0])
    except Exception:  # it may not be copyable, or take one image only; what ails it otherwise comes up again in the pass
        return module, 0


def _free_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return 4 * 2**30


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with torch.compile, and turn what its tools say when they fail into one line."""
    ready = torch.compile(function)

    def call(*arguments: Any) -> Any:
        try:
            with warnings.catch_warnings(action="ignore"):  # of its own making, and about its own workings
                return ready(*arguments)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                text = one_line(error)
                raise AuditError(f"expected torch.compile to take this network: {text}; leave --compile out") from error
            raise

    return call

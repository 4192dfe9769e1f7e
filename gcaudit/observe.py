"""The one loop: images through the encoder, once, into Evidence.

The batch's embeddings go to the class moments and the store; for the images whose Jacobian is wanted, one VJP (or more) on
the same graph gives the energies. All state of an audit lives here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from torch import Tensor

from gcaudit.data import ImageSet
from gcaudit.data.batches import Batch, stream_batches
from gcaudit.encoders import Encoder, picture_transform
from gcaudit.errors import AuditError, DataError, RequestError, one_line, shorten
from gcaudit.geometry.counter import balanced_order, derive_seed
from gcaudit.geometry.evidence import Evidence
from gcaudit.geometry.jacobian import Estimator, batch_energies, vectors_per_image
from gcaudit.geometry.moments import ClassMoments

Precision = Literal["float32", "tf32", "bfloat16", "float64"]
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16", "float64")
InputSpace = Literal["pixel", "normalized"]
INPUT_SPACES: tuple[InputSpace, ...] = ("pixel", "normalized")

_BATCH_PIXELS = 64 * 3 * 224 * 224
_FEW_IMAGES = 256
_MEMORY_SIGNS = ("allocate memory", "ALLOC_FAILED", "unable to find an engine")
"""How the CPU's allocator, cuBLAS and cuDNN say that memory ran out."""
Progress = Callable[[int], None]


@final
@dataclass(frozen=True)
class PassSettings:
    """How images are run through the encoder.

    Attributes:
        device: a torch device, or `auto`.
        precision: of the forward and backward pass; moments are float64 always.
        batch_size: None chooses by the size of the images.
        workers: decoding processes; None chooses.
        seed: of the random vectors and of the images whose Jacobian is taken.
        estimator: of the energies.
        vectors: VJPs an image.
        gc_images: at most so many images get an energy; 0 none, None all.
        input_space: what the Jacobian is taken with respect to.
        skip_bad_images: count images that cannot be decoded instead of stopping.
    """

    device: str = "auto"
    precision: Precision = "float32"
    batch_size: int | None = None
    workers: int | None = None
    seed: int = 0
    estimator: Estimator = "sketch"
    vectors: int = 1
    gc_images: int | None = 1024
    input_space: InputSpace = "pixel"
    skip_bad_images: bool = False


@final
@dataclass(frozen=True)
class Observation:
    """Evidence of one data set, and how it was come by.

    Attributes:
        evidence: for the metrics.
        digests: N digests of the encoded images, to find images that two data sets share.
        warnings: what the report should say.
        seconds: wall time of the pass.
        device: where it ran.
        batch_size: images a batch in the end.
    """

    evidence: Evidence
    digests: tuple[bytes, ...]
    warnings: tuple[str, ...]
    seconds: float
    device: str
    batch_size: int


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


@contextmanager
def _numerics(device: torch.device, precision: Precision) -> Iterator[None]:
    """Set the float32 kernels to what was asked for, and put the process's settings back."""
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = matmul.fp32_precision, conv.fp32_precision
    matmul.fp32_precision = conv.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        with torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext():
            yield
    finally:
        matmul.fp32_precision, conv.fp32_precision = before


def _auto_batch(images: int, pixels: int) -> int:
    fitting = max(1, min(512, _BATCH_PIXELS // max(1, pixels)))
    return min(images, 1 << int(math.log2(fitting)))


def _auto_workers(images: int) -> int:
    return 0 if images < _FEW_IMAGES else min(4, os.cpu_count() or 1)


def energy_places(images: ImageSet, settings: PassSettings) -> Tensor:
    """Choose the images whose Jacobian is taken: a class-balanced draw by the seed.

    Args:
        images: the image set.
        settings: of the pass.

    Returns:
        (M,) int64 places, ascending.
    """
    if settings.gc_images == 0:
        return torch.zeros(0, dtype=torch.int64)
    order = balanced_order(images.labels, images.index, derive_seed(settings.seed, "gc images"))
    return order[: settings.gc_images].sort().values


@final
@dataclass
class _Pass:
    """The state of one pass."""

    encoder: Encoder
    images: ImageSet
    settings: PassSettings
    device: torch.device
    wants_energy: Tensor
    moments: ClassMoments
    embeddings: Tensor
    energies: Tensor
    predictions: Tensor | None
    seen: Tensor
    digests: list[bytes]
    limit: int
    failures: list[str] = field(default_factory=list)
    halvings: int = 0

    def take(self, batch: Batch) -> None:
        for _, reason in batch.failures:
            if not self.settings.skip_bad_images:
                raise DataError(f"{reason}; mend or remove it, or pass --skip-bad-images")
            self.failures.append(reason)
        for place, digest in zip(batch.positions.tolist(), batch.digests, strict=True):
            self.digests[place] = digest
        start = 0
        while start < len(batch.positions):
            rows = slice(start, start + self.limit)
            try:
                self._run(batch.pixels[rows], batch.positions[rows])
            except RuntimeError as error:
                self._shrink(error)
                continue
            start += self.limit

    def _shrink(self, error: Exception) -> None:
        out_of_memory = isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in _MEMORY_SIGNS)
        if "DataLoader worker" in str(error):
            raise AuditError(f"expected the decoding workers to live: {one_line(error)}; pass --workers 0") from error
        if not out_of_memory:
            raise error
        if self.limit == 1:
            raise AuditError(f"expected memory for one image on {self.device}, found none left; pass --device cpu") from error
        self.limit = max(1, self.limit // 2)
        self.halvings += 1
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _inputs(self, pixels: Tensor) -> Tensor:
        kind = torch.float64 if self.settings.precision == "float64" else torch.float32
        x = pixels.to(self.device, non_blocking=True)
        return x.to(kind) if x.is_floating_point() else x.to(kind) / 255

    def _run(self, pixels: Tensor, places: Tensor) -> None:
        want = bool(self.wants_energy[places].any())
        x = self._inputs(pixels)
        normalize = self.encoder.preprocessing.normalize
        with torch.enable_grad() if want else torch.inference_mode():
            if self.settings.input_space == "normalized":
                inputs = leaf = normalize(x).requires_grad_(want)
            else:
                leaf = x.requires_grad_(want)
                inputs = normalize(leaf)
            z, logits = self.encoder.encode(inputs, logits=self.predictions is not None)
            energies = None
            if want:
                index = self.images.index[places]
                options = {"estimator": self.settings.estimator, "vectors": self.settings.vectors, "seed": self.settings.seed}
                energies = batch_energies(z, leaf, index, **options)  # type: ignore[arg-type]
        found = z.detach().to("cpu", self.embeddings.dtype)
        self._check(found, "embedding", places)
        if energies is not None:
            self._check(energies[:, None].cpu(), "Jacobian", places)
            self.energies[places] = energies.cpu()
        self.embeddings[places] = found
        self.moments.update(found, self.images.labels[places])
        self.seen[places] = True
        if self.predictions is not None and logits is not None:
            self.predictions[places] = logits.detach().argmax(1).cpu()

    def _check(self, values: Tensor, what: str, places: Tensor) -> None:
        bad = (~torch.isfinite(values)).any(1).nonzero()
        if len(bad):
            row = int(self.images.index[places[int(bad[0])]])
            raise AuditError(
                f"expected a finite {what}, found NaN or inf for {self.images.reader.where(row)}; "
                "try --precision float64, or check the weights"
            )


def _order(places: Tensor, images: int, batch_size: int) -> list[list[int]]:
    """List batches: first the images that need a backward pass, then the others, each in the order of the data set."""
    rest = torch.ones(images, dtype=torch.bool)
    rest[places] = False
    parts = [places, rest.nonzero().flatten()]
    return [part[start : start + batch_size].tolist() for part in parts for start in range(0, len(part), batch_size)]


def _fingerprint(images: ImageSet, digests: list[bytes], seen: Tensor) -> str:
    state = hashlib.sha256(json.dumps(["gcaudit.data/1", images.class_names]).encode())
    for place in seen.nonzero().flatten().tolist():
        state.update(int(images.labels[place]).to_bytes(4, "little") + digests[place])
    return state.hexdigest()


def _predictions(encoder: Encoder, images: ImageSet) -> tuple[Tensor | None, str]:
    outputs = encoder.head_outputs
    if outputs is None:
        return None, "the model has no head, or the checkpoint has no weights for it"
    if outputs != images.total_classes:
        return None, f"the model's head has {outputs} classes, the data have {images.total_classes}"
    return torch.zeros(len(images.labels), dtype=torch.int64), ""


def _renumber(predictions: Tensor, images: ImageSet) -> Tensor:
    place = torch.full((images.total_classes,), -1, dtype=torch.int64)
    place[list(images.class_numbers)] = torch.arange(len(images.class_numbers))
    return place[predictions]


def observe(encoder: Encoder, images: ImageSet, settings: PassSettings, progress: Progress | None = None) -> Observation:
    """Run images through an encoder, once.

    Args:
        encoder: moved to the device; its weights are left as they are.
        images: what to look at.
        settings: how.
        progress: called with the number of images after each batch.

    Returns:
        The evidence, in the order of the data set whatever the batch size, workers and device.

    Raises:
        DataError: an image cannot be decoded, or none is left of a class.
        AuditError: embeddings that are not finite, or no memory for a single image.
    """
    began = time.perf_counter()
    device = resolve_device(settings.device)
    size = len(images.labels)
    batch_size = settings.batch_size or _auto_batch(size, math.prod(encoder.preprocessing.input_size))
    workers = _auto_workers(size) if settings.workers is None else settings.workers
    kind = torch.float64 if settings.precision == "float64" else torch.float32
    encoder.module.to(device, kind)
    places = energy_places(images, settings)
    wants = torch.zeros(size, dtype=torch.bool)
    wants[places] = True
    predictions, reason = _predictions(encoder, images)
    state = _Pass(
        encoder=encoder,
        images=images,
        settings=settings,
        device=device,
        wants_energy=wants,
        moments=ClassMoments(len(images.class_names), encoder.dim),
        embeddings=torch.zeros(size, encoder.dim, dtype=kind),
        energies=torch.zeros(size, dtype=torch.float64),
        predictions=predictions,
        seen=torch.zeros(size, dtype=torch.bool),
        digests=[b""] * size,
        limit=batch_size,
    )
    order = _order(places, size, batch_size)
    transform = picture_transform(encoder.preprocessing)
    pin = device.type == "cuda"
    with _numerics(device, settings.precision):
        for batch in stream_batches(images.reader, images.index, order, transform, workers=workers, pin=pin):
            state.take(batch)
            if progress is not None:
                progress(len(batch.positions) + len(batch.failures))
    evidence = _evidence(state, places, reason)
    seconds = time.perf_counter() - began
    digests = tuple(digest for digest, seen in zip(state.digests, state.seen.tolist(), strict=True) if seen)
    return Observation(evidence, digests, _warnings(state), seconds, str(device), state.limit)


def _evidence(state: _Pass, places: Tensor, reason: str) -> Evidence:
    images, seen = state.images, state.seen
    labels = images.labels[seen]
    lost = torch.bincount(labels, minlength=len(images.class_names)) == 0
    if bool(lost.any()):
        names = [images.class_names[n] for n in lost.nonzero().flatten().tolist()]
        raise DataError(f"{images.spec}: expected images of every class, found none that could be decoded of {shorten(names)}")
    estimator, vectors = vectors_per_image(state.settings.estimator, state.settings.vectors, state.encoder.dim)
    measured = places[seen[places]]
    row_of = torch.cumsum(seen.to(torch.int64), 0) - 1
    has_energies = len(measured) > 0
    return Evidence(
        embeddings=state.embeddings if bool(seen.all()) else state.embeddings[seen],
        labels=labels,
        class_names=images.class_names,
        moments=state.moments,
        fingerprint=_fingerprint(images, state.digests, seen),
        energies=state.energies[measured] if has_energies else None,
        energy_rows=row_of[measured] if has_energies else None,
        estimator=estimator,
        vectors=vectors,
        predictions=None if state.predictions is None else _renumber(state.predictions[seen], images),
        predictions_reason=reason,
    )


def _warnings(state: _Pass) -> tuple[str, ...]:
    found: list[Any] = []
    if state.failures:
        found.append(f"{len(state.failures)} images could not be decoded and were left out; the first: {state.failures[0]}")
    if state.halvings:
        found.append(f"memory ran out {state.halvings} times; the batch was halved to {state.limit}")
    return tuple(found)

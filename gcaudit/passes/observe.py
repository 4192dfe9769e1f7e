"""The one loop: images through the encoder, once, into Evidence.

A batch's embeddings go to the class moments and the store, its energies wait on the device. Images come in the seeded class-balanced
order, cut where the stopping rule of GC looks; once it is content, the others go through without a backward pass. All state of an
audit lives here.

On a GPU the host runs ahead: the next batch is copied while this one is computed, moments and energies stay on the device, and embeddings
are waited for two batches later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from gcaudit.data import DIGEST_BYTES, PERCEPTUAL_BYTES, Batch, ImageSet, fingerprint, stream_batches
from gcaudit.encoders import picture_transform
from gcaudit.errors import AuditError, DataError, RequestError, one_line, shorten
from gcaudit.geometry import (
    ClassMoments,
    Evidence,
    LogitEnergies,
    Rows,
    balanced_order,
    derive_seed,
    look_counts,
    relative_error,
    vectors_per_image,
)
from gcaudit.passes.collector import OutputCollector, check_finite
from gcaudit.passes.decoding import Clock, choose_workers
from gcaudit.passes.embeddings import EmbeddingStore
from gcaudit.passes.heads import NO_HEAD, head_reason, head_weight, renumbered
from gcaudit.passes.landscape import look_at_flatness, look_at_layers
from gcaudit.passes.remarks import Remarks
from gcaudit.passes.runner import Outputs, Runner
from gcaudit.report import ReportWarning, warn

_HASH_MEMORY_BYTES = 2**23
_MEMORY_SIGNS = ("allocate memory", "ALLOC_FAILED", "unable to find an engine")
"""How the CPU's allocator, cuBLAS and cuDNN say that memory ran out."""
Progress = Callable[[int], None]


@final
@dataclass(frozen=True)
class PassSettings:
    """What is looked at in a pass; how a batch is run is the runner's.

    Attributes:
        workers: decoding processes; None chooses.
        gc_images: at most so many images get an energy; 0 none, None all.
        gc_rtol: no further image gets one when the standard error of GC is below this share of GC; 0 never stops early.
        skip_bad_images: count images that cannot be decoded instead of stopping.
        logits: keep the outputs of the model's head.
        logit_gc: take the Jacobian of these outputs too, where that of the embedding is taken.
        flatness: look at slope and sharpness of the head's loss.
        lipschitz: bound the embedding's Lipschitz constant by its layers.
    """

    workers: int | None = None
    gc_images: int | None = None
    gc_rtol: float = 0.02
    skip_bad_images: bool = False
    logits: bool = False
    logit_gc: bool = False
    flatness: bool = False
    lipschitz: bool = False

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            RequestError: one is out of range.
        """
        if self.gc_images is not None and self.gc_images < 0:
            raise RequestError(f"expected --gc-images of at least 1, found {self.gc_images}")
        if self.workers is not None and self.workers < 0:
            raise RequestError(f"expected --workers of at least 0, found {self.workers}")
        if not 0 <= self.gc_rtol < 1:
            raise RequestError(f"expected --gc-rtol from 0 (take all images) to below 1, found {self.gc_rtol}; 0.02 is the default")


@final
@dataclass(frozen=True)
class Observation:
    """Evidence of one data set, and how it was come by.

    Attributes:
        evidence: for the metrics.
        digests: (N, 16) uint8 digests of the encoded images, to find images that two data sets share.
        perceptual: (N, 64) uint8 hashes of what they look like, to find images that are nearly the same.
        warnings: what the report should say.
        seconds: wall time of the pass.
        device: where it ran.
        batch_size: images a batch in the end.
        decode_seconds: of `seconds`, how long the pass waited for images to be read and decoded.
        left_alone: pictures of the input's size that were neither resized nor cropped, since nobody has asked for a crop.
    """

    evidence: Evidence
    digests: Tensor
    perceptual: Rows
    warnings: tuple[ReportWarning, ...]
    seconds: float
    device: str
    batch_size: int
    left_alone: int = 0
    decode_seconds: float = 0.0


def energy_segments(images: ImageSet, settings: PassSettings, seed: int) -> list[Tensor]:
    """Choose the images that may get an energy: a class-balanced draw by the seed, cut where the stopping rule looks.

    Args:
        images: the image set.
        settings: of the pass.
        seed: of the run.

    Returns:
        int64 places, each segment ascending.
    """
    size = len(images.labels)
    limit = size if settings.gc_images is None else min(size, settings.gc_images)
    if limit == 0:
        return []
    order = balanced_order(images.labels, images.index, derive_seed(seed, "gc images"))
    ends = look_counts(limit, len(images.class_names), settings.gc_rtol)
    return [order[start:end].sort().values for start, end in zip((0, *ends), ends, strict=False)]


@final
class _Order:
    """Lists what is decoded together: no batch lies in two segments, and no list of a million Python numbers is ever made."""

    def __init__(self, segments: list[Tensor], images: int, batch_size: int) -> None:
        rest = torch.ones(images, dtype=torch.bool)
        for segment in segments:
            rest[segment] = False
        self.parts = (*segments, rest.nonzero().flatten())
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[int]]:
        for part in self.parts:
            for start in range(0, len(part), self.batch_size):
                yield part[start : start + self.batch_size].tolist()


@final
class _Pass:
    """The state of one pass."""

    def __init__(self, runner: Runner, images: ImageSet, settings: PassSettings) -> None:
        self.runner, self.images, self.settings = runner, images, settings
        size, device = len(images.labels), runner.device
        self.segments = energy_segments(images, settings, runner.settings.seed)
        self.moments = ClassMoments(len(images.class_names), runner.encoder.dim, device)
        self.labels, self.index = images.labels.to(device), images.index.to(device)
        self.energies = torch.zeros(2, size, dtype=torch.float64, device=device)  # of embeddings, and of logits
        self.measured = torch.zeros(size, dtype=torch.bool)
        self.seen = torch.zeros(size, dtype=torch.bool)
        self.reason = head_reason(runner.encoder, images)
        predictions = None if self.reason else torch.zeros(size, dtype=torch.int64)
        self.collector = OutputCollector(runner, images, predictions, settings.logits)
        self.digests = torch.zeros(size, DIGEST_BYTES, dtype=torch.uint8)
        self.perceptual = EmbeddingStore(size, PERCEPTUAL_BYTES, torch.uint8, _HASH_MEMORY_BYTES)
        self.remarks = Remarks(images, runner.encoder.preprocessing)
        self.halvings = 0
        self.handled = 0
        self.ends = np.cumsum([len(segment) for segment in self.segments]).tolist()
        self.open = len(self.segments) > 0

    def run_batch(self, batch: Batch, pixels: Tensor, places: Tensor, progress: Progress) -> None:
        """Run a decoded batch.

        Args:
            batch: as decoded.
            pixels: its pixels, on the device.
            places: its positions, on the device.
            progress: told of each image.
        """
        if batch.failures and not self.settings.skip_bad_images:
            raise DataError(f"{batch.failures[0][1]}; {_failure_advice(batch, first=self.handled == 0)}")
        self.remarks.failures += [reason for _, reason in batch.failures]
        self.digests[batch.positions] = batch.digests
        self.perceptual.put(batch.positions, batch.perceptual)
        self.remarks.update(batch)
        count = len(batch.positions)
        start = 0
        while start < count:
            rows = slice(start, start + self.runner.images_per_batch(self.open))
            try:
                found = self.runner.run(
                    pixels[rows],
                    self.index[places[rows]],
                    want=self.open,
                    logits=self.collector.wants_head,
                    logit_energies=self.settings.logit_gc,
                )
            except RuntimeError as error:
                self._shrink(error)
                continue
            self._keep(found, batch.positions[rows], places[rows])
            progress(len(batch.positions[rows]))
            start = rows.stop
        if batch.failures:
            progress(len(batch.failures))
        self.handled += count + len(batch.failures)
        if self.open and self.handled in self.ends:
            self.apply_stopping_rule()

    def _shrink(self, error: Exception) -> None:
        out_of_memory = isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in _MEMORY_SIGNS)
        if "DataLoader worker" in str(error):
            raise AuditError(f"expected the decoding workers to live: {one_line(error)}; pass --workers 0") from error
        if not out_of_memory:
            raise error
        if not self.runner.halve():
            raise AuditError(
                f"expected memory for one image on {self.runner.device}, found none left; pass --device cpu"
            ) from error
        self.halvings += 1

    def _keep(self, found: Outputs, positions: Tensor, places: Tensor) -> None:
        embeddings = found.embeddings.to(self.runner.kind)
        self.moments.update(embeddings, self.labels[places])
        if found.energies is not None:
            self.energies[0].index_copy_(0, places, found.energies)
            if found.logit_energies is not None:
                self.energies[1].index_copy_(0, places, found.logit_energies)
            self.measured[positions] = True
        self.collector.put(positions, embeddings, found)
        self.seen[positions] = True

    def apply_stopping_rule(self) -> None:
        """Decide whether further energies are needed: here a GPU is waited for."""
        self.collector.drain()
        if self.handled == self.ends[-1]:
            self.open = False
            return
        rows, energies = self.measured_energies()
        error = relative_error(energies[0], self.images.labels[rows], len(self.images.class_names))
        self.open = error > self.settings.gc_rtol

    def measured_energies(self) -> tuple[Tensor, Tensor]:
        """Return the places that have an energy, and the energies of embeddings and logits, (2, M)."""
        rows = self.measured.nonzero().flatten()
        energies = self.energies.cpu()[:, rows]
        check_finite(self.images, energies.T, "Jacobian", rows)
        return rows, energies


def _failure_advice(batch: Batch, *, first: bool) -> str:
    """Say what to do about images that cannot be used: where every one fails, none of them is at fault."""
    count = len(batch.failures)
    if first and count > 1 and not len(batch.positions):
        return f"so do all {count} images that were looked at: the data set, its column or its transform is at fault, not an image"
    return "mend or remove it, or pass --skip-bad-images"


def _on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """Copy each batch to the device while the one before it is computed."""
    if device.type != "cuda":
        for batch in batches:
            yield batch, batch.pixels.to(device), batch.positions.to(device)
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    current = torch.cuda.current_stream(device)
    waiting: tuple[Batch, Tensor, Tensor, Any] | None = None

    def ready() -> Iterator[tuple[Batch, Tensor, Tensor]]:
        if waiting is not None:
            batch, pixels, places, event = waiting
            current.wait_event(event)
            pixels.record_stream(current)
            places.record_stream(current)
            yield batch, pixels, places

    for batch in batches:
        with torch.cuda.stream(stream):
            parts = batch.pixels.to(device, non_blocking=True), batch.positions.to(device, non_blocking=True)
        following = (batch, *parts, stream.record_event())
        yield from ready()
        waiting = following
    yield from ready()


def observe(runner: Runner, images: ImageSet, settings: PassSettings, progress: Progress | None = None) -> Observation:
    """Run images through an encoder, once.

    Args:
        runner: the encoder on its device.
        images: what to look at.
        settings: what is wanted.
        progress: called with the number of images after each batch.

    Returns:
        The evidence, in the order of the data set whatever the batch size, workers and device.

    Raises:
        DataError: an image cannot be decoded, or none is left of a class.
        AuditError: embeddings that are not finite, or no memory for a single image.
    """
    began = time.perf_counter()
    size, device = len(images.labels), runner.device
    if settings.logit_gc and runner.settings.compile:
        # the second VJP through one compiled graph was seen to be wrong without a word (torch 2.15)
        raise RequestError("expected no --compile with the GC of logits, found both; leave --compile out")
    state = _Pass(runner, images, settings)
    transform = picture_transform(runner.encoder.preprocessing)
    workers = choose_workers(images, transform) if settings.workers is None else settings.workers
    pin = device.type == "cuda"
    with runner.numerics():
        order = _Order(state.segments, size, runner.largest_batch())
        decoded = stream_batches(images.reader, images.index, order, transform, workers=workers, pin=pin)
        clock = Clock(decoded)
        for batch, pixels, places in _on_device(clock, device):
            state.run_batch(batch, pixels, places, progress or (lambda _count: None))
        state.collector.drain()
        evidence = _look_around(state, _evidence(state))
    seconds = time.perf_counter() - began
    wants = state.settings.gc_images != 0
    return Observation(
        evidence=evidence,
        digests=state.digests[state.seen],
        perceptual=state.perceptual.rows(state.seen),
        warnings=_warnings(state),
        seconds=seconds,
        device=str(device),
        batch_size=runner.images_per_batch(wants),
        left_alone=state.remarks.left_alone,
        decode_seconds=clock.seconds,
    )


def _evidence(state: _Pass) -> Evidence:
    images, seen, settings = state.images, state.seen, state.runner.settings
    labels = images.labels[seen]
    lost = torch.bincount(labels, minlength=len(images.class_names)) == 0
    if bool(lost.any()):
        names = [images.class_names[n] for n in lost.nonzero().flatten().tolist()]
        raise DataError(
            f"{images.spec}: expected images of every class, found none that could be decoded of {shorten(names)}; "
            f"the first: {state.remarks.failures[0]}"
        )
    estimator, vectors = vectors_per_image(settings.estimator, settings.vectors, state.runner.encoder.dim)
    rows, energies = state.measured_energies()
    weight, no_weight = head_weight(state.runner.encoder, images)
    row_of = torch.cumsum(seen, 0) - 1
    predictions = state.collector.predictions
    return Evidence(
        embeddings=state.collector.store.rows(seen),
        labels=labels,
        class_names=images.class_names,
        moments=state.moments.cpu(),
        fingerprint=fingerprint(images, state.digests[seen], seen),
        energies=energies[0] if len(rows) else None,
        energy_rows=row_of[rows] if len(rows) else None,
        estimator=estimator,
        vectors=vectors,
        predictions=None if predictions is None else renumbered(predictions[seen], images),
        predictions_reason=state.reason,
        logits=None if state.collector.logits is None else state.collector.logits.rows(seen),
        logits_reason=NO_HEAD if state.runner.encoder.head_outputs is None else "the outputs of the model's head were not kept",
        head_weight=weight,
        head_reason=no_weight,
        logit_energies=_logit_energies(state, energies[1]),
    )


def _logit_energies(state: _Pass, energies: Tensor) -> LogitEnergies | None:
    outputs, settings = state.runner.encoder.head_outputs, state.runner.settings
    if outputs is None or not len(energies) or not state.settings.logit_gc:
        return None
    own = vectors_per_image(settings.estimator, settings.vectors, state.runner.encoder.dim)  # as the runner has settled it
    return LogitEnergies(energies, *vectors_per_image(*own, outputs))


def _look_around(state: _Pass, evidence: Evidence) -> Evidence:
    """Add what theory asks of the network itself."""
    if state.settings.flatness:
        found = (None, state.reason) if state.reason else look_at_flatness(state.runner, state.images)
        evidence = replace(evidence, flatness=found[0], flatness_reason=found[1])
    if state.settings.lipschitz:
        bound, reason = look_at_layers(state.runner)
        evidence = replace(evidence, lipschitz=bound, lipschitz_reason=reason)
    return evidence


def _warnings(state: _Pass) -> tuple[ReportWarning, ...]:
    found = state.remarks.warnings()
    if state.halvings:
        batch = state.runner.images_per_batch(state.settings.gc_images != 0)
        found.append(warn("memory", f"memory ran out {state.halvings} times; the batch was halved to {batch}"))
    return tuple(found)

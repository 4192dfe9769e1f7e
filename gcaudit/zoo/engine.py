"""Engines carry out tasks: to find out what a model is, or to look at one data set with it.

An engine takes tasks from an iterator, whenever it has a hand free, and gives back what came of them. This one works in this process; `engine_ray`
is for many.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, final

from gcaudit.audit import AuditSpec, Block, make_block, takes_held_out, used_settings, with_held_out
from gcaudit.data import ImageSet, open_data
from gcaudit.encoders import Encoder, load_encoder
from gcaudit.errors import GcauditError, one_line
from gcaudit.metrics import Role
from gcaudit.passes import Runner, observe
from gcaudit.progress import ProgressBar, no_bar
from gcaudit.store import ModelIdentity, identify, load_observation, save_observation

_ENCODERS_BYTES = 2**31
_WAIT_SECONDS = 0.2


@final
@dataclass(frozen=True)
class Task:
    """Something to do.

    Attributes:
        key: names it.
        spec: what is asked.
        role: of the data set to look at; None to find out what the model is.
        title: for progress.
        observation: where its observation is kept, or may be.
        reuse: whether one is there to be taken instead of a pass.
        keep: whether to keep that of a pass.
        sha256: of the model's weights as they were when it was named; None to take them as they are.
        fingerprint: of the data set as it was when it was named.
    """

    key: str
    spec: AuditSpec
    role: Role | None
    title: str
    observation: Path | None = None
    reuse: bool = False
    keep: bool = False
    sha256: str | None = None
    fingerprint: str | None = None


@final
@dataclass(frozen=True)
class Failure:
    """Why a task could not be done.

    Attributes:
        reason: one line.
    """

    reason: str


Outcome = Block | ModelIdentity | Failure


def failure_of(error: Exception) -> Failure:
    """Say why something could not be done, so that the rest can go on.

    Args:
        error: that was raised.

    Returns:
        The failure; with $GCAUDIT_DEBUG what nobody expected is raised again.
    """
    if isinstance(error, GcauditError):
        return Failure(str(error))
    if isinstance(error, OSError | MemoryError):
        return Failure(f"the system refused: {one_line(error)}; see the path, free space, permissions and ulimit -a")
    if os.environ.get("GCAUDIT_DEBUG"):
        raise error
    return Failure(f"internal error: {type(error).__name__}: {one_line(error)}")


class Engine(Protocol):
    """Carries out tasks."""

    def run(self, tasks: Iterator[Task | None]) -> Iterator[tuple[Task, Outcome]]:
        """Carry out tasks.

        Args:
            tasks: taken one by one, when there is a hand free; None says that there is none for the moment.

        Yields:
            What came of each, in the order of completion.
        """

    def close(self) -> None:
        """Give back what the engine holds."""


@final
class Worker:
    """Carries out one task after another, and holds on to what the next may need again: open data sets and loaded models."""

    def __init__(self, progress: ProgressBar = no_bar) -> None:
        """Start with empty hands.

        Args:
            progress: opens a progress bar.
        """
        self._progress = progress
        self._images: dict[str, ImageSet] = {}
        self._encoders: dict[str, Encoder | Failure] = {}
        self._runner: tuple[str, Runner] | None = None

    def carry_out(self, task: Task) -> Outcome:
        """Carry out a task.

        Args:
            task: what to do.

        Returns:
            What came of it; a failure when it could not be done.
        """
        try:
            return self._carry_out(task)
        except Exception as error:  # one model of a thousand must not stop the others
            return failure_of(error)

    def _carry_out(self, task: Task) -> Outcome:
        if task.role is None:
            encoder = self._encoder(task.spec)
            return encoder if isinstance(encoder, Failure) else identify(encoder, task.spec.model)
        images = self._open(task.spec, task.role)
        found = load_observation(task.observation) if task.reuse and task.observation is not None else None
        if found is None:
            encoder = self._encoder(task.spec)
            if isinstance(encoder, Failure):
                return encoder
            if task.sha256 not in (None, encoder.sha256):
                return Failure(f"{task.spec.model.spec}: the file has changed since the comparison began; run it again")
            runner = self._ready(task.spec, encoder)
            settings = task.spec.pass_settings(task.role)
            with self._progress(task.title, len(images.labels)) as advance:
                observation = observe(runner, images, replace(settings, logits=settings.logits or task.keep), advance)
            found = observation, used_settings(runner, observation)
            whole = observation.evidence.images == len(images.labels)
            unchanged = not whole or task.fingerprint in (None, observation.evidence.fingerprint)
            if task.keep and task.observation is not None and unchanged:
                save_observation(task.observation, *found)
        evidence = found[0].evidence
        if task.fingerprint not in (None, evidence.fingerprint) and evidence.images == len(images.labels):
            return Failure(f"{images.spec}: the data have changed since the comparison began; run it again")
        if not takes_held_out(task.spec, task.role):
            return make_block(task.spec, task.role, images, *found)
        encoder = self._encoder(task.spec)
        if isinstance(encoder, Failure):
            return encoder
        whole_source = with_held_out(task.spec, images, found[0], self._ready(task.spec, encoder), self._progress)
        return make_block(task.spec, task.role, images, whole_source, found[1])

    def _open(self, spec: AuditSpec, role: Role) -> ImageSet:
        request = spec.data_request(role)
        name = repr(request)
        if name not in self._images:
            self._images[name] = open_data(request)
        return self._images[name]

    def _encoder(self, spec: AuditSpec) -> Encoder | Failure:
        request = spec.model
        name = repr(request)
        if name not in self._encoders:
            held = [encoder for encoder in self._encoders.values() if isinstance(encoder, Encoder)]
            if 4 * sum(encoder.parameters for encoder in held) > _ENCODERS_BYTES:
                self._encoders.clear()
            try:
                self._encoders[name] = load_encoder(request)
            except GcauditError as error:
                self._encoders[name] = Failure(str(error))
        return self._encoders[name]

    def _ready(self, spec: AuditSpec, encoder: Encoder) -> Runner:
        name = repr((spec.model, spec.run))
        if self._runner is None or self._runner[0] != name:
            self._runner = None
            self._runner = name, Runner(encoder, spec.run)
        return self._runner[1]


@final
class LocalEngine:
    """Carries out tasks in this process, in the order given."""

    def __init__(self, progress: ProgressBar = no_bar) -> None:
        """Make the engine ready.

        Args:
            progress: opens a progress bar.
        """
        self._worker = Worker(progress)

    def run(self, tasks: Iterator[Task | None]) -> Iterator[tuple[Task, Outcome]]:
        """Carry out tasks; see `Engine`.

        Args:
            tasks: taken one by one.

        Yields:
            What came of each.
        """
        for task in tasks:
            if task is None:
                time.sleep(_WAIT_SECONDS)
            else:
                yield task, self._worker.carry_out(task)

    def close(self) -> None:
        """Hold nothing any more."""

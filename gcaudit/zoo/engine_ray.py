"""Tasks on a Ray cluster: many processes, GPUs and machines that share a file system.

Each task is a Ray task, so a model's source and its targets may be looked at in different places. What a task finds goes back to the driver, which
alone writes to the store. A task whose worker is lost is done again elsewhere, up to three times; one that fails by itself is not.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, final

from gcaudit.errors import RequestError, one_line
from gcaudit.progress import ProgressBar, no_bar
from gcaudit.zoo.engine import Failure, Outcome, Task, Worker

_RETRIES = 3
_LOOK_SECONDS = 0.5
_COUNT_SECONDS = 10
_STORE_BYTES = 200 * 2**20
_held: dict[str, Any] = {}
"""The worker of this process, which holds on to models and data from task to task, and the board of the task under way."""


class Board:
    """How far the tasks under way are, for the driver to read."""

    def __init__(self) -> None:
        """Start empty."""
        self._rows: dict[str, tuple[str, int, int]] = {}

    def write(self, place: str, title: str, done: int, total: int) -> None:
        """Say how far a task is.

        Args:
            place: of the worker.
            title: of the task.
            done: images.
            total: images.
        """
        self._rows[place] = (title, done, total)

    def wipe(self, place: str) -> None:
        """Forget a worker's task.

        Args:
            place: of the worker.
        """
        self._rows.pop(place, None)

    def read(self) -> dict[str, tuple[str, int, int]]:
        """Return all that is under way: title, images done and images in all, by worker."""
        return dict(self._rows)


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Write on the board how far this process is."""
    board, place = _held["board"], f"{os.uname().nodename}:{os.getpid()}"
    done, said = 0, 0.0

    def advance(count: int) -> None:
        nonlocal done, said
        done += count
        if time.monotonic() - said > _LOOK_SECONDS:
            said = time.monotonic()
            board.write.remote(place, title, done, total)

    board.write.remote(place, title, 0, total)
    try:
        yield advance
    finally:
        board.wipe.remote(place)


def carry_out(task: Task, folder: str, board: Any) -> Outcome:
    """Carry out a task, in a worker process.

    Args:
        task: what to do.
        folder: the driver's working folder, which relative paths start from.
        board: to say how far it is.

    Returns:
        What came of it.
    """
    with contextlib.suppress(OSError):
        os.chdir(folder)
    _held["board"] = board
    worker: Worker = _held.setdefault("worker", Worker(_bar))
    # a process of Ray has no processes of its own to decode in, unless they are asked for
    spec, passes = task.spec, task.spec.passes
    spec = spec if passes.workers is not None else replace(spec, passes=replace(passes, workers=0))
    return worker.carry_out(replace(task, spec=spec))


@final
class RayEngine:
    """Carries out tasks on a Ray cluster."""

    def __init__(self, address: str | None, gpus: float | None, progress: ProgressBar = no_bar) -> None:
        """Make the engine ready.

        Args:
            address: of the cluster, `auto` for one that runs here; None starts one on this machine.
            gpus: that a task takes; None takes 1 where the cluster has any.
            progress: opens a progress bar.

        Raises:
            RequestError: Ray is missing, or there is no such cluster.
        """
        try:
            import ray
            import ray.util.scheduling_strategies
        except ImportError:
            raise RequestError("expected Ray for --engine ray, found none; pip install 'gcaudit[ray]'") from None
        self._ray: Any = ray
        self._progress, self._gpus = progress, gpus
        self._own = not ray.is_initialized()
        if not self._own:
            return
        options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            options |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
        try:
            ray.init(**{key: value for key, value in options.items() if value is not None})
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RequestError(f"expected a Ray cluster at {address or 'this machine'}: {one_line(error)}; see --address") from None

    def run(self, tasks: Iterator[Task | None]) -> Iterator[tuple[Task, Outcome]]:
        """Carry out tasks; see `Engine`.

        Args:
            tasks: taken one by one, about two for each that can be under way; None says that there is none for the moment.

        Yields:
            What came of each, in the order of completion.
        """
        ray = self._ray
        gpus = self._gpus if self._gpus is not None else float(ray.cluster_resources().get("GPU", 0) > 0)
        slots, counted = 0, -math.inf
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES)(carry_out)
        # on the driver's own node, which cannot be lost without the driver
        near = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        board = ray.remote(num_cpus=0)(Board).options(scheduling_strategy=near).remote()
        under_way: dict[Any, Task] = {}
        more, idle = True, False
        with self._watching(board) as look:
            try:
                while more or under_way:
                    if time.monotonic() - counted > _COUNT_SECONDS:  # machines come and go
                        slots, counted = self._slots(gpus), time.monotonic()
                    while more and not idle and len(under_way) < 2 * slots:
                        task = next(tasks, _END)
                        if isinstance(task, Task):
                            under_way[remote.remote(task, str(Path.cwd()), board)] = task
                        else:
                            more, idle = task is None, task is None
                    ready, _ = ray.wait(list(under_way), timeout=_LOOK_SECONDS) if under_way else ([], [])
                    if idle and not under_way:
                        time.sleep(_LOOK_SECONDS)
                    idle = False
                    look()
                    for reference in ready:
                        yield under_way.pop(reference), self._outcome(reference)
            finally:
                for reference in under_way:
                    ray.cancel(reference, force=True)

    def _slots(self, gpus: float) -> int:
        """Return how many tasks the cluster can have under way."""
        resources = self._ray.cluster_resources()
        return int(resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 1)) or 1

    def _outcome(self, reference: Any) -> Outcome:
        try:
            found: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return Failure(f"its worker was lost {_RETRIES + 1} times, or could not start: {one_line(error)}")
        return found

    @contextmanager
    def _watching(self, board: Any) -> Iterator[Callable[[], None]]:
        """Show the images of all tasks under way in a bar each."""
        bars: dict[str, tuple[AbstractContextManager[Any], Callable[[int], None] | None, str, int]] = {}

        def close(place: str) -> None:
            bars.pop(place)[0].__exit__(None, None, None)

        looked = -math.inf

        def look() -> None:
            nonlocal looked
            if time.monotonic() - looked < _LOOK_SECONDS:
                return
            looked = time.monotonic()
            try:
                rows = self._ray.get(board.read.remote(), timeout=_LOOK_SECONDS)
            except self._ray.exceptions.RayError:
                return
            for place in [place for place, bar in bars.items() if place not in rows or rows[place][0] != bar[2]]:
                close(place)
            for place, (title, done, total) in rows.items():
                if place not in bars:
                    bar = self._progress(f"{title} on {place}", total)
                    bars[place] = (bar, bar.__enter__(), title, 0)
                bar, advance, _, before = bars[place]
                if advance is not None and done > before:
                    advance(done - before)
                bars[place] = (bar, advance, title, done)

        try:
            yield look
        finally:
            for place in list(bars):
                close(place)

    def close(self) -> None:
        """Leave the cluster; end it if it was started here."""
        if self._own:
            self._ray.shutdown()


_END = object()

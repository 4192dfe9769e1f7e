"""Bars that say how far work is, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

_BARS = 8
_SPEED_SECONDS = 600

ProgressBar = Callable[[str, int], AbstractContextManager[Callable[[int], None] | None]]
"""Opens a bar of a title and a total; within its context it is called with what was done, unless it is None."""


def no_bar(_title: str, _total: int) -> AbstractContextManager[None]:
    """Show no progress."""
    return nullcontext()


@contextmanager
def progress_board() -> Iterator[ProgressBar]:
    """Show bars with what is done a second and the time left, on a terminal only.

    Of many bars the first eight are shown, and how many more there are.

    Yields:
        A function of a title and a total that opens a bar, which is shown until its context is left. The context's value is a function to call
        with what was done, or None.
    """
    if not sys.stderr.isatty():
        yield no_bar
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.3g}/s")

    columns = (
        TextColumn("{task.description}{task.fields[more]}"),
        BarColumn(),
        MofNCompleteColumn(),
        Speed(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=_SPEED_SECONDS) as progress:

        def arrange() -> None:
            tasks = progress.tasks
            for place, task in enumerate(tasks):
                more = f" (and {len(tasks) - _BARS} more)" if place == _BARS - 1 and len(tasks) > _BARS else ""
                progress.update(task.id, visible=place < _BARS, more=more)

        @contextmanager
        def bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
            task = progress.add_task(title.replace("[", r"\["), total=total, visible=len(progress.tasks) < _BARS, more="")
            arrange()
            try:
                yield lambda count: progress.advance(task, count)
            finally:
                progress.remove_task(task)
                arrange()

        yield bar


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None] | None]:
    """Show one bar; see `progress_board`.

    Args:
        title: what is under way.
        total: images.

    Yields:
        A function to call with the number of images done, or None.
    """
    with progress_board() as bar, bar(title, total) as advance:
        yield advance

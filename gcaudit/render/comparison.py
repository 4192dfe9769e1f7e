"""A comparison of models in any of its formats, and what is said while it is under way."""

from __future__ import annotations

from typing import final

from gcaudit.render.export import frame_bytes
from gcaudit.render.paper import PLAIN, Paper
from gcaudit.render.predictions import predictions_json, predictions_markdown, render_predictions
from gcaudit.render.ranking import ranking_json, render_ranking, render_ranking_markdown
from gcaudit.zoo import CellResult, Comparison


def render_comparison(found: Comparison, name: str = "table", paper: Paper = PLAIN) -> str | bytes:
    """Make the text of a comparison, or the bytes of its file.

    Args:
        found: the comparison.
        name: one of `RANKING_FORMATS`.
        paper: what a table is written on.

    Returns:
        Text, or the bytes of a file.
    """
    ranking, truth = found.ranking, found.truth
    if name == "json":
        return ranking_json(ranking, None if truth is None else predictions_json(found.predictions, truth))
    if name == "markdown":
        return render_ranking_markdown(ranking) + ("" if truth is None else "\n" + predictions_markdown(found.predictions, truth))
    if name in ("csv", "parquet"):
        return frame_bytes(found.frame(), name)
    text = render_ranking(ranking, paper)
    return text if truth is None else f"{text}\n{render_predictions(found.predictions, truth, paper)}"


def render_correlations(found: Comparison, name: str) -> bytes:
    """Make the file of correlations that goes beside a ranking which is a table of cells.

    Args:
        found: the comparison, with a truth.
        name: `csv` or `parquet`.

    Returns:
        The file's content: a row for each score, source and target.
    """
    return frame_bytes(found.predictions_frame(), name)


def comparison_summary(found: Comparison) -> str:
    """Say in one line what was done.

    Args:
        found: the comparison.

    Returns:
        Such as `8 cells: 6 measured, 2 from gcaudit.db, 0 failed; 3.1 s`.
    """
    failed = len(found.ranking.failed)
    total = found.measured + found.known + failed
    counts = f"{found.measured} measured, {found.known} from {found.store}, {failed} failed"
    return f"{total} cell{'s' * (total != 1)}: {counts}; {found.seconds:.1f} s"


@final
class CellLines:
    """Lines on cells as they are done; a reason that many cells share is told once."""

    def __init__(self) -> None:
        """Start with nothing told."""
        self._told: set[str | None] = set()

    def line(self, result: CellResult, done: int, total: int) -> str | None:
        """Say what came of a cell.

        Args:
            result: of the cell.
            done: cells that are at their end.
            total: cells in all.

        Returns:
            One line; None for a cell that was in the store already.
        """
        if result.report is not None:
            return f"{done}/{total} {result.request.title}: done" if result.fresh else None
        known = result.reason in self._told
        self._told.add(result.reason)
        return f"{done}/{total} {result.request.title}: {'failed for the same reason' if known else result.reason}"

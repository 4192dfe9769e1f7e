"""Plots, as the bytes of a file."""

from __future__ import annotations

import io
from pathlib import Path

from gcaudit.errors import RequestError
from gcaudit.zoo import Comparison


def scatter_plot(found: Comparison, metric: str, path: Path) -> bytes:
    """Plot a score against accuracy, a panel for each source and target.

    Args:
        found: the comparison, with a truth.
        metric: `ROLE.METRIC`.
        path: its suffix says the format.

    Returns:
        The file's content.

    Raises:
        RequestError: no model has both the score and an accuracy, or the format is unknown to matplotlib.
    """
    title = found.truth.title if found.truth is not None else "accuracies"
    entries = [entry for entry in found.predictions if entry.metric == metric and entry.models]
    if not entries:
        raise RequestError(f"expected models with both {metric} and {title} to plot, found none; see the reasons in the ranking")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(entries), 4.2), layout="constrained")
    for number, entry in enumerate(entries):
        axes = figure.add_subplot(1, len(entries), number + 1)
        axes.scatter(entry.scores, entry.accuracies, color="#3b6ea5")
        for name, x, y in zip(entry.models, entry.scores, entry.accuracies, strict=True):
            axes.annotate(name, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)
        tau = entry.agreement.weighted_tau
        axes.set(
            xlabel=metric,
            ylabel=title,
            title=entry.place + ("" if tau.value is None else f"\nweighted tau {tau.value:.2f}"),
        )
    buffer = io.BytesIO()
    kind = path.suffix.lower().removeprefix(".")
    try:
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    except ValueError:
        raise RequestError(f"expected --scatter METRIC=FILE of .svg, .png or .pdf, found {path}") from None
    return buffer.getvalue()

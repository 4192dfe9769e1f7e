"""How well scores predict accuracy: as table, JSON and scatter plot."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gcaudit.blocks import metric_value
from gcaudit.errors import RequestError, shorten
from gcaudit.geometry.estimate import Estimate
from gcaudit.report.rows import format_value
from gcaudit.report.schema import MetricValue
from gcaudit.truth import Prediction, Truth

_HEAD = ("score", "models", "weighted Kendall tau", "Spearman", "Pearson")


def _where(entry: Prediction) -> str:
    return entry.source if entry.target is None else f"{entry.source} -> {entry.target}"


def _value(estimate: Estimate) -> MetricValue:
    """Leave out how the bootstrap went."""
    return metric_value(replace(estimate, details={}))


def _cells(entry: Prediction) -> list[str]:
    found = entry.agreement
    values = [format_value(_value(estimate)) for estimate in (found.weighted_tau, found.spearman, found.pearson)]
    return [entry.metric, str(len(entry.models)), *values]


def _by_place(found: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    places: dict[str, list[Prediction]] = {}
    for entry in found:
        places.setdefault(_where(entry), []).append(entry)
    for entries in places.values():
        entries.sort(
            key=lambda entry: -(entry.agreement.weighted_tau.value if entry.agreement.weighted_tau.value is not None else -2)
        )
    return places


def render_predictions(found: Sequence[Prediction], truth: Truth) -> RenderableType:
    """Lay out how well scores predict accuracy, the best first.

    Args:
        found: of all metrics.
        truth: the accuracies.

    Returns:
        For a rich console; intervals are 95%, by the bootstrap over models.
    """
    parts: list[RenderableType] = []
    for where, entries in _by_place(found).items():
        parts.append(
            Text(f"{where}: scores against {truth.title}; + predicts well, intervals by the bootstrap over models", style="bold")
        )
        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for title in _HEAD:
            grid.add_column(title, no_wrap=True)
        for entry in entries:
            grid.add_row(*_cells(entry))
        parts.append(grid)
        reasons: dict[str, list[str]] = {}
        for entry in entries:
            if entry.agreement.weighted_tau.reason:
                reasons.setdefault(entry.agreement.weighted_tau.reason, []).append(entry.metric)
        parts += [Text(f"— {shorten(names, 3)}: {reason}", style="dim") for reason, names in reasons.items()]
    return Group(*parts)


def predictions_markdown(found: Sequence[Prediction], truth: Truth) -> str:
    """Write how well scores predict accuracy as markdown.

    Args:
        found: of all metrics.
        truth: the accuracies.

    Returns:
        Text that ends with a newline.
    """
    lines: list[str] = []
    for where, entries in _by_place(found).items():
        lines += [f"### {where}: scores against {truth.title}", "", f"| {' | '.join(_HEAD)} |", "|" + "---|" * len(_HEAD)]
        lines += [f"| {' | '.join(_cells(entry))} |" for entry in entries]
        lines.append("")
    return "\n".join(lines)


def predictions_json(found: Sequence[Prediction], truth: Truth) -> dict[str, Any]:
    """Make what JSON holds of how well scores predict accuracy.

    Args:
        found: of all metrics.
        truth: the accuracies.

    Returns:
        The truth's title, and an entry for each metric, source and target.
    """
    entries = [
        {
            "source": entry.source,
            "target": entry.target,
            "metric": entry.metric,
            "models": entry.models,
            "scores": entry.scores,
            "accuracies": entry.accuracies,
            "weighted_tau": _value(entry.agreement.weighted_tau).model_dump(mode="json"),
            "spearman": _value(entry.agreement.spearman).model_dump(mode="json"),
            "pearson": _value(entry.agreement.pearson).model_dump(mode="json"),
        }
        for entry in found
    ]
    return {"truth": truth.title, "predictions": entries}


def scatter_plot(found: Sequence[Prediction], truth: Truth, metric: str, path: Path) -> bytes:
    """Plot a score against accuracy, a panel for each source and target.

    Args:
        found: of all metrics.
        truth: the accuracies.
        metric: `ROLE.METRIC`.
        path: its suffix says the format.

    Returns:
        The file's content.

    Raises:
        RequestError: no model has both the score and an accuracy, or the format is unknown to matplotlib.
    """
    entries = [entry for entry in found if entry.metric == metric and entry.models]
    if not entries:
        raise RequestError(
            f"expected models with both {metric} and {truth.title} to plot, found none; see the reasons in the ranking"
        )
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
            ylabel=truth.title,
            title=_where(entry) + ("" if tau.value is None else f"\nweighted tau {tau.value:.2f}"),
        )
    buffer = io.BytesIO()
    kind = path.suffix.lower().removeprefix(".")
    try:
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    except ValueError:
        raise RequestError(f"expected --scatter METRIC=FILE of .svg, .png or .pdf, found {path}") from None
    return buffer.getvalue()

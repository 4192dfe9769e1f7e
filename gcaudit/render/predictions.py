"""How well scores predict accuracy: as table, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gcaudit.audit import metric_value
from gcaudit.errors import shorten
from gcaudit.geometry import Estimate
from gcaudit.render.escapes import log_text, markdown_text
from gcaudit.render.grid import Grid, lay_out
from gcaudit.render.paper import PLAIN, Paper, fold, paint
from gcaudit.render.rows import format_value
from gcaudit.report import MetricValue
from gcaudit.zoo import Prediction, Truth

_HEAD = ("score", "models", "weighted Kendall tau", "Spearman", "Pearson")


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
        places.setdefault(entry.place, []).append(entry)
    for entries in places.values():
        entries.sort(
            key=lambda entry: -(entry.agreement.weighted_tau.value if entry.agreement.weighted_tau.value is not None else -2)
        )
    return places


def render_predictions(found: Sequence[Prediction], truth: Truth, paper: Paper = PLAIN) -> str:
    """Lay out how well scores predict accuracy, the best first.

    Args:
        found: of all metrics.
        truth: the accuracies.
        paper: what it is written on.

    Returns:
        Text that ends with a newline; intervals are 95%, by the bootstrap over models.
    """
    parts: list[str] = []
    for where, entries in _by_place(found).items():
        title = f"{where}: scores against {truth.title}; + predicts well, intervals by the bootstrap over models"
        parts.append(paint(fold(title, paper.width, indent=2, first=0), "bold", paper) + "\n\n")
        parts.append(lay_out(Grid(_HEAD, tuple(tuple(_cells(entry)) for entry in entries), right=(1,)), paper))
        reasons: dict[str, list[str]] = {}
        for entry in entries:
            if entry.agreement.weighted_tau.reason:
                reasons.setdefault(entry.agreement.weighted_tau.reason, []).append(entry.metric)
        notes = (fold(f"— {shorten(names, 3)}: {reason}", paper.width, indent=2, first=0) for reason, names in reasons.items())
        parts += [paint(note, "dim", paper) + "\n" for note in notes]
    return log_text("".join(parts))


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
        lines += [
            f"### {markdown_text(f'{where}: scores against {truth.title}')}",
            "",
            f"| {' | '.join(_HEAD)} |",
            "|" + "---|" * len(_HEAD),
        ]
        lines += [f"| {' | '.join(map(markdown_text, _cells(entry)))} |" for entry in entries]
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

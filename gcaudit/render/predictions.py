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
from gcaudit.render.paper import PLAIN, Paper, paragraph
from gcaudit.render.rows import format_value
from gcaudit.report import MetricValue
from gcaudit.zoo import Prediction, Truth

_FEW = 10
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


def _notes(entries: Sequence[Prediction]) -> list[str]:
    """Say why coefficients are missing, and which models do not count; what scores share is told once."""
    missing: dict[str, list[str]] = {}
    absent: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for entry in entries:
        tau = entry.agreement.weighted_tau
        if tau.reason:
            missing.setdefault(tau.reason if tau.value is None else f"weighted tau has {tau.reason}", []).append(entry.metric)
        for reason, models in models_by_reason(entry).items():
            absent.setdefault((reason, models), []).append(entry.metric)
    found = [f"{shorten(names, 3)}: {reason}" for reason, names in missing.items()]
    if any(0 < len(entry.models) < _FEW and entry.agreement.weighted_tau.value is not None for entry in entries):
        found.append(f"the bootstrap over fewer than {_FEW} models gives intervals that are too narrow: take them for a hint")
    for (reason, models), names in absent.items():
        scores = "all scores" if len(names) == len(entries) > 1 else shorten(names, 3)
        found.append(f"{scores}: without {shorten(models, 3)}: {reason}")
    return found


def models_by_reason(entry: Prediction) -> dict[str, tuple[str, ...]]:
    """Gather the models that do not count.

    Args:
        entry: of one score.

    Returns:
        Their names by the reason that they share.
    """
    found: dict[str, tuple[str, ...]] = {}
    for each in entry.left_out:
        found[each.reason] = (*found.get(each.reason, ()), each.model)
    return found


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
        parts.append(paragraph(title, paper, "bold") + "\n")
        parts.append(lay_out(Grid(_HEAD, tuple(tuple(_cells(entry)) for entry in entries), right=(1,)), paper))
        parts += [paragraph(f"— {note}", paper, "dim") for note in _notes(entries)]
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
        lines += ["", "+ predicts well; intervals are 95%, by the bootstrap over models.", ""]
        if notes := _notes(entries):
            lines += [*(f"- {markdown_text(note)}" for note in notes), ""]
    return "\n".join(lines)


def predictions_json(found: Sequence[Prediction], truth: Truth) -> dict[str, Any]:
    """Make what JSON holds of how well scores predict accuracy.

    Args:
        found: of all metrics.
        truth: the accuracies.

    Returns:
        The truth's title, and an entry for each metric, source and target: its models with their scores, accuracies and 95% intervals of both, the
        models left out with the reasons, and the coefficients.
    """
    entries = [
        {
            "source": entry.source,
            "target": entry.target,
            "metric": entry.metric,
            "models": entry.models,
            "scores": entry.scores,
            "score_intervals": entry.score_intervals,
            "accuracies": entry.accuracies,
            "accuracy_intervals": entry.accuracy_intervals,
            "condition": entry.condition or None,
            "left_out": [{"model": each.model, "reason": each.reason} for each in entry.left_out],
            "weighted_tau": _value(entry.agreement.weighted_tau).model_dump(mode="json"),
            "spearman": _value(entry.agreement.spearman).model_dump(mode="json"),
            "pearson": _value(entry.agreement.pearson).model_dump(mode="json"),
        }
        for entry in found
    ]
    return {"truth": truth.title, "predictions": entries}

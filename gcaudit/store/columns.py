"""A report as the columns of a table: what it is of, every setting that a number depends on, and its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gcaudit.report import DataBlock, MetricValue, ModelBlock, Report
    from gcaudit.store.cells import Cell

_ASKED = (
    *("gc", "vectors", "gc_images", "gc_rtol", "n_way", "n_shot", "n_query", "episodes", "ridge"),
    *("precision", "device", "drop_duplicates", "skip_bad_images"),
)
_VERSIONS = ("torch", "timm")
LEADS = ("key", "created", "model", "source", "target", "reason")
"""Columns of a cell that it has without a report."""


def weights_text(model: ModelBlock) -> str:
    """Say which weights were taken.

    Args:
        model: a report's block on the model.

    Returns:
        `published`, the key that they lay under in the file, or `file` where they are the file itself.
    """
    return "published" if model.format is None else model.container or "file"


def setting_columns(report: Report) -> dict[str, Any]:
    """List what a report's numbers depend on.

    Args:
        report: the report.

    Returns:
        Columns by name: of the model, of each data set behind its role, of the settings, and versions.
    """
    model, settings = report.model, report.settings
    pre = model.preprocessing
    found: dict[str, Any] = {
        "spec": model.spec,
        "arch": model.arch,
        "sha256": model.sha256,
        "weights": weights_text(model),
        "ema": settings.get("ema"),
        "layer": model.layer,
        "embedding_dim": model.embedding_dim,
        "input_size": pre.size,
        "input_space": pre.input_space,
        "mean": _cell(pre.mean),
        "std": _cell(pre.std),
        "interpolation": pre.interpolation,
        "crop_pct": pre.crop_pct,
        "seed": settings.get("seed"),
    }
    for role in ("source", "target"):
        found |= _data_columns(role, report.blocks().get(role))
    found |= {name: _cell(settings.get(name)) for name in _ASKED}
    found["n_query"] = None if found["n_query"] is None else str(found["n_query"])  # a number or `all`: one kind a column
    return found | {"schema": report.schema_, "gcaudit": report.gcaudit} | {name: settings.get(name) for name in _VERSIONS}


def _data_columns(role: str, block: DataBlock | None) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(("data", "split", "classes", "images", "fingerprint"))
    if block is not None:
        found |= {"data": block.spec, "split": block.split, "classes": block.classes}
        found |= {"images": block.images, "fingerprint": block.fingerprint}
    return {f"{role}.{name}": value for name, value in found.items()}


def _cell(value: Any) -> Any:
    """Make one cell of a list."""
    return (
        ",".join(f"{part:g}" if isinstance(part, float) else str(part) for part in value)
        if isinstance(value, list | tuple)
        else value
    )


def report_values(report: Report) -> dict[str, MetricValue]:
    """List a report's values by `ROLE.METRIC`, and `ROLE.METRIC@N_SHOT` for the further points of a curve.

    Args:
        report: the report.

    Returns:
        The values by name.
    """
    found = {}
    for role, block in report.blocks().items():
        for name, value in block.metrics.items():
            found[f"{role}.{name}"] = value
            for point in (value.curve or ())[1:]:
                found[f"{role}.{name}@{point.n_shot}"] = point
    return found


def report_columns(report: Report) -> dict[str, Any]:
    """Make a row of a report.

    Args:
        report: the report.

    Returns:
        Its settings, its warnings in one text, and for each value `ROLE.METRIC` and the same with `.stderr`, `.low`, `.high`.
    """
    found = setting_columns(report) | {"warnings": " | ".join(map(str, report.warnings)) or None}
    for name, value in report_values(report).items():
        low, high = value.ci95 or (None, None)
        found |= {name: value.value, f"{name}.stderr": value.stderr, f"{name}.low": low, f"{name}.high": high}
        if value.n_shot is not None:
            found[f"{name}.n_shot"] = value.n_shot
    return found


def cell_columns(cell: Cell) -> dict[str, Any]:
    """Make a row of a store's cell.

    Args:
        cell: of the store.

    Returns:
        What it has without a report, and the columns of the report where there is one.
    """
    leads = {name: getattr(cell, name) for name in LEADS}
    return leads if cell.report is None else leads | report_columns(cell.report)


def alike(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Find the columns that are the same in all rows.

    Args:
        rows: of the same columns.

    Returns:
        These columns with their value; none of no rows.
    """
    first = rows[0] if rows else {}
    return {name: value for name, value in first.items() if all(row.get(name) == value for row in rows)}

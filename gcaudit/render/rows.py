"""What every readable format shows: rows of text, made once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from gcaudit.metrics import METRICS, Metric

if TYPE_CHECKING:
    from gcaudit.report import DataBlock, MetricValue, Report

_LARGE = 1e8
ARROWS = {"lower": "↓", "higher": "↑", "none": ""}


@final
@dataclass(frozen=True)
class Row:
    """One line of the readable report.

    Attributes:
        title: what was measured.
        better: an arrow to the better side.
        cells: one text a data set, in the order of `Report.blocks`.
    """

    title: str
    better: str
    cells: tuple[str, ...]


def _decimals(value: MetricValue) -> int:
    """Digits after the point that show two digits of a quarter of the interval, or four of the value."""
    assert value.value is not None
    width = 0.0 if value.ci95 is None else (value.ci95[1] - value.ci95[0]) / 4
    scale, wanted = (width, 1) if width else (abs(value.value), 3)
    return 0 if scale == 0 else max(0, wanted - math.floor(math.log10(scale)))


def format_value(value: MetricValue) -> str:
    """Write a value and its 95% interval, to as many digits as the standard error supports.

    Args:
        value: from a report.

    Returns:
        Such as `0.4754 [0.4519, 0.4989]`, or a dash where nothing could be measured.
    """
    if value.value is None:
        return "—"
    digits = _decimals(value)
    if digits > 8 or abs(value.value) >= _LARGE:
        return f"{value.value:.4g}" + (f" [{value.ci95[0]:.4g}, {value.ci95[1]:.4g}]" if value.ci95 else "")
    text = f"{value.value:.{digits}f}"
    return text if value.ci95 is None else f"{text} [{value.ci95[0]:.{digits}f}, {value.ci95[1]:.{digits}f}]"


def _plug_in(value: MetricValue) -> str | None:
    """Write what the papers' formula gives for the images at hand, to the digits of the value beside it."""
    if value.plug_in is None:
        return None
    return format_value(value.model_copy(update={"value": value.plug_in})).split(" ")[0]


def _given_pool(value: MetricValue) -> str | None:
    if value.pool_ci95 is None:
        return None
    return format_value(value.model_copy(update={"ci95": value.pool_ci95}))


def _tightness(value: MetricValue) -> str | None:
    return None if value.tightness is None else f"{value.tightness:.3g}"


_BESIDE = {"plug-in estimate": _plug_in, "given these images": _given_pool, "tightness, 1 for an equality": _tightness}


def _points(value: MetricValue | None) -> dict[int | None, MetricValue]:
    if value is None:
        return {}
    return {point.n_shot: point for point in value.curve or (value,)}


def _rows_of(metric: Metric, blocks: tuple[DataBlock, ...]) -> list[Row]:
    values = [_points(block.metrics.get(metric.name)) for block in blocks]
    shots = dict.fromkeys(shot for points in values for shot in points)
    rows = []
    for shot in shots:
        found = [points.get(shot) for points in values]
        first = next(point for point in found if point is not None)
        title = metric.title if first.n_way is None else f"{metric.title}, {first.n_way}-way {first.n_shot}-shot"
        cells = tuple("" if point is None else format_value(point) for point in found)
        rows.append(Row(title, ARROWS[metric.direction], cells))
        for part, told in _BESIDE.items():
            parts = [None if point is None else told(point) for point in found]
            if any(parts):
                rows.append(Row(f"  {part}", "", tuple(text or "" for text in parts)))
    return rows


def report_rows(report: Report) -> list[Row]:
    """List what was measured, in the order of the metrics' table.

    Args:
        report: the report.

    Returns:
        Rows; the probe has one for each n_shot.
    """
    blocks = tuple(report.blocks().values())
    return [row for metric in METRICS for row in _rows_of(metric, blocks)]


def report_notes(report: Report) -> list[str]:
    """List why values are missing.

    Args:
        report: the report.

    Returns:
        One line a missing value.
    """
    return [
        f"{role}.{name}: {value.reason}"
        for role, block in report.blocks().items()
        for name, value in block.metrics.items()
        if value.reason is not None
    ]


def describe_model(report: Report) -> str:
    """Say in one line what was audited.

    Args:
        report: the report.

    Returns:
        Such as `model.pt (timm:resnet18), 512-dim embedding: input of fc`.
    """
    model = report.model
    arch = "" if model.arch == model.spec else f" ({model.arch})"
    return f"{model.spec}{arch}, {model.embedding_dim}-dim embedding: {model.embedding}"


def describe_preprocessing(report: Report) -> str:
    """Say in one line what becomes of a picture, and which weights were taken.

    Args:
        report: the report.

    Returns:
        Such as `input 3x32x32, crop 0.875 (center, bilinear), mean 0.5, std 0.25; weights under 'state_dict'`.
    """
    pre, model = report.model.preprocessing, report.model
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (pre.mean, pre.std))
    weights = "published" if model.format is None else f"under {model.container!r}" if model.container else "of the file itself"
    return f"input {pre.size}, crop {pre.crop_pct:.4g} ({pre.crop_mode}, {pre.interpolation}), mean {mean}, std {std}; weights {weights}"


def describe_data(block: DataBlock) -> str:
    """Say in one line what it was looked at with.

    Args:
        block: a data set of a report.

    Returns:
        Such as `cifar10 test, 10 classes, 2000 images`.
    """
    split = f" {block.split}" if block.split else ""
    return f"{block.spec}{split}, {block.classes} classes, {block.images} images"

"""What there is: a model's card, the metrics, the known data sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gcaudit.encoders import Layer
from gcaudit.errors import plain
from gcaudit.metrics import METRICS
from gcaudit.render.escapes import log_text
from gcaudit.render.rows import format_value
from gcaudit.report import ModelBlock
from gcaudit.store import Cell

_WIDEST = 120
"""Characters of a column but the last."""


def _columns(rows: Sequence[Sequence[str]]) -> str:
    shown = [[*(plain(cell, _WIDEST) for cell in row[:-1]), plain(row[-1])] for row in rows]
    widths = [max(len(row[place]) for row in shown) for place in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown)
    return log_text("\n".join(lines) + "\n")


def render_model(block: ModelBlock) -> str:
    """Write what a model is.

    Args:
        block: the report's block on the model.

    Returns:
        One line a fact.
    """
    pre = block.preprocessing
    numbers = [", ".join(f"{value:g}" for value in values) for values in (pre.mean, pre.std)]
    size = "x".join(str(n) for n in pre.input_size)
    container = block.container or "the file itself"
    facts = [
        ("model", block.spec),
        ("format", block.format or "published weights"),
        ("weights under", container + (f" (also there: {', '.join(block.other_containers)})" if block.other_containers else "")),
        ("sha256", block.sha256),
        ("architecture", block.arch),
        ("parameters", f"{block.parameters:,}"),
        ("embedding", f"{block.embedding_dim} numbers: {block.embedding}"),
        ("input", f"{size}, {pre.interpolation}, crop {pre.crop_pct:g} ({pre.crop_mode})"),
        ("mean, std", f"{numbers[0]}; {numbers[1]}"),
        ("preprocessing from", pre.origin + (f", assumed: {', '.join(pre.assumed)}" if pre.assumed else "")),
    ]
    return _columns(facts)


def render_layers(layers: Iterable[Layer]) -> str:
    """Write the layers of a network as a tree.

    Args:
        layers: in the network's order.

    Returns:
        One line a layer: name, class, and the shape of its output for one image.
    """
    rows = [("layer", "class", "output")]
    for layer in layers:
        shape = "x".join(str(edge) for edge in layer.shape) if layer.shape else "not called" if not layer.calls else ""
        often = f" ({layer.calls} calls)" if layer.calls > 1 else ""
        rows.append(("  " * layer.name.count(".") + layer.name, layer.kind, shape + often))
    return _columns(rows)


def render_metrics() -> str:
    """Write the table of metrics.

    Returns:
        One line a metric.
    """
    rows = [("name", "better", "on", "needs", "comparable at equal", "what")]
    for metric in METRICS:
        roles = ", ".join(metric.roles)
        rows.append((metric.name, metric.direction, roles, metric.needs, metric.comparable, metric.title))
    return _columns(rows)


def render_datasets(known: Iterable[Any]) -> str:
    """Write the known data sets.

    Args:
        known: entries of `gcaudit.data.KNOWN`.

    Returns:
        A paragraph a data set.
    """
    parts = []
    for entry in known:
        splits = ", ".join(entry.splits)
        parts.append(
            f"{entry.name}: {entry.title}\n"
            f"  splits       {splits} (source: {entry.source_split}, target: {entry.target_split})\n"
            f"  looked for   {entry.looked_for}\n"
            f"  to get it    {entry.how}\n"
        )
    places = "Looked for under --data-root, else $GCAUDIT_DATA, ./data and /usr/share/datasets; then on the Hugging Face hub.\n"
    return "\n".join([*parts, places])


def render_cells(cells: Sequence[Cell]) -> str:
    """Write the cells of a store.

    Args:
        cells: of the store.

    Returns:
        One line a cell.
    """
    rows = [("key", "created", "model", "source", "target", "few-shot probe accuracy")]
    for cell in cells:
        last = cell.reason or ""
        if cell.report is not None and cell.report.target is not None and "probe_accuracy" in cell.report.target.metrics:
            last = format_value(cell.report.target.metrics["probe_accuracy"])
        rows.append((cell.key[:12], cell.created, cell.model, cell.source, cell.target or "", last))
    return _columns(rows)

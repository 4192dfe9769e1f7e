"""What there is: a model's card, its layers, the metrics, the known data sets, the cells of a store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gcaudit.errors import plain
from gcaudit.metrics import METRICS, Metric, explain_metric
from gcaudit.render.escapes import json_text, log_text
from gcaudit.render.grid import Grid, fits, lay_out
from gcaudit.render.paper import PLAIN, Paper, fold, paint, paragraph
from gcaudit.render.rows import ARROWS, format_value
from gcaudit.store import alike, cell_columns, report_values

if TYPE_CHECKING:
    from gcaudit.encoders import Layer
    from gcaudit.report import MetricValue, ModelBlock
    from gcaudit.store import Cell

_WIDEST = 120
"""Characters of a cell of unknown origin, but of a row's last."""


def _plain(row: Sequence[str]) -> tuple[str, ...]:
    return (*(plain(cell, _WIDEST) for cell in row[:-1]), plain(row[-1]))


def _facts(facts: Iterable[tuple[str, str]], paper: Paper) -> str:
    """Write one line a fact, behind its name."""
    rows = [_plain(fact) for fact in facts]
    indent = max(len(name) for name, _ in rows) + 2
    lines = (paint(name, "bold", paper) + fold(told, paper.width, indent=indent, first=indent)[len(name) :] for name, told in rows)
    return log_text("\n".join(line.rstrip() for line in lines) + "\n")


def render_model(block: ModelBlock, paper: Paper = PLAIN) -> str:
    """Write what a model is.

    Args:
        block: the report's block on the model.
        paper: what it is written on.

    Returns:
        One line a fact.
    """
    pre = block.preprocessing
    numbers = [", ".join(f"{value:g}" for value in values) for values in (pre.mean, pre.std)]
    container = block.container or "the file itself"
    facts = [
        ("model", block.spec),
        ("format", block.format or "published weights"),
        ("weights under", container + (f" (also there: {', '.join(block.other_containers)})" if block.other_containers else "")),
        ("sha256", block.sha256),
        ("architecture", block.arch),
        ("parameters", f"{block.parameters:,}"),
        ("embedding", f"{block.embedding_dim} numbers: {block.embedding}"),
        ("input", f"{pre.size}, {pre.interpolation}, crop {pre.crop_pct:g} ({pre.crop_mode})"),
        ("mean, std", f"{numbers[0]}; {numbers[1]}"),
        ("preprocessing from", pre.origin + (f", assumed: {', '.join(pre.assumed)}" if pre.assumed else "")),
    ]
    return _facts(facts, paper)


def render_layers(layers: Iterable[Layer], paper: Paper = PLAIN) -> str:
    """Write the layers of a network as a tree.

    Args:
        layers: in the network's order.
        paper: what it is written on.

    Returns:
        One line a layer: name, class, and the shape of its output for one image.
    """
    rows = []
    for layer in layers:
        shape = "x".join(str(edge) for edge in layer.shape) if layer.shape else "not called" if not layer.calls else ""
        often = f" ({layer.calls} calls)" if layer.calls > 1 else ""
        rows.append(_plain(("  " * layer.name.count(".") + layer.name, layer.kind, shape + often)))
    return log_text(lay_out(Grid(("layer", "class", "output"), tuple(rows), rule=False), paper))


_METRIC_HEAD = ("name", "better", "on", "needs", "unit", "comparable at equal", "what")


def render_metrics(paper: Paper = PLAIN) -> str:
    """Write the table of metrics.

    Args:
        paper: what it is written on.

    Returns:
        A row a metric.
    """
    rows = [
        (
            m.name,
            f"{m.direction} {ARROWS[m.direction]}".strip(),
            ", ".join(m.roles),
            m.needs,
            m.unit or "none",
            m.comparable,
            m.title,
        )
        for m in METRICS
    ]
    grid = Grid(_METRIC_HEAD, tuple(rows), folds=(5, 6), styles={1: "cyan"}, rule=False)
    if not fits(grid, paper):
        short = tuple((row[0], row[1], row[2], row[6]) for row in rows)
        grid = Grid(("name", "better", "on", "what"), short, folds=(3,), styles={1: "cyan"}, rule=False)
    more = (
        "gcaudit metrics NAME: definition, unit, what it needs, what it may be compared at, reference; --format json: all of them"
    )
    return log_text(f"{lay_out(grid, paper)}\n{fold(more, paper.width)}\n")


def _metric_facts(metric: Metric) -> dict[str, Any]:
    found = asdict(metric)
    kept = ("name", "title", "direction", "unit", "comparable", "needs", "roles", "group")
    return {name: found[name] or None for name in kept} | {"definition": explain_metric(metric)}


def render_metric(metric: Metric, paper: Paper = PLAIN) -> str:
    """Explain one metric.

    Args:
        metric: of the table.
        paper: what it is written on.

    Returns:
        Its facts, and the definition with its reasons and reference.
    """
    better = {"none": "neither side is better"}.get(metric.direction, f"{metric.direction} is better {ARROWS[metric.direction]}")
    facts = [
        ("metric", f"{metric.name}: {metric.title}"),
        ("direction", better),
        ("unit", metric.unit or "none"),
        ("measured on", ", ".join(metric.roles) + ("" if metric.group == "core" else ", with --metrics")),
        ("needs", metric.needs),
        ("comparable at equal", metric.comparable),
    ]
    return _facts(facts, paper) + "\n" + log_text(_folded(explain_metric(metric), paper))


def _folded(text: str, paper: Paper) -> str:
    """Break the lines of prose that are too long; formulas, which are indented, stay as they are."""
    lines = [line if line.startswith(" ") else fold(line, paper.width) for line in text.splitlines()]
    return "\n".join(lines) + "\n"


def metrics_json(metrics: Sequence[Metric] = METRICS) -> str:
    """Write metrics for programs.

    Args:
        metrics: which.

    Returns:
        JSON: a list of objects.
    """
    return json_text(json.dumps([_metric_facts(metric) for metric in metrics], indent=2, ensure_ascii=False) + "\n")


_DATA_FACTS = ("name", "title", "splits", "source_split", "target_split", "looked_for", "how", "hub")


def render_datasets(known: Iterable[Any], paper: Paper = PLAIN) -> str:
    """Write the known data sets.

    Args:
        known: entries of `gcaudit.data.KNOWN`.
        paper: what it is written on.

    Returns:
        A paragraph a data set.
    """
    parts = []
    for entry in known:
        splits = ", ".join(entry.splits)
        parts.append(paragraph(f"{entry.name}: {entry.title}", paper, "bold"))
        for name, told in (
            ("splits", f"{splits} (source: {entry.source_split}, target: {entry.target_split})"),
            ("looked for", entry.looked_for),
            ("to get it", entry.how),
        ):
            parts.append(fold(f"{name:13}{told}", paper.width, indent=15, first=2) + "\n")
        parts.append("\n")
    places = "Looked for under --data-root, else $GCAUDIT_DATA, ./data and /usr/share/datasets; then on the Hugging Face hub."
    return "".join([*parts, fold(places, paper.width), "\n"])


def datasets_json(known: Iterable[Any]) -> str:
    """Write the known data sets for programs.

    Args:
        known: entries of `gcaudit.data.KNOWN`.

    Returns:
        JSON: a list of objects.
    """
    return json.dumps([{name: getattr(entry, name) for name in _DATA_FACTS} for entry in known], indent=2) + "\n"


_LISTED = (
    *("source", "target", "input_size", "layer", "weights", "seed"),
    *(f"{role}.{name}" for role in ("source", "target") for name in ("split", "classes", "images", "fingerprint")),
    *("n_way", "n_shot", "n_query", "episodes", "ridge", "gc", "vectors", "gc_rtol", "gc_images", "precision", "input_space"),
    *("schema", "gcaudit"),
)
"""Settings that a list of cells says, once where all cells have them alike, else as columns."""


def render_cells(cells: Sequence[Cell], paper: Paper = PLAIN) -> str:
    """Write the cells of a store.

    Args:
        cells: of the store.
        paper: what it is written on.

    Returns:
        One line a cell, or a block where columns do not fit; a line for each that failed, cut off where that is too long.
    """
    done = [(cell, _settings(cell)) for cell in cells if cell.report is not None]
    same = alike([settings for _, settings in done])
    differing = [name for name in _LISTED if name not in same]
    shots = {value.n_shot for cell, _ in done if (value := _probe_value(cell)) is not None}
    probe = "few-shot probe accuracy" + (f", {next(iter(shots))}-shot" if len(shots) == 1 and None not in shots else "")
    specs: dict[str, set[str]] = {cell.model: set() for cell, _ in done}
    for cell, settings in done:
        specs[cell.model].add(settings["spec"])
    if any(len(each) > 1 for each in specs.values()):  # a name that stands for several models
        differing.insert(0, "spec")
    head = ("key", "created", "model", probe, *differing)
    rows = tuple(
        tuple(
            plain(part, _WIDEST)
            for part in (*_lead(cell), _probe(cell, named=len(shots) > 1), *(_told(settings[name]) for name in differing))
        )
        for cell, settings in done
    )
    parts = [lay_out(Grid(head, rows, keys=3, rule=False), paper)] if rows else []
    told = ", ".join(f"{name} {_told(value, name)}" for name, value in same.items() if value is not None and name != "spec")
    parts += ["\n" + paragraph(f"alike in all: {told}", paper, "dim")] if told else []
    failed = [cell for cell in cells if cell.report is None]
    parts += [paint("could not be done (gcaudit results show KEY tells all)", "red", paper) + "\n"] if failed else []
    parts += [_failed_line(cell, paper.width or 2 * _WIDEST) + "\n" for cell in failed]
    return log_text("".join(parts)) or "no cells\n"


def _settings(cell: Cell) -> dict[str, Any]:
    row = cell_columns(cell)
    return {name: row[name] for name in (*_LISTED, "spec")}


def _lead(cell: Cell) -> tuple[str, ...]:
    return (cell.key[:12], cell.created, cell.model)


def _failed_line(cell: Cell, width: int) -> str:
    place = cell.source + (f" -> {cell.target}" if cell.target else "")
    line = plain(f"{cell.key[:12]}  {cell.model}: {place}: {cell.reason}")
    return line if len(line) <= width else line[: width - 1] + "…"


def _told(value: Any, name: str = "") -> str:
    text = "" if value is None else plain(str(value), _WIDEST)
    return text[:12] if name.endswith("fingerprint") or (len(text) == 64 and not name) else text


def _probe_value(cell: Cell) -> MetricValue | None:
    return None if cell.report is None else report_values(cell.report).get("target.probe_accuracy")


def _probe(cell: Cell, *, named: bool) -> str:
    """Write the probe's accuracy, of a curve its first point; with its n-shot where cells differ in that."""
    value = _probe_value(cell)
    return "" if value is None else format_value(value) + (f", {value.n_shot}-shot" if named and value.n_shot is not None else "")

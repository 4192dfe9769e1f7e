"""Rankings as table, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, final

from gcaudit.errors import shorten
from gcaudit.gate import HEADLINES
from gcaudit.render.documents import RANKING, FailedCell, RankingDocument, RankingRow, RankingTableDocument
from gcaudit.render.escapes import json_text, log_text, markdown_text
from gcaudit.render.grid import Grid, fits, lay_out
from gcaudit.render.paper import PLAIN, Paper, paragraph
from gcaudit.render.rows import ARROWS, format_value
from gcaudit.report import MetricValue
from gcaudit.store import alike, report_values, weights_text
from gcaudit.zoo import RankedRow, Ranking, RankingTable

_METRICS = (*HEADLINES, "source.cdnv", "source.gc")
_READ_AS = ("input", "layer", "weights")
_TOLD_BELOW = 8
"""Models of which what does not fit into columns is told below them."""


@final
@dataclass(frozen=True)
class _Columns:
    """What the columns of a table hold beside rank, group, model and the metric that is sorted by, found out once a table.

    Attributes:
        sort: the metric that is sorted by, and of a curve the point.
        metrics: titles of the others, by `ROLE.METRIC`.
        read_as: of how models were read, those in which they differ.
        alike: those in which they do not, which are told once below the table.
    """

    sort: str
    metrics: Mapping[str, str]
    read_as: tuple[str, ...]
    alike: Mapping[str, str]


def _columns(ranking: Ranking, table: RankingTable) -> _Columns:
    values = [report_values(row.report) for row in table.rows]
    known = dict.fromkeys(name for row in values for name in row)
    sort = _called(ranking.sort, values)
    named = {name: _called(name, values) for metric in _METRICS for name in known if name.partition("@")[0] == metric}
    shown = {name: called for name, called in named.items() if sort not in (name, called)}
    same = alike([_read_as(row) for row in table.rows]) if len(table.rows) > 1 else {}
    read_as = tuple(name for name in _READ_AS if name not in same)
    return _Columns(sort, shown, read_as, same)


def _called(name: str, values: Sequence[Mapping[str, MetricValue]]) -> str:
    """Name a value; of a curve with the point that a bare name stands for."""
    found = [row[name] for row in values if name in row]
    shots = {value.n_shot for value in found}
    return f"{name}@{shots.pop()}" if len(shots) == 1 and any(len(value.curve or ()) > 1 for value in found) else name


def _read_as(row: RankedRow) -> dict[str, str]:
    model = row.report.model
    return dict(zip(_READ_AS, (model.preprocessing.size, model.layer, weights_text(model)), strict=True))


def _cells(columns: _Columns, row: RankedRow) -> tuple[str, ...]:
    values, read_as = report_values(row.report), _read_as(row)
    first = "—" if row.value is None else format_value(row.value)
    rest = (format_value(values[name]) if name in values else "" for name in columns.metrics)
    rank = "" if row.rank is None else str(row.rank)
    return (rank, row.groups, row.model, first, *rest, *(read_as[name] for name in columns.read_as))


def _head(ranking: Ranking, columns: _Columns) -> tuple[str, ...]:
    return ("#", "group", "model", f"{columns.sort} {ARROWS[ranking.direction]}", *columns.metrics.values(), *columns.read_as)


def _grid(ranking: Ranking, table: RankingTable, columns: _Columns) -> Grid:
    rows = tuple(_cells(columns, row) for row in table.rows)
    return Grid(_head(ranking, columns), rows, keys=3, right=(0,), styles={3: "cyan"})


def _notes(table: RankingTable, columns: _Columns) -> list[str]:
    dashes: dict[str, dict[str, None]] = {}
    for row in table.rows:
        if row.reason is not None:
            dashes.setdefault(row.reason, {})[row.model] = None
        for name, value in report_values(row.report).items():
            if name in columns.metrics and value.value is None:
                dashes.setdefault(f"no {columns.metrics[name]}: {value.reason}", {})[row.model] = None
    found = [f"{shorten(list(models), 3)}: {told}" for told, models in dashes.items()]
    if columns.alike:
        found.append("of every model: " + ", ".join(f"{name} {told}" for name, told in columns.alike.items()))
    told = {name: [f"{row.model} {_read_as(row)[name]}" for row in table.rows] for name in _READ_AS}
    found += [f"{name}: {', '.join(told[name])}" for name in _READ_AS if name not in (*columns.alike, *columns.read_as)]
    if sum(row.value is not None for row in table.rows) > 1:
        how = "on the same images or episodes" if table.paired else "not paired"
        found.append(f"models that share a letter cannot be told apart at 95% by {columns.sort} (all pairs together, {how})")
    return found


def render_ranking(ranking: Ranking, paper: Paper = PLAIN) -> str:
    """Lay rankings out as tables.

    Args:
        ranking: the rankings.
        paper: what they are written on.

    Returns:
        Text that ends with a newline; intervals are 95%. Where columns do not fit, how models were read goes below the table, and where that does
        not help there is a block a model.
    """
    parts: list[str] = []
    for table in ranking.tables:
        columns = _columns(ranking, table)
        grid = _grid(ranking, table, columns)
        below = replace(columns, read_as=())
        if not fits(grid, paper) and len(table.rows) <= _TOLD_BELOW and fits(narrow := _grid(ranking, table, below), paper):
            columns, grid = below, narrow
        parts += [paragraph(table.caveat or table.place, paper, "bold"), "\n", lay_out(grid, paper)]
        parts += [*(paragraph(f"— {note}", paper, "dim") for note in _notes(table, columns)), "\n"]
    parts += [paragraph(f"warning: {line}", paper, "yellow") for line in ranking.warnings]
    if ranking.failed:
        parts += [paragraph("could not be done", paper, "red"), *(paragraph(f"— {line}", paper) for line in ranking.failures)]
    return log_text("".join(parts).rstrip("\n") + "\n")


def render_ranking_markdown(ranking: Ranking) -> str:
    """Write rankings as markdown.

    Args:
        ranking: the rankings.

    Returns:
        Text that ends with a newline.
    """
    lines: list[str] = []
    for table in ranking.tables:
        columns = _columns(ranking, table)
        head = _head(ranking, columns)
        lines += [f"### {markdown_text(table.caveat or table.place)}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        lines += [f"| {' | '.join(map(markdown_text, _cells(columns, row)))} |" for row in table.rows]
        lines += ["", *(f"- {markdown_text(note)}" for note in _notes(table, columns)), ""]
    for title, texts in (("Warnings", ranking.warnings), ("Could not be done", ranking.failures)):
        if texts:
            lines += [f"**{title}**", "", *(f"- {markdown_text(text)}" for text in texts), ""]
    return "\n".join(lines).rstrip() + "\n"


def ranking_json(ranking: Ranking, predictions: dict[str, Any] | None = None) -> str:
    """Write rankings as JSON; numbers are never rounded.

    Args:
        ranking: the rankings.
        predictions: how well scores predict accuracies: the truth's title, and an entry for each metric, source and target; None for no truth.

    Returns:
        Text that ends with a newline.
    """
    content = RankingDocument(
        schema=RANKING,
        gcaudit=version("gcaudit"),
        sort=ranking.sort,
        direction=ranking.direction,
        tables=tuple(_table_document(table) for table in ranking.tables),
        failed=tuple(
            FailedCell(model=r.request.model, source=r.request.source, target=r.request.target, reason=str(r.reason))
            for r in ranking.failed
        ),
        **(predictions or {}),
    )
    return json_text(content.text())


def _table_document(table: RankingTable) -> RankingTableDocument:
    rows = tuple(
        RankingRow(
            rank=row.rank,
            groups=row.groups,
            model=row.model,
            trained_on_target=row.trained_on_target,
            reason=row.reason,
            report=row.report,
        )
        for row in table.rows
    )
    return RankingTableDocument(
        source=table.source, target=table.target, condition=table.condition or None, paired=table.paired, rows=rows
    )

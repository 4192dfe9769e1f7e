"""Rankings as table, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, final

from gcaudit.gate import HEADLINES
from gcaudit.render.documents import RANKING, FailedCell, RankingDocument, RankingRow, RankingTableDocument
from gcaudit.render.escapes import json_text, log_text, markdown_text
from gcaudit.render.grid import Grid, lay_out
from gcaudit.render.paper import PLAIN, Paper, paragraph
from gcaudit.render.rows import ARROWS, format_value
from gcaudit.store import alike, report_values, weights_text
from gcaudit.zoo import RankedRow, Ranking, RankingTable

_METRICS = (*HEADLINES, "source.cdnv", "source.gc")
_READ_AS = ("input", "layer", "weights")


@final
@dataclass(frozen=True)
class _Columns:
    """What the columns of a table hold beside rank, group, model and the metric that is sorted by, found out once a table.

    Attributes:
        metrics: as `ROLE.METRIC`.
        read_as: of how models were read, those in which they differ.
        alike: those in which they do not, which are told once below the table.
    """

    metrics: tuple[str, ...]
    read_as: tuple[str, ...]
    alike: Mapping[str, str]


def _columns(ranking: Ranking, table: RankingTable) -> _Columns:
    names = {name for row in table.rows for name in report_values(row.report)}
    same = alike([_read_as(row) for row in table.rows]) if len(table.rows) > 1 else {}
    return _Columns(
        tuple(name for name in _METRICS if name != ranking.sort and name in names),
        tuple(name for name in _READ_AS if name not in same),
        same,
    )


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
    return ("#", "group", "model", f"{ranking.sort} {ARROWS[ranking.direction]}", *columns.metrics, *columns.read_as)


def _notes(ranking: Ranking, table: RankingTable, columns: _Columns) -> list[str]:
    found = [f"{row.model}: {row.reason}" for row in table.rows if row.reason is not None]
    if columns.alike:
        found.append("of every model: " + ", ".join(f"{name} {told}" for name, told in columns.alike.items()))
    if len(table.rows) > 1:
        how = "on the same images or episodes" if table.paired else "not paired"
        found.append(f"models that share a letter cannot be told apart at 95% by {ranking.sort} (all pairs together, {how})")
    return found


def render_ranking(ranking: Ranking, paper: Paper = PLAIN) -> str:
    """Lay rankings out as tables.

    Args:
        ranking: the rankings.
        paper: what they are written on.

    Returns:
        Text that ends with a newline; intervals are 95%. Where columns do not fit there is a block a model.
    """
    parts: list[str] = []
    for table in ranking.tables:
        columns = _columns(ranking, table)
        rows = tuple(_cells(columns, row) for row in table.rows)
        grid = Grid(_head(ranking, columns), rows, keys=3, right=(0,), styles={3: "cyan"})
        parts += [paragraph(table.caveat or table.place, paper, "bold"), "\n", lay_out(grid, paper)]
        parts += [*(paragraph(f"— {note}", paper, "dim") for note in _notes(ranking, table, columns)), "\n"]
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
        lines += ["", *(f"- {markdown_text(note)}" for note in _notes(ranking, table, columns)), ""]
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

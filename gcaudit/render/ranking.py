"""Rankings as table, Markdown and JSON."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from gcaudit.errors import shorten
from gcaudit.gate import HEADLINES
from gcaudit.render.documents import RANKING, FailedCell, RankingDocument, RankingRow, RankingTableDocument
from gcaudit.render.escapes import json_text, log_text, markdown_text
from gcaudit.render.grid import Grid, lay_out
from gcaudit.render.paper import PLAIN, Paper, fold, paint
from gcaudit.render.rows import ARROWS, format_value
from gcaudit.store import alike, report_values, size_text, weights_text
from gcaudit.zoo import RankedRow, Ranking, RankingTable

_COLUMNS = (*HEADLINES, "source.cdnv", "source.gc")
_READ_AS = ("input", "layer", "weights")


def _shown(ranking: Ranking, table: RankingTable) -> list[str]:
    names = {name for row in table.rows for name in report_values(row.report)}
    return [name for name in _COLUMNS if name != ranking.sort and name in names]


def _read_as(row: RankedRow) -> dict[str, str]:
    """Say how a model was read; where all models of a table have it alike, it is told once below it."""
    model = row.report.model
    told = (size_text(model.preprocessing.input_size), model.layer, weights_text(model))
    return dict(zip(_READ_AS, told, strict=True))


def _alike(table: RankingTable) -> dict[str, str]:
    return alike([_read_as(row) for row in table.rows]) if len(table.rows) > 1 else {}


def _cells(ranking: Ranking, table: RankingTable, row: RankedRow) -> list[str]:
    values = report_values(row.report)
    first = "—" if row.value is None else format_value(row.value)
    rest = [format_value(values[name]) if name in values else "" for name in _shown(ranking, table)]
    same = _alike(table)
    read_as = [told for name, told in _read_as(row).items() if name not in same]
    return ["" if row.rank is None else str(row.rank), row.groups, row.model, first, *rest, *read_as]


def _first_line(table: RankingTable) -> str:
    """Name a table, and say of whom it does not tell how they transfer."""
    trained = table.trained_on_target
    if not trained:
        return table.place
    who = (
        "all models were" if len(trained) == len(table.rows) else f"{shorten(trained, 3)} {'was' if len(trained) == 1 else 'were'}"
    )
    return f"{table.place}: {who} trained on classes or images of the target, so this is not transfer"


def _notes(ranking: Ranking, table: RankingTable) -> list[str]:
    found = [f"{row.model}: {row.reason}" for row in table.rows if row.reason is not None]
    if same := _alike(table):
        found.append("of every model: " + ", ".join(f"{name} {told}" for name, told in same.items()))
    if len(table.rows) > 1:
        how = "on the same images or episodes" if table.paired else "not paired"
        found.append(f"models that share a letter cannot be told apart at 95% by {ranking.sort} (all pairs together, {how})")
    return found


def _head(ranking: Ranking, table: RankingTable) -> list[str]:
    return [
        "#",
        "group",
        "model",
        f"{ranking.sort} {ARROWS[ranking.direction]}",
        *_shown(ranking, table),
        *(n for n in _READ_AS if n not in _alike(table)),
    ]


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
        parts.append(paint(fold(_first_line(table), paper.width, indent=2, first=0), "bold", paper) + "\n\n")
        rows = tuple(tuple(_cells(ranking, table, row)) for row in table.rows)
        grid = Grid(tuple(_head(ranking, table)), rows, keys=3, right=(0,), styles={3: "cyan"})
        parts.append(lay_out(grid, paper))
        parts += [paint(fold(f"— {note}", paper.width, indent=2, first=0), "dim", paper) + "\n" for note in _notes(ranking, table)]
        parts.append("\n")
    warnings = [fold(f"warning: {line}", paper.width, indent=2, first=0) for line in ranking.warnings]
    parts += [paint(line, "yellow", paper) + "\n" for line in warnings]
    if ranking.failed:
        parts.append(paint("could not be done", "red", paper) + "\n")
        parts += [fold(f"— {line}", paper.width, indent=2, first=0) + "\n" for line in ranking.failures]
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
        head = _head(ranking, table)
        lines += [f"### {markdown_text(_first_line(table))}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        lines += [f"| {' | '.join(map(markdown_text, _cells(ranking, table, row)))} |" for row in table.rows]
        lines += ["", *(f"- {markdown_text(note)}" for note in _notes(ranking, table)), ""]
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

"""Rankings as table, markdown, JSON, CSV and parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gcaudit.errors import shorten
from gcaudit.gates import HEADLINES
from gcaudit.ranking import RankedRow, Ranking, RankingTable
from gcaudit.report.rows import ARROWS, format_value
from gcaudit.report.schema import MetricValue, Report
from gcaudit.store import Cell

_COLUMNS = (*HEADLINES, "source.cdnv", "source.gc")


def _values(report: Report) -> dict[str, MetricValue]:
    """List a report's values by `ROLE.METRIC`, and `ROLE.METRIC@N_SHOT` for the further points of a curve."""
    found = {}
    for role, block in report.blocks().items():
        for name, value in block.metrics.items():
            found[f"{role}.{name}"] = value
            for point in (value.curve or ())[1:]:
                found[f"{role}.{name}@{point.n_shot}"] = point
    return found


def _place(table: RankingTable) -> str:
    where = table.source if table.target is None else f"{table.source} -> {table.target}"
    return where + (f" ({table.condition})" if table.condition else "")


def _shown(ranking: Ranking, table: RankingTable) -> list[str]:
    names = {name for row in table.rows for name in _values(row.report)}
    return [name for name in _COLUMNS if name != ranking.sort and name in names]


def _cells(ranking: Ranking, table: RankingTable, row: RankedRow) -> list[str]:
    values = _values(row.report)
    first = "—" if row.value is None else format_value(row.value)
    rest = [format_value(values[name]) if name in values else "" for name in _shown(ranking, table)]
    return ["" if row.rank is None else str(row.rank), row.groups, row.model, first, *rest]


def _notes(ranking: Ranking, table: RankingTable) -> list[str]:
    found = [f"{row.model}: {row.reason}" for row in table.rows if row.reason is not None]
    if len(table.rows) > 1:
        how = "on the same images or episodes" if table.paired else "not paired"
        found.append(f"models of one letter cannot be told apart at 95% by {ranking.sort} (each pair by itself, {how})")
    return found


def _failures(ranking: Ranking) -> list[str]:
    """A line for each reason, with the cells that it kept from being done."""
    reasons: dict[str, list[str]] = {}
    for result in ranking.failed:
        reasons.setdefault(str(result.reason), []).append(result.request.title)
    return [f"{shorten(titles, 3)}: {reason}" for reason, titles in reasons.items()]


def _head(ranking: Ranking, table: RankingTable) -> list[str]:
    return ["#", "group", "model", f"{ranking.sort} {ARROWS[ranking.direction]}", *_shown(ranking, table)]


def render_ranking(ranking: Ranking) -> RenderableType:
    """Lay rankings out as tables.

    Args:
        ranking: the rankings.

    Returns:
        For a rich console; intervals are 95%.
    """
    parts: list[RenderableType] = []
    for table in ranking.tables:
        parts.append(Text(_place(table), style="bold"))
        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for number, title in enumerate(_head(ranking, table)):
            grid.add_column(title, no_wrap=number < 3, justify="right" if number == 0 else "left")
        for row in table.rows:
            grid.add_row(*(Text(cell) for cell in _cells(ranking, table, row)))
        parts += [grid, *(Text(f"— {note}", style="dim") for note in _notes(ranking, table)), Text("")]
    if ranking.failed:
        parts.append(Text("could not be done", style="bold"))
        parts += [Text(f"— {line}") for line in _failures(ranking)]
    return Group(*parts)


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
        lines += [f"### {_place(table)}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        lines += [f"| {' | '.join(cell.replace('|', '&#124;') for cell in _cells(ranking, table, row))} |" for row in table.rows]
        lines += ["", *(f"- {note}" for note in _notes(ranking, table)), ""]
    if ranking.failed:
        lines += ["### could not be done", "", *(f"- {line}" for line in _failures(ranking))]
    return "\n".join(lines).rstrip() + "\n"


def ranking_json(ranking: Ranking, extra: Mapping[str, Any] | None = None) -> str:
    """Write rankings as JSON; numbers are never rounded.

    Args:
        ranking: the rankings.
        extra: further keys.

    Returns:
        Text that ends with a newline.
    """
    tables = [
        {
            "source": table.source,
            "target": table.target,
            "condition": table.condition or None,
            "paired": table.paired,
            "rows": [
                {
                    "rank": row.rank,
                    "groups": row.groups,
                    "model": row.model,
                    "reason": row.reason,
                    "report": row.report.model_dump(mode="json", by_alias=True),
                }
                for row in table.rows
            ],
        }
        for table in ranking.tables
    ]
    failed = [
        {"model": r.request.model, "source": r.request.source, "target": r.request.target, "reason": r.reason}
        for r in ranking.failed
    ]
    head = {"schema": "gcaudit.ranking/1", "gcaudit": version("gcaudit"), "sort": ranking.sort, "direction": ranking.direction}
    return json.dumps(head | {"tables": tables, "failed": failed} | dict(extra or {}), indent=2, allow_nan=False) + "\n"


def report_frame(rows: Iterable[tuple[Mapping[str, Any], Report | None]]) -> pd.DataFrame:
    """Make a wide table of reports: a row a cell, four columns a value.

    Args:
        rows: leading columns, and a report or None.

    Returns:
        Columns as given, then `arch`, `sha256`, and for each value `ROLE.METRIC` and the same with `.stderr`, `.low`, `.high`.
    """
    records = []
    for lead, report in rows:
        record: dict[str, Any] = dict(lead)
        if report is not None:
            record |= {"arch": report.model.arch, "sha256": report.model.sha256, "embedding_dim": report.model.embedding_dim}
            for name, value in _values(report).items():
                low, high = value.ci95 or (None, None)
                record |= {name: value.value, f"{name}.stderr": value.stderr, f"{name}.low": low, f"{name}.high": high}
        records.append(record)
    return pd.DataFrame.from_records(records)


def ranking_frame(ranking: Ranking) -> pd.DataFrame:
    """Make a wide table of rankings.

    Args:
        ranking: the rankings.

    Returns:
        A row a cell, also of those that failed; see `report_frame`.
    """
    rows: list[tuple[Mapping[str, Any], Report | None]] = []
    for table in ranking.tables:
        for row in table.rows:
            lead = {"model": row.model, "source": table.source, "target": table.target, "condition": table.condition or None}
            rows.append((lead | {"rank": row.rank, "groups": row.groups, "sort": ranking.sort, "reason": row.reason}, row.report))
    for result in ranking.failed:
        request = result.request
        lead = {"model": request.model, "source": request.source, "target": request.target, "condition": None}
        rows.append((lead | {"rank": None, "groups": "", "sort": ranking.sort, "reason": result.reason}, None))
    return report_frame(rows)


def frame_bytes(frame: pd.DataFrame, name: str) -> bytes:
    """Write a table as a file.

    Args:
        frame: the table.
        name: `csv` or `parquet`.

    Returns:
        The file's content.
    """
    if name == "csv":
        return frame.to_csv(index=False).encode()
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def export_cells(cells: Iterable[Cell], name: str) -> bytes:
    """Write the cells of a store as a file.

    Args:
        cells: of the store.
        name: `csv`, `parquet` or `json`.

    Returns:
        The file's content: a row a cell, or a list of reports with their keys.
    """
    found = list(cells)
    if name == "json":
        rows = [
            {"key": cell.key, "reason": cell.reason, "report": None}
            if cell.report is None
            else {"key": cell.key, "reason": None, "report": cell.report.model_dump(mode="json", by_alias=True)}
            for cell in found
        ]
        return (json.dumps(rows, indent=2, allow_nan=False) + "\n").encode()
    leads = [
        {"key": c.key, "created": c.created, "model": c.model, "source": c.source, "target": c.target, "reason": c.reason}
        for c in found
    ]
    return frame_bytes(report_frame(zip(leads, (cell.report for cell in found), strict=True)), name)

"""Rankings as table, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gcaudit.errors import shorten
from gcaudit.gate import HEADLINES
from gcaudit.render.escapes import json_text, markdown_text
from gcaudit.render.rows import ARROWS, format_value
from gcaudit.zoo import RankedRow, Ranking, RankingTable, report_values

_COLUMNS = (*HEADLINES, "source.cdnv", "source.gc")


def _shown(ranking: Ranking, table: RankingTable) -> list[str]:
    names = {name for row in table.rows for name in report_values(row.report)}
    return [name for name in _COLUMNS if name != ranking.sort and name in names]


def _cells(ranking: Ranking, table: RankingTable, row: RankedRow) -> list[str]:
    values = report_values(row.report)
    first = "—" if row.value is None else format_value(row.value)
    rest = [format_value(values[name]) if name in values else "" for name in _shown(ranking, table)]
    return ["" if row.rank is None else str(row.rank), row.groups, row.model, first, *rest]


def _notes(ranking: Ranking, table: RankingTable) -> list[str]:
    found = [f"{row.model}: {row.reason}" for row in table.rows if row.reason is not None]
    warned: dict[str, list[str]] = {}
    for row in table.rows:
        for warning in row.report.warnings:
            warned.setdefault(str(warning), []).append(row.model)
    found += [f"warning: {shorten(models, 3)}: {line}" for line, models in warned.items()]
    if len(table.rows) > 1:
        how = "on the same images or episodes" if table.paired else "not paired"
        found.append(f"models that share a letter cannot be told apart at 95% by {ranking.sort} (all pairs together, {how})")
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
        parts.append(Text(table.place, style="bold"))
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
        lines += [f"### {markdown_text(table.place)}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        lines += [f"| {' | '.join(map(markdown_text, _cells(ranking, table, row)))} |" for row in table.rows]
        lines += ["", *(f"- {markdown_text(note)}" for note in _notes(ranking, table)), ""]
    if ranking.failed:
        lines += ["### could not be done", "", *(f"- {markdown_text(line)}" for line in _failures(ranking))]
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
    content = head | {"tables": tables, "failed": failed} | dict(extra or {})
    return json_text(json.dumps(content, indent=2, allow_nan=False) + "\n")

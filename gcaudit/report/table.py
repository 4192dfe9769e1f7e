"""The report for people at a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gcaudit.report.rows import describe_data, describe_model, report_notes, report_rows
from gcaudit.report.schema import Report


_CELL = 26
"""Narrow terminals break titles before numbers of up to this width."""


def render_table(report: Report) -> RenderableType:
    """Lay the report out as a table.

    Args:
        report: the report.

    Returns:
        For a rich console; intervals are 95%.
    """
    head = Text(describe_model(report), style="bold")
    blocks = report.blocks()
    lines = [Text(f"{role}: {describe_data(block)}") for role, block in blocks.items()]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("metric [95% interval]".replace("[", r"\["))
    table.add_column("", min_width=1)
    rows = report_rows(report)
    for place, role in enumerate(blocks):
        widest = max((len(row.cells[place]) for row in rows), default=0)
        table.add_column(role, overflow="fold", min_width=min(widest, _CELL))
    for row in rows:
        table.add_row(row.title, row.better, *(Text(cell) for cell in row.cells))
    notes = [Text(f"— {note}", style="dim") for note in report_notes(report)]
    return Group(head, *lines, table, *notes)

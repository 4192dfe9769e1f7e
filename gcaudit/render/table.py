"""The report for people at a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gcaudit.render.rows import describe_data, describe_model, describe_preprocessing, report_notes, report_rows
from gcaudit.report import Report


def render_table(report: Report) -> RenderableType:
    """Lay the report out as a table.

    Args:
        report: the report.

    Returns:
        For a rich console; intervals are 95%. Narrow consoles break titles, never numbers.
    """
    head = Text(describe_model(report), style="bold")
    blocks = report.blocks()
    lines = [Text(describe_preprocessing(report))]
    lines += [Text(f"{role}: {describe_data(block)}") for role, block in blocks.items()]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("metric [95% interval]".replace("[", r"\["), min_width=24)
    table.add_column("", min_width=1)
    rows = report_rows(report)
    for place, role in enumerate(blocks):
        widest = max((len(row.cells[place]) for row in rows), default=0)
        table.add_column(role, no_wrap=True, min_width=max(widest, len(role)))
    for row in rows:
        table.add_row(row.title, row.better, *(Text(cell) for cell in row.cells))
    notes = [Text(f"— {note}", style="dim") for note in report_notes(report)]
    warnings = [Text(f"warning: {warning}", style="yellow") for warning in report.warnings]
    return Group(head, *lines, table, *notes, *warnings)

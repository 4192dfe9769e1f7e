"""The report for people at a terminal."""

from __future__ import annotations

from gcaudit.render.escapes import log_text
from gcaudit.render.grid import Grid, lay_out
from gcaudit.render.paper import Paper, fold, paint
from gcaudit.render.rows import describe_data, describe_model, describe_preprocessing, report_notes, report_rows
from gcaudit.report import Report


def render_table(report: Report, paper: Paper) -> str:
    """Lay the report out as a table.

    Args:
        report: the report.
        paper: what it is written on.

    Returns:
        Text that ends with a newline; intervals are 95%. Narrow papers break titles, never numbers.
    """
    blocks = report.blocks()
    head = [paint(fold(describe_model(report), paper.width, indent=2, first=0), "bold", paper)]
    lines = [describe_preprocessing(report), *(f"{role}: {describe_data(block)}" for role, block in blocks.items())]
    head += [fold(line, paper.width, indent=2, first=0) for line in lines]
    rows = tuple((row.title, row.better, *row.cells) for row in report_rows(report))
    grid = Grid(("metric [95% interval]", "", *blocks), rows, keys=2, folds=(0,), styles={1: "cyan"})
    notes = [paint(fold(f"— {note}", paper.width, indent=2, first=0), "dim", paper) for note in report_notes(report)]
    notes += [paint(fold(f"warning: {warning}", paper.width, indent=2, first=0), "yellow", paper) for warning in report.warnings]
    return log_text("\n".join([*head, "", lay_out(grid, paper), *notes]).rstrip("\n") + "\n")

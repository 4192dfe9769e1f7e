"""The report for people at a terminal."""

from __future__ import annotations

from gcaudit.render.escapes import log_text
from gcaudit.render.grid import Grid, lay_out
from gcaudit.render.paper import Paper, paragraph
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
    lines = [describe_preprocessing(report), *(f"{role}: {describe_data(block)}" for role, block in blocks.items())]
    rows = tuple((row.title, row.better, *row.cells) for row in report_rows(report))
    grid = Grid(("metric [95% interval]", "", *blocks), rows, keys=2, folds=(0,), styles={1: "cyan"})
    parts = [paragraph(describe_model(report), paper, "bold"), *(paragraph(line, paper) for line in lines)]
    parts += ["\n", lay_out(grid, paper), "\n"]
    parts += [paragraph(f"— {note}", paper, "dim") for note in report_notes(report)]
    parts += [paragraph(f"warning: {warning}", paper, "yellow") for warning in report.warnings]
    return log_text("".join(parts).rstrip("\n") + "\n")

"""A report in any of its formats."""

from __future__ import annotations

from gcaudit.render.escapes import json_text
from gcaudit.render.markdown import render_markdown
from gcaudit.render.paper import PLAIN, Paper
from gcaudit.render.table import render_table
from gcaudit.report import Report


def render_report(report: Report, name: str = "table", paper: Paper = PLAIN) -> str:
    """Make the text of a report.

    Args:
        report: the report.
        name: one of `FORMATS`.
        paper: what a table is written on.

    Returns:
        Text that ends with a newline.
    """
    if name == "json":
        return json_text(report.to_json())
    if name == "markdown":
        return render_markdown(report)
    return render_table(report, paper)

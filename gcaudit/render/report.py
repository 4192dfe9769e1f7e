"""A report in any of its formats."""

from __future__ import annotations

from gcaudit.render.escapes import json_text
from gcaudit.render.markdown import render_markdown
from gcaudit.render.table import render_table
from gcaudit.render.text import table_text
from gcaudit.report import Report


def render_report(report: Report, name: str, *, to_terminal: bool) -> str:
    """Make the text of a report.

    Args:
        report: the report.
        name: one of `FORMATS`.
        to_terminal: whether colours and the terminal's width apply.

    Returns:
        Text that ends with a newline.
    """
    if name == "json":
        return json_text(report.to_json())
    if name == "markdown":
        return render_markdown(report)
    return table_text(render_table(report), to_terminal=to_terminal)

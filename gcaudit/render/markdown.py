"""The report as Markdown, for issues, pull requests and model cards."""

from __future__ import annotations

from gcaudit.render.rows import describe_data, describe_model, describe_preprocessing, report_notes, report_rows
from gcaudit.report import Report


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def render_markdown(report: Report) -> str:
    """Write the report as Markdown.

    Args:
        report: the report.

    Returns:
        Text that ends with a newline; intervals are 95%.
    """
    blocks = report.blocks()
    lines = [f"## gcaudit: {_cell(describe_model(report))}", ""]
    lines += [f"- {_cell(describe_preprocessing(report))}"]
    lines += [f"- {role}: {_cell(describe_data(block))}" for role, block in blocks.items()]
    lines += [f"- weights: sha256 `{report.model.sha256}`", ""]
    lines += ["| metric | better | " + " | ".join(f"{role} [95% interval]" for role in blocks) + " |"]
    lines += ["|---|---|" + "---|" * len(blocks)]
    lines += ["| " + " | ".join(_cell(text) for text in (row.title, row.better, *row.cells)) + " |" for row in report_rows(report)]
    for title, texts in (("Not measured", report_notes(report)), ("Warnings", tuple(map(str, report.warnings)))):
        if texts:
            lines += ["", f"**{title}**", "", *(f"- {_cell(text)}" for text in texts)]
    settings = report.settings
    lines += ["", f"gcaudit {report.gcaudit}, seed {settings.get('seed')}, {settings.get('device')}, {settings.get('precision')}"]
    return "\n".join(lines) + "\n"

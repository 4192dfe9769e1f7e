"""The report as Markdown, for issues, pull requests and model cards."""

from __future__ import annotations

from gcaudit.render.escapes import markdown_text
from gcaudit.render.rows import describe_data, describe_model, describe_preprocessing, report_notes, report_rows
from gcaudit.report import Report


def render_markdown(report: Report) -> str:
    """Write the report as Markdown.

    Args:
        report: the report.

    Returns:
        Text that ends with a newline; intervals are 95%.
    """
    blocks = report.blocks()
    lines = [f"## gcaudit: {markdown_text(describe_model(report))}", ""]
    lines += [f"- {markdown_text(describe_preprocessing(report))}"]
    lines += [f"- {role}: {markdown_text(describe_data(block))}" for role, block in blocks.items()]
    lines += [f"- weights: sha256 {markdown_text(report.model.sha256)}", ""]
    lines += ["| metric | better | " + " | ".join(f"{role} [95% interval]" for role in blocks) + " |"]
    lines += ["|---|---|" + "---|" * len(blocks)]
    lines += [
        "| " + " | ".join(markdown_text(text) for text in (row.title, row.better, *row.cells)) + " |" for row in report_rows(report)
    ]
    for title, texts in (("Not measured", report_notes(report)), ("Warnings", tuple(map(str, report.warnings)))):
        if texts:
            lines += ["", f"**{title}**", "", *(f"- {markdown_text(text)}" for text in texts)]
    settings = report.settings
    last = f"gcaudit {report.gcaudit}, seed {settings.get('seed')}, {settings.get('device')}, {settings.get('precision')}"
    lines += ["", markdown_text(last)]
    return "\n".join(lines) + "\n"

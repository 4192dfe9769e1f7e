"""What a metric is, in the words of the file that measures it."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

from gcaudit.metrics.table import METRICS, Metric


def explain_metric(metric: Metric) -> str:
    """Return the definition of a metric with its reasons and references.

    Args:
        metric: of the table.

    Returns:
        Prose without line breaks inside a paragraph; formulas are indented lines. It is read from the source, so that nothing heavy is imported.
    """
    source = Path(__file__).with_name(f"{metric.module}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == metric.name)
    about = _paragraphs(ast.get_docstring(function) or "")
    about = about[: next((place for place, part in enumerate(about) if part.startswith(_SECTIONS)), len(about))]
    whole = _paragraphs(ast.get_docstring(tree) or "")
    shared = sum(other.module == metric.module for other in METRICS) > 1
    return "\n\n".join([*about, *(["With the others of its file:"] if shared else []), *whole])


_SECTIONS = ("Args:", "Returns:", "Raises:", "Example:")


def _paragraphs(text: str) -> list[str]:
    """Join the lines of each paragraph, but for those that are indented."""
    found = []
    for block in inspect.cleandoc(text).split("\n\n"):
        lines: list[str] = []
        for line in block.splitlines():
            formula = line.startswith(" ")
            if lines and not formula and not lines[-1].startswith(" "):
                lines[-1] += f" {line}"
            else:
                lines.append(line.rstrip())
        found.append("\n".join(lines))
    return found

"""How many images or episodes a gate needs, as table, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version

from gcaudit.gate import CHANGES, PowerRow
from gcaudit.render.escapes import json_text, log_text, markdown_text
from gcaudit.render.grid import Grid, lay_out
from gcaudit.render.paper import PLAIN, Paper, fold, paragraph

_ABOUT = "needed to see a change with 80% power, one rule, 2.5% one-sided"


def _head() -> list[str]:
    return ["metric", "value", "there are", *(f"for {100 * change:g}%" for change in CHANGES), "compared"]


def _cells(row: PowerRow) -> list[str]:
    value = "—" if row.value is None else f"{row.value:.4g}"
    needed = ["—" if number is None else f"{number:,}" for number in row.needed]
    compared = "" if row.reason is not None else "same images" if row.paired else "other images"
    return [row.metric, value, f"{row.have:,} {row.unit}", *needed, compared]


def _notes(rows: Sequence[PowerRow]) -> list[str]:
    found = [f"{row.metric}: {row.reason}" for row in rows if row.reason is not None]
    if any(row.reason is None and None in row.needed for row in rows):
        found.append("where a dash stands no number of images is enough with these episodes; raise --episodes")
    return found


def render_power(rows: Sequence[PowerRow], format_: str, paper: Paper = PLAIN) -> str:
    """Write what a gate needs.

    Args:
        rows: one a metric.
        format_: `table`, `markdown` or `json`.
        paper: what a table is written on.

    Returns:
        Text that ends with a newline.
    """
    if format_ == "json":
        content = {"schema": "gcaudit.power/1", "gcaudit": version("gcaudit"), "changes": CHANGES, "power": 0.8}
        content |= {"rows": [asdict(row) for row in rows]}
        return json_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    table = [_head(), *(_cells(row) for row in rows)]
    if format_ == "markdown":
        lines = ["| " + " | ".join(markdown_text(cell) for cell in line) + " |" for line in table]
        lines.insert(1, "|" + "---|" * len(table[0]))
        return (
            "\n".join([f"Images or episodes {_ABOUT}.", "", *lines, "", *(f"- {markdown_text(note)}" for note in _notes(rows))])
            + "\n"
        )
    grid = Grid(tuple(table[0]), tuple(tuple(line) for line in table[1:]), right=tuple(range(1, len(table[0]))), rule=False)
    head = fold(f"images or episodes {_ABOUT}", paper.width)
    notes = "".join(paragraph(f"— {note}", paper) for note in _notes(rows))
    return log_text("\n".join(part for part in (head + "\n", lay_out(grid, paper), notes) if part))

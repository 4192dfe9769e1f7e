"""Tables laid out as text."""

from __future__ import annotations

import io
import os
import shutil
from typing import TYPE_CHECKING

from gcaudit.render.escapes import log_text

if TYPE_CHECKING:
    from rich.console import RenderableType


_PIPE_WIDTH = 160


def table_text(table: RenderableType, *, to_terminal: bool) -> str:
    """Lay a table out as text.

    Args:
        table: for a rich console.
        to_terminal: whether colours and the terminal's width apply.

    Returns:
        Text that ends with a newline.
    """
    from rich.console import Console

    width = shutil.get_terminal_size((_PIPE_WIDTH, 24)).columns if to_terminal else _PIPE_WIDTH
    colours = to_terminal and "NO_COLOR" not in os.environ
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=colours, no_color=not colours, highlight=False, legacy_windows=False)
    # a terminal breaks a line that is too long, rich would cut it off
    console.width = max(width, console.measure(table, options=console.options.update(max_width=_PIPE_WIDTH)).minimum)
    console.print(table)
    return log_text("\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n")

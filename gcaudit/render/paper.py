"""What text for people is written on: how wide it is, and whether it has colours."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import final

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


@final
@dataclass(frozen=True)
class Paper:
    """What text is written on.

    Attributes:
        width: characters a line; None where lines have no end, as in files and pipes.
        colours: whether it takes ANSI codes.
    """

    width: int | None = None
    colours: bool = False


PLAIN = Paper()


def paper_of(*, terminal: bool) -> Paper:
    """Say what a stream is.

    Args:
        terminal: whether it is a terminal.

    Returns:
        A terminal's width, or what `COLUMNS` says; colours for terminals unless `NO_COLOR` is set or `TERM` is `dumb`.
    """
    told = os.environ.get("COLUMNS", "")
    width = int(told) if told.isdecimal() and int(told) else shutil.get_terminal_size().columns if terminal else None
    colours = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Paper(width, colours)


def paint(text: str, style: str, paper: Paper) -> str:
    """Colour text.

    Args:
        text: without codes of its own.
        style: a colour, `bold` or `dim`.
        paper: what it is written on.

    Returns:
        The text, between ANSI codes where the paper takes them.
    """
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if paper.colours and text else text

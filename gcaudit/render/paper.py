"""What text for people is written on: how wide it is, and whether it has colours."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
import unicodedata
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
    """Colour text, each line for itself, as pagers want it.

    Args:
        text: without codes of its own.
        style: a colour, `bold` or `dim`.
        paper: what it is written on.

    Returns:
        The text, between ANSI codes where the paper takes them.
    """
    if not paper.colours:
        return text
    return "\n".join(f"\x1b[{_CODES[style]}m{line}\x1b[0m" if line else line for line in text.split("\n"))


_NBSP = "\N{NO-BREAK SPACE}"
_INTERVAL = re.compile(r"\[[^\[\]]{1,60}\]")
_TOGETHER = re.compile(r" (?=\[[-+.\d])|(?<=[=<>≥≤]) (?=[-+.\d])|(?<=\d) (?=images?\b|episodes?\b)|(?<=—) ")


def fold(text: str, width: int | None, *, indent: int = 0, first: int | None = None) -> str:
    """Break a line between words; intervals, and numbers with what they belong to, stay whole, as do words that are too long.

    Args:
        text: one line.
        width: characters a line; None does not break it.
        indent: of further lines.
        first: of the first line; None takes `indent`.

    Returns:
        Lines without the last one's end.
    """
    start = " " * (indent if first is None else first)
    if width is None:
        return start + text
    whole = _TOGETHER.sub(_NBSP, _INTERVAL.sub(lambda match: match[0].replace(" ", _NBSP), text))
    broken = textwrap.fill(
        whole,
        max(1, width),
        initial_indent=start,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return broken.replace(_NBSP, " ")


def paragraph(text: str, paper: Paper, style: str | None = None) -> str:
    """Write a line of prose; what goes on in further lines stands two signs in.

    Args:
        text: one line.
        paper: what it is written on.
        style: as for `paint`; None for none.

    Returns:
        Lines, each with its end.
    """
    found = fold(text, paper.width, indent=2, first=0)
    return (found if style is None else paint(found, style, paper)) + "\n"


def text_width(text: str) -> int:
    """Count the columns that text takes on a terminal.

    Args:
        text: without codes.
    """
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)

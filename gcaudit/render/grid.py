"""Rows laid out as a table where they fit, and as one block a row where they do not: nothing breaks inside a word, a number or an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from gcaudit.render.paper import Paper, fold, paint, text_width

_GAP = 2
_NARROWEST = 12


@final
@dataclass(frozen=True)
class Grid:
    """Rows of text under titles.

    Attributes:
        head: a title a column.
        rows: of as many cells each.
        keys: how many of the first columns name a row; in blocks they are its first line.
        folds: columns whose text may go on in a further line.
        right: columns that are aligned to the right.
        styles: of columns, as for `paint`.
        rule: whether a line follows the titles.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: int = 1
    folds: tuple[int, ...] = ()
    right: tuple[int, ...] = ()
    styles: dict[int, str] = field(default_factory=dict)
    rule: bool = True


def lay_out(grid: Grid, paper: Paper) -> str:
    """Lay rows out.

    Args:
        grid: the rows.
        paper: what they are written on.

    Returns:
        Lines, each with its end.
    """
    lines = [grid.head, *grid.rows]
    widths = [max(text_width(line[place]) for line in lines) for place in range(len(grid.head))]
    if paper.width is not None:
        widths = _narrowed(grid, widths, paper.width)
        if sum(widths) + _GAP * (len(widths) - 1) > paper.width:
            return "".join(_block(grid, row, paper) for row in grid.rows)
    found = [_line(grid, grid.head, widths, paper, head=True)]
    if grid.rule:
        found.append(paint("─" * (sum(widths) + _GAP * (len(widths) - 1)), "dim", paper) + "\n")
    return "".join([*found, *(_line(grid, row, widths, paper) for row in grid.rows)])


def fits(grid: Grid, paper: Paper) -> bool:
    """Tell whether rows fit as a table in which no cell takes more than a few lines.

    Args:
        grid: the rows.
        paper: what they are written on.
    """
    widths = [max(text_width(line[place]) for line in (grid.head, *grid.rows)) for place in range(len(grid.head))]
    spare = sum(max(0, widths[place] // 2 - _NARROWEST // 2) for place in grid.folds)
    return paper.width is None or sum(widths) - spare + _GAP * (len(widths) - 1) <= paper.width


def _narrowed(grid: Grid, widths: Sequence[int], room: int) -> list[int]:
    """Take from the columns that may fold what is too much, the widest first, down to their longest word."""
    found = list(widths)
    lines = [grid.head, *grid.rows]
    least = {
        place: max([_NARROWEST, *(text_width(part) for line in lines for part in _folded(line[place], 1))]) for place in grid.folds
    }
    while (over := sum(found) + _GAP * (len(found) - 1) - room) > 0:
        foldable = [place for place in grid.folds if found[place] > least[place]]
        if not foldable:
            break
        widest = max(foldable, key=lambda place: found[place])
        found[widest] = max(least[widest], found[widest] - over)
    return found


def _line(grid: Grid, row: Sequence[str], widths: Sequence[int], paper: Paper, *, head: bool = False) -> str:
    """Write one row, of as many lines as its longest cell."""
    cells = [
        _folded(cell, width) if place in grid.folds else [cell] for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    found = []
    for number in range(max(map(len, cells))):
        parts = []
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            text = cell[number] if number < len(cell) else ""
            space = " " * (width - text_width(text))
            style = "bold" if head else grid.styles.get(place)
            painted = paint(text, style, paper) if style else text
            parts.append(space + painted if place in grid.right else painted + space)
        found.append((" " * _GAP).join(parts).rstrip() + "\n")
    return "".join(found)


def _folded(cell: str, width: int) -> list[str]:
    """Break a cell; what goes on stands as far in as the first line, and two more."""
    depth = len(cell) - len(cell.lstrip())
    return fold(cell.lstrip(), width, indent=depth + 2, first=depth).splitlines() or [""]


def _block(grid: Grid, row: Sequence[str], paper: Paper) -> str:
    first = "  ".join(cell for cell in row[: grid.keys] if cell)
    found = [paint(fold(first, paper.width), "bold", paper) + "\n"]
    for title, cell in zip(grid.head[grid.keys :], row[grid.keys :], strict=True):
        if cell:
            found.append(fold(f"{title}: {cell}" if title else cell, paper.width, indent=4, first=2) + "\n")
    return "".join(found)

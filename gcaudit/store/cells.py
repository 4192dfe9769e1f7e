"""Cells of the store: what a report, or the lack of one, is known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from gcaudit.errors import RequestError, shorten

if TYPE_CHECKING:
    from gcaudit.report import Report


def content_hash(parts: Any) -> str:
    """Name content by what it is made of.

    Args:
        parts: anything that JSON can hold.

    Returns:
        64 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@final
@dataclass(frozen=True)
class Cell:
    """A row of the store: a report, or why there is none.

    Attributes:
        key: of its content; of the request when it failed.
        created: when, UTC.
        model: its name, of a file of models or as it was typed; cells of equal content share the last name.
        source: its name.
        target: its name, or None.
        report: the report; None when it failed.
        reason: why it failed, or None.
    """

    key: str
    created: str
    model: str
    source: str
    target: str | None
    report: Report | None
    reason: str | None


def cell_of(row: Mapping[str, Any], report: Report | None, reason: str | None) -> Cell:
    """Make a cell of a row.

    Args:
        row: of the store.
        report: that it holds, or None.
        reason: why there is none, or None.
    """
    return Cell(row["key"], row["created"], row["model"], row["source"], row["target"], report, reason)


def cell_key(source_block: str, target_block: str | None) -> str:
    """Name a cell by its blocks.

    Args:
        source_block: key of the source's block.
        target_block: key of the target's block, or None.

    Returns:
        64 hexadecimal digits.
    """
    return content_hash([source_block, target_block])


def find_cell(cells: Sequence[Cell], start: str) -> Cell:
    """Look a cell up by the first characters of its key.

    Args:
        cells: of a store.
        start: of the key.

    Returns:
        The cell.

    Raises:
        RequestError: none or several begin so.
    """
    found = [cell for cell in cells if cell.key.startswith(start)]
    if len(found) != 1:
        titles = [f"{cell.key[:12]} ({cell.model}: {cell.source}{f' -> {cell.target}' if cell.target else ''})" for cell in found]
        told = f"it may be {shorten(titles, 4)}" if found else "see gcaudit results list"
        raise RequestError(
            f"expected the first characters of one cell's key, found {len(found) or 'no'} cells for {start!r}; {told}"
        )
    return found[0]

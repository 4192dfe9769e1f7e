"""Tables of reports as the bytes of a file: CSV, parquet or JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gcaudit.render.escapes import csv_text
from gcaudit.store import Cell, cell_columns

if TYPE_CHECKING:
    from pandas import DataFrame


def frame_bytes(frame: DataFrame, name: str) -> bytes:
    """Write a table as a file.

    Args:
        frame: the table.
        name: `csv` or `parquet`.

    Returns:
        The file's content.
    """
    if name == "csv":
        return frame.map(lambda cell: csv_text(cell) if isinstance(cell, str) else cell).to_csv(index=False).encode()
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def export_cells(cells: Iterable[Cell], name: str) -> bytes:
    """Write the cells of a store as a file.

    Args:
        cells: of the store.
        name: `csv`, `parquet` or `json`.

    Returns:
        The file's content: a row a cell, or a list of reports with their keys.
    """
    found = list(cells)
    if name == "json":
        rows = [
            {"key": cell.key, "reason": cell.reason, "report": None}
            if cell.report is None
            else {"key": cell.key, "reason": None, "report": cell.report.model_dump(mode="json", by_alias=True)}
            for cell in found
        ]
        return (json.dumps(rows, indent=2, allow_nan=False) + "\n").encode()
    from pandas import DataFrame

    return frame_bytes(DataFrame.from_records([cell_columns(cell) for cell in found]), name)

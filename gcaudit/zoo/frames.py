"""Rankings and reports as pandas tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from gcaudit.report import Report
from gcaudit.store import report_columns
from gcaudit.zoo.ranking import Ranking

if TYPE_CHECKING:
    from pandas import DataFrame


def report_frame(rows: Iterable[tuple[Mapping[str, Any], Report | None]]) -> DataFrame:
    """Make a wide table of reports: a row a cell, four columns a value.

    Args:
        rows: leading columns, and a report or None.

    Returns:
        Columns as given, then those of `report_columns`.
    """
    from pandas import DataFrame

    records = []
    for lead, report in rows:
        records.append(dict(lead) | ({} if report is None else report_columns(report)))
    return DataFrame.from_records(records)


def ranking_frame(ranking: Ranking) -> DataFrame:
    """Make a wide table of rankings.

    Args:
        ranking: the rankings.

    Returns:
        A row a cell, also of those that failed; see `report_frame`.
    """
    rows: list[tuple[Mapping[str, Any], Report | None]] = []
    for table in ranking.tables:
        for row in table.rows:
            lead: dict[str, Any] = {
                "model": row.model,
                "source": table.source,
                "target": table.target,
                "condition": table.condition or None,
            }
            lead |= {"rank": row.rank, "groups": row.groups, "sort": ranking.sort}
            rows.append((lead | {"trained_on_target": row.trained_on_target, "reason": row.reason}, row.report))
    for result in ranking.failed:
        request = result.request
        lead = {"model": request.model, "source": request.source, "target": request.target, "condition": None}
        lead |= {"rank": None, "groups": "", "sort": ranking.sort}
        rows.append((lead | {"trained_on_target": None, "reason": result.reason}, None))
    return report_frame(rows)

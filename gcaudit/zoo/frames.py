"""Rankings and reports as pandas tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from gcaudit.report import MetricValue, Report
from gcaudit.zoo.ranking import Ranking

if TYPE_CHECKING:
    from pandas import DataFrame


def report_values(report: Report) -> dict[str, MetricValue]:
    """List a report's values by `ROLE.METRIC`, and `ROLE.METRIC@N_SHOT` for the further points of a curve.

    Args:
        report: the report.

    Returns:
        The values by name.
    """
    found = {}
    for role, block in report.blocks().items():
        for name, value in block.metrics.items():
            found[f"{role}.{name}"] = value
            for point in (value.curve or ())[1:]:
                found[f"{role}.{name}@{point.n_shot}"] = point
    return found


def report_frame(rows: Iterable[tuple[Mapping[str, Any], Report | None]]) -> DataFrame:
    """Make a wide table of reports: a row a cell, four columns a value.

    Args:
        rows: leading columns, and a report or None.

    Returns:
        Columns as given, then `arch`, `sha256`, and for each value `ROLE.METRIC` and the same with `.stderr`, `.low`, `.high`.
    """
    from pandas import DataFrame

    records = []
    for lead, report in rows:
        record: dict[str, Any] = dict(lead)
        if report is not None:
            record |= {"arch": report.model.arch, "sha256": report.model.sha256, "embedding_dim": report.model.embedding_dim}
            for name, value in report_values(report).items():
                low, high = value.ci95 or (None, None)
                record |= {name: value.value, f"{name}.stderr": value.stderr, f"{name}.low": low, f"{name}.high": high}
        records.append(record)
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
            lead = {"model": row.model, "source": table.source, "target": table.target, "condition": table.condition or None}
            rows.append((lead | {"rank": row.rank, "groups": row.groups, "sort": ranking.sort, "reason": row.reason}, row.report))
    for result in ranking.failed:
        request = result.request
        lead = {"model": request.model, "source": request.source, "target": request.target, "condition": None}
        rows.append((lead | {"rank": None, "groups": "", "sort": ranking.sort, "reason": result.reason}, None))
    return report_frame(rows)

"""Rankings and reports as pandas tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gcaudit.report import MetricValue, Report
from gcaudit.zoo.ranking import Ranking
from gcaudit.zoo.truth import Prediction

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


def predictions_frame(found: Sequence[Prediction], truth: str) -> DataFrame:
    """Make a table of how well scores predict accuracy.

    Args:
        found: of all metrics.
        truth: title of the accuracies.

    Returns:
        A row for each score, source and target, with the numbers of models that count and that do not; `weighted_tau`, `spearman` and `pearson`, each
        also with `.stderr`, `.low` and `.high`; and `reason` where there are none.
    """
    from pandas import DataFrame

    coefficients = ("weighted_tau", "spearman", "pearson")
    lead = ["source", "target", "truth", "metric", "models", "left_out", "condition"]
    columns = [*lead, *(f"{name}{part}" for name in coefficients for part in ("", ".stderr", ".low", ".high")), "reason"]
    rows = []
    for entry in found:
        row: list[Any] = [entry.source, entry.target, truth, entry.metric, len(entry.models), len(entry.left_out)]
        row.append(entry.condition or None)
        for name in coefficients:
            estimate = getattr(entry.agreement, name)
            row += [estimate.value, estimate.stderr, *(estimate.ci95 or (None, None))]
        rows.append([*row, entry.agreement.weighted_tau.reason])
    return DataFrame(rows, columns=columns)

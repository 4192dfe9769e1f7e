"""Rankings and reports as pandas tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gcaudit.report import Report
from gcaudit.store import report_columns
from gcaudit.zoo.ranking import Ranking
from gcaudit.zoo.truth import Prediction

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

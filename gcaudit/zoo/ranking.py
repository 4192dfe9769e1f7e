"""Many reports -> rankings: one for each source and target, with letters for models that cannot be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from gcaudit.errors import RequestError, shorten
from gcaudit.gate import Rule, comparable_group, find_value, joint_covariance, parse_name, student_of
from gcaudit.geometry import NORMAL_95
from gcaudit.metrics import Metric, find_metric, find_metrics
from gcaudit.report import MetricValue, Report
from gcaudit.zoo.cells import CellResult
from gcaudit.zoo.letters import letters_of, told_apart
from gcaudit.zoo.names import place_title


@final
@dataclass(frozen=True)
class RankedRow:
    """One model of a ranking.

    Attributes:
        rank: 1 is best; None where the value is missing.
        groups: letters; two models share one when, and only when, they cannot be told apart at 95% over the whole table.
        model: its name.
        report: all that was measured.
        value: of the metric that is sorted by, or None.
        reason: why there is no value.
    """

    rank: int | None
    groups: str
    model: str
    report: Report
    value: MetricValue | None
    reason: str | None

    @property
    def trained_on_target(self) -> bool:
        """Whether source and target share classes or images, so that this row does not tell how the model transfers."""
        return any(warning.kind == "shared" for warning in self.report.warnings)


@final
@dataclass(frozen=True)
class RankingTable:
    """Models that may be compared, best first.

    Attributes:
        source: the source's name.
        target: the target's name, or None.
        condition: what the models of this table have in common, where not all models may be compared; else empty.
        paired: whether all differences were judged on the same images or episodes.
        rows: best first, those without a value last.
    """

    source: str
    target: str | None
    condition: str
    paired: bool
    rows: tuple[RankedRow, ...]

    @property
    def place(self) -> str:
        """Such as `cifar10 -> dtd (input 3x32x32)`."""
        return place_title(self.source, self.target) + (f" ({self.condition})" if self.condition else "")

    @property
    def trained_on_target(self) -> tuple[str, ...]:
        """The models whose source shares classes or images with the target."""
        return tuple(row.model for row in self.rows if row.trained_on_target)

    @property
    def caveat(self) -> str | None:
        """Of whom the table does not tell how they transfer; None where it tells it of all."""
        trained = self.trained_on_target
        if not trained:
            return None
        some = f"{shorten(trained, 3)} {'was' if len(trained) == 1 else 'were'}"
        who = "all models were" if len(trained) == len(self.rows) else some
        return f"{self.place}: {who} trained on classes or images of the target, so this is not transfer"


@final
@dataclass(frozen=True)
class Ranking:
    """Rankings of models.

    Attributes:
        sort: the metric, as `ROLE.METRIC`.
        title: the metric, for people.
        direction: which way is better.
        tables: one for each source and target, and for each condition under which models may be compared.
        failed: cells that could not be done.
    """

    sort: str
    title: str
    direction: Literal["lower", "higher"]
    tables: tuple[RankingTable, ...]
    failed: tuple[CellResult, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reports warn of, once each, with the models that it concerns, and the source and target where it does not concern all."""
        rows = [(place_title(table.source, table.target), row) for table in self.tables for row in table.rows]
        warned: dict[str, dict[tuple[str, str], None]] = {}
        for place, row in rows:
            for warning in row.report.warnings:
                warned.setdefault(str(warning), {})[row.model, place] = None
        return tuple(f"{_whom(list(concerned), rows)}: {line}" for line, concerned in warned.items())

    @property
    def failures(self) -> tuple[str, ...]:
        """Why cells could not be done, once each, with the cells."""
        reasons: dict[str, list[str]] = {}
        for result in self.failed:
            reasons.setdefault(str(result.reason), []).append(result.request.title)
        return tuple(f"{shorten(titles, 3)}: {reason}" for reason, titles in reasons.items())


def _whom(concerned: Sequence[tuple[str, str]], rows: Sequence[tuple[str, RankedRow]]) -> str:
    """Name models, and where."""
    models, places = (list(dict.fromkeys(names)) for names in zip(*concerned, strict=True))
    every = {row.model for _, row in rows}
    who = "all models" if len(models) == len(every) > 1 else shorten(models, 3)
    where = {place for place, row in rows if row.model in models}
    return who if len(places) == len(where) else f"{who} on {shorten(places, 3)}"


def parse_sort(text: str | None, *, with_target: bool, measured: Sequence[str] | None) -> Rule:
    """Read the metric to sort by.

    Args:
        text: `ROLE.METRIC`, with `@N_SHOT` for a point of the probe's curve; None takes the probe's accuracy, without a target the
            geometric collapse, or the first metric that is measured.
        with_target: whether there are targets.
        measured: names of the metrics that are measured; None when they are the core.

    Returns:
        A rule that names it.

    Raises:
        RequestError: it cannot be read, neither side is better, or it is not measured.
    """
    names = [metric.name for metric in find_metrics(measured)]
    if text is None:
        wanted = ["target.probe_accuracy"] if with_target else []
        wanted += ["source.geometric_collapse"]
        usable = [metric for metric in find_metrics(measured) if metric.direction != "none"]
        wanted += [f"{'target' if with_target and 'target' in m.roles else m.roles[0]}.{m.name}" for m in usable]
        text = next((name for name in wanted if name.split(".")[1] in names), wanted[0])
    rule = parse_name(text, "--sort")
    metric = find_metric(rule.metric)
    if metric.direction == "none":
        raise RequestError(f"expected --sort by a metric that has a better side, found {rule.name}")
    if metric.name not in names:
        raise RequestError(
            f"expected --sort by a metric that is measured ({', '.join(names)}), found {rule.name}; add it to --metrics"
        )
    if rule.role == "target" and not with_target:
        raise RequestError(f"expected --target to sort by {rule.name}, found none")
    return rule


def rank(results: Sequence[CellResult], rule: Rule) -> Ranking:
    """Rank models.

    Args:
        results: cells, with the evidence of their reports for paired comparison.
        rule: names the metric to sort by, from `parse_sort`.

    Returns:
        The rankings.
    """
    metric = find_metric(rule.metric)
    done = [(result, result.report) for result in results if result.report is not None]
    tables: dict[tuple[str, str | None], dict[str, list[tuple[CellResult, Report]]]] = {}
    for result, report in done:
        place = tables.setdefault((result.request.source, result.request.target), {})
        place.setdefault(comparable_group(report, rule, metric), []).append((result, report))
    found = []
    for (source, target), by_condition in tables.items():
        for condition, members in by_condition.items():
            rows, paired = _ranked(members, rule, metric)
            found.append(RankingTable(source, target, condition if len(by_condition) > 1 else "", paired, rows))
    failed = tuple(result for result in results if result.report is None)
    return Ranking(rule.name, metric.title, "lower" if metric.direction == "lower" else "higher", tuple(found), failed)


def _ranked(members: Sequence[tuple[CellResult, Report]], rule: Rule, metric: Metric) -> tuple[tuple[RankedRow, ...], bool]:
    values: list[tuple[float, CellResult, Report, MetricValue]] = []
    without = []
    for result, report in members:
        value = find_value(report, rule)
        if isinstance(value, str) or value.value is None:
            reason = value if isinstance(value, str) else value.reason or "it is null"
            without.append(RankedRow(None, "", result.request.model, report, None, reason))
        else:
            values.append((value.value if metric.direction == "lower" else -value.value, result, report, value))
    values.sort(key=lambda entry: (entry[0], entry[1].request.model))
    reports, measured = [entry[2] for entry in values], [entry[3] for entry in values]
    covariance, same = joint_covariance(reports, rule, measured)
    covariance[[value.stderr is None for value in measured], :] = np.inf
    # few images make Student's distribution of the normal
    wider = (student_of(measured) / NORMAL_95) ** 2
    letters = letters_of(told_apart(np.array([entry[0] for entry in values]), wider * covariance))
    paired = len(values) > 1 and bool(same.all())
    ranks: list[int] = []
    for place, entry in enumerate(values):
        tied = place > 0 and entry[0] == values[place - 1][0]
        ranks.append(ranks[-1] if tied else place + 1)
    rows = [
        RankedRow(ranks[place], letters[place], result.request.model, report, value, None)
        for place, (_, result, report, value) in enumerate(values)
    ]
    return (*rows, *without), paired

"""Does a score predict anything? Scores of models against the accuracies they reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

from gcaudit.errors import RequestError
from gcaudit.gate import Rule, comparable_group, find_value, parse_name
from gcaudit.geometry import Agreement, agreement
from gcaudit.metrics import find_metric
from gcaudit.report import MetricValue, Report
from gcaudit.zoo.cells import CellRequest, CellResult
from gcaudit.zoo.names import place_title

Place = tuple[str, str | None, str]
"""Source, target and model."""
Interval = tuple[float, float]


def cell_place(request: CellRequest) -> Place:
    """Return what accuracies are found by.

    Args:
        request: the cell.
    """
    return request.source, request.target, request.model


@final
@dataclass(frozen=True)
class Truth:
    """Accuracies to compare scores with.

    Attributes:
        title: what they are.
        accuracies: by source, target and model.
        warnings: what should be said of them.
        rule: names the metric that stands for them, where one does.
        intervals: 95%, of those accuracies that have one.
        reasons: why there is no accuracy, where more is known than that there is none.
        how: how the metric was measured; see `Prediction`.
    """

    title: str
    accuracies: Mapping[Place, float]
    warnings: tuple[str, ...] = ()
    rule: Rule | None = None
    intervals: Mapping[Place, Interval] = field(default_factory=dict)
    reasons: Mapping[Place, str] = field(default_factory=dict)
    how: str = ""


@final
@dataclass(frozen=True)
class LeftOut:
    """A model that says nothing on how well a score predicts.

    Attributes:
        model: its name.
        reason: why, in a line.
    """

    model: str
    reason: str


@final
@dataclass(frozen=True)
class Prediction:
    """How well a score predicts accuracy on one source and target.

    Attributes:
        source: the source's name.
        target: the target's name, or None.
        metric: `ROLE.METRIC`, with `@N_SHOT` for a further point of the probe's curve.
        models: names of the models, those that may be compared by this metric.
        scores: of these models.
        accuracies: of these models.
        agreement: rank correlations; + means that the score predicts well.
        score_intervals: 95%, of these models; None where there is none.
        accuracy_intervals: 95%, of these models; None where there is none.
        left_out: the other models.
        condition: what these models have in common, where not all may be compared; else empty.
        how: how the score was measured, such as `sketch estimator` or `5-way 1-shot`; empty where there is nothing to say.
    """

    source: str
    target: str | None
    metric: str
    models: tuple[str, ...]
    scores: tuple[float, ...]
    accuracies: tuple[float, ...]
    agreement: Agreement
    score_intervals: tuple[Interval | None, ...] = ()
    accuracy_intervals: tuple[Interval | None, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    condition: str = ""
    how: str = ""

    @property
    def place(self) -> str:
        """Such as `cifar10 -> dtd`."""
        return place_title(self.source, self.target)


def metric_truth(rule: Rule, results: Sequence[CellResult]) -> Truth:
    """Take one of the metrics for the accuracies.

    Args:
        rule: names the metric.
        results: the cells.

    Returns:
        The accuracies, of the cells that have the metric.
    """
    found: dict[Place, MetricValue] = {}
    reasons = {}
    for result in results:
        if result.report is not None:
            value = _number(result.report, rule)
            if isinstance(value, str):
                reasons[cell_place(result.request)] = f"no {rule.name}: {value}"
            else:
                found[cell_place(result.request)] = value
    spaces = [result.report.model.preprocessing.input_space for result in results if result.report is not None]
    return Truth(
        rule.name,
        {place: _value(value) for place, value in found.items()},
        rule=rule,
        intervals={place: value.ci95 for place, value in found.items() if value.ci95 is not None},
        reasons=reasons,
        how=_how(rule, list(found.values()), spaces),
    )


def _number(report: Report, rule: Rule) -> MetricValue | str:
    """Find a value that is a number, or say why there is none."""
    value = find_value(report, rule)
    if isinstance(value, str):
        return value
    return (value.reason or "it is null") if value.value is None else value


def _value(value: MetricValue) -> float:
    assert value.value is not None
    return value.value


def _how(rule: Rule, values: Sequence[MetricValue], spaces: Sequence[str]) -> str:
    """Say how values were measured, as far as a number's meaning or unit depends on it."""
    energies = find_metric(rule.metric).per_pixel
    told: dict[str, Sequence[str]] = {
        "estimator": [value.estimator for value in values if value.estimator is not None],
        "": [f"{value.n_way}-way {value.n_shot}-shot" for value in values if value.n_way is not None],
        "space": spaces if energies else (),
    }
    return ", ".join(f"{' or '.join(dict.fromkeys(each))} {noun}".rstrip() for noun, each in told.items() if each)


def read_metric(text: str, option: str) -> Rule:
    """Read the name of a metric.

    Args:
        text: `ROLE.METRIC`, perhaps with `@N_SHOT`.
        option: that it was typed for.

    Returns:
        A rule that names it.

    Raises:
        RequestError: it is no metric.
    """
    return parse_name(text, f"{option} to be {'a CSV file or a metric' if option == '--truth' else 'a metric'}")


def read_measured(text: str, option: str, measured: Sequence[str]) -> Rule:
    """Read the name of a metric that is measured.

    Args:
        text: `ROLE.METRIC`, perhaps with `@N_SHOT`.
        option: that it was typed for.
        measured: what is measured, as `ROLE.METRIC`.

    Returns:
        A rule that names it.

    Raises:
        RequestError: it is no metric, or is not measured.
    """
    rule = read_metric(text, option)
    if f"{rule.role}.{rule.metric}" not in measured:
        raise RequestError(
            f"expected {option} of a metric that is measured ({', '.join(measured)}), found {rule.name}; see --metrics"
        )
    return rule


def predictions(results: Sequence[CellResult], truth: Truth, seed: int = 0) -> tuple[Prediction, ...]:
    """Compare every metric with the accuracies, for each source and target.

    A metric that may be compared under conditions only (equal input size, one architecture) is looked at on the largest set of models that share
    them.

    Args:
        results: the cells.
        truth: the accuracies.
        seed: of the bootstrap.

    Returns:
        One entry for each metric, source and target.
    """
    tables: dict[tuple[str, str | None], list[CellResult]] = {}
    for result in results:
        tables.setdefault((result.request.source, result.request.target), []).append(result)
    found: list[Prediction] = []
    for place, members in tables.items():
        reports = [each.report for each in members if each.report is not None and cell_place(each.request) in truth.accuracies]
        rules = [rule for rule in _metrics_of(reports) if truth.rule is None or rule.name != truth.rule.name]
        found += [_predict(rule, members, truth, place, seed) for rule in rules]
    return tuple(found)


def _metrics_of(reports: Sequence[Report]) -> list[Rule]:
    names: dict[str, None] = {}
    for report in reports:
        for role, block in report.blocks().items():
            for name, value in block.metrics.items():
                names[f"{role}.{name}"] = None
                names |= {f"{role}.{name}@{point.n_shot}": None for point in (value.curve or ())[1:]}
    return [parse_name(name, "a metric") for name in names]


@final
@dataclass(frozen=True)
class _Point:
    """A model that has both a score and an accuracy."""

    model: str
    place: Place
    value: MetricValue
    space: str


def _predict(rule: Rule, members: Sequence[CellResult], truth: Truth, place: tuple[str, str | None], seed: int) -> Prediction:
    groups: dict[str, list[_Point]] = {}
    left_out: dict[str, str] = {}
    for result in members:
        request, report = result.request, result.report
        point = _point(rule, request, report, truth) if report is not None else f"it could not be done: {result.reason}"
        if isinstance(point, str) or report is None:
            left_out[request.model] = str(point)
        else:
            groups.setdefault(_group(report, rule, truth.rule), []).append(point)
    condition, points = max(groups.items(), key=lambda group: len(group[1]), default=("", []))
    for other, others in groups.items():
        if other != condition:
            left_out |= {each.model: f"may not be compared with the others: {_beyond(other, condition)}" for each in others}
    metric = find_metric(rule.metric)
    scores = tuple(_value(point.value) for point in points)
    accuracies = tuple(truth.accuracies[point.place] for point in points)
    upside_down = truth.rule is not None and find_metric(truth.rule.metric).direction == "lower"
    return Prediction(
        *place,
        rule.name,
        tuple(point.model for point in points),
        scores,
        accuracies,
        agreement(scores, [-number for number in accuracies] if upside_down else accuracies, metric.direction, seed=seed),
        score_intervals=tuple(point.value.ci95 for point in points),
        accuracy_intervals=tuple(truth.intervals.get(point.place) for point in points),
        left_out=tuple(
            LeftOut(model, left_out[model]) for model in dict.fromkeys(each.request.model for each in members) if model in left_out
        ),
        condition=condition if len(groups) > 1 else "",
        how=_how(rule, [point.value for point in points], [point.space for point in points]),
    )


def _point(rule: Rule, request: CellRequest, report: Report, truth: Truth) -> _Point | str:
    place = cell_place(request)
    if place not in truth.accuracies:
        return truth.reasons.get(place, f"no accuracy in {truth.title}")
    value = _number(report, rule)
    if isinstance(value, str):
        return f"no {rule.name}: {value}"
    return _Point(request.model, place, value, report.model.preprocessing.input_space)


def _group(report: Report, *rules: Rule | None) -> str:
    # whether a score orders models of other widths, too, is what is asked
    found = [comparable_group(report, rule, replace(find_metric(rule.metric), sized=False)) for rule in rules if rule is not None]
    return ", ".join(dict.fromkeys(part for text in found for part in text.split(", ")))


def _beyond(other: str, condition: str) -> str:
    """Of what a group has in common, say what the other group has not."""
    return ", ".join(part for part in other.split(", ") if part not in condition.split(", "))

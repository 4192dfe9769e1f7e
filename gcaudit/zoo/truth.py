"""Does a score predict anything? Scores of models against the accuracies they reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from gcaudit.errors import RequestError, one_line, shorten
from gcaudit.gate import Rule, comparable_group, find_value, parse_rule
from gcaudit.geometry import Agreement, agreement
from gcaudit.metrics import Role, find_metric
from gcaudit.report import Report
from gcaudit.zoo.cells import CellRequest, CellResult
from gcaudit.zoo.names import place_title

_FEWEST = 3


@final
@dataclass(frozen=True)
class Truth:
    """Accuracies to compare scores with.

    Attributes:
        title: what they are.
        accuracies: (source, target, model) -> accuracy.
        warnings: what should be said of them.
    """

    title: str
    accuracies: dict[tuple[str, str | None, str], float]
    warnings: tuple[str, ...] = ()


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
    """

    source: str
    target: str | None
    metric: str
    models: tuple[str, ...]
    scores: tuple[float, ...]
    accuracies: tuple[float, ...]
    agreement: Agreement

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
    found = {}
    for result in results:
        value = None if result.report is None else find_value(result.report, rule)
        if value is not None and not isinstance(value, str) and value.value is not None:
            found[_place(result.request)] = value.value
    return Truth(rule.name, found)


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
    try:
        return parse_rule(f"{text} >= 0")
    except RequestError:
        hint = "a CSV file or a metric such as target.probe_accuracy" if option == "--truth" else "a metric such as source.cdnv"
        raise RequestError(f"expected {option} to be {hint}, found {text!r}") from None


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


def _place(request: CellRequest) -> tuple[str, str | None, str]:
    return request.source, request.target, request.model


def read_accuracies(path: Path, requests: Sequence[CellRequest]) -> Truth:
    """Read accuracies from a CSV file.

    Args:
        path: of a CSV with columns `model`, `accuracy` and perhaps `source` and `target`. A model is named by its name, as it was typed, or by its
            file's name.
        requests: the cells.

    Returns:
        The accuracies.

    Raises:
        RequestError: no such file; columns, models or numbers that are wrong.
    """
    import pandas as pd

    if not path.is_file():
        raise RequestError(f"expected --truth to be a CSV file, found no {path}; check the path")
    try:
        table = pd.read_csv(path, dtype={"model": str, "source": str, "target": str}, skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise RequestError(f"expected accuracies in {path}: {one_line(error)}; see --truth") from None
    if not {"model", "accuracy"} <= set(table.columns):
        raise RequestError(f"{path}: expected columns model and accuracy, found {', '.join(map(str, table.columns))}")
    accuracy = pd.to_numeric(table["accuracy"], errors="coerce")
    bad = accuracy.isna()
    if bool(bad.any()):
        row = int(bad.to_numpy().argmax())
        cell = table["accuracy"][row]
        shown = "nothing" if pd.isna(cell) else repr(cell)
        raise RequestError(f"{path}, line {row + 2}: expected a number as accuracy, found {shown}")
    found: dict[tuple[str, str | None, str], float] = {}
    for row, (_, line) in enumerate(table.iterrows()):
        cells = [
            request
            for request in requests
            if str(line["model"]) in _names(request)
            and all(
                key not in table.columns or str(line[key]) in (getattr(request, key), request.spec.data_request(key).spec)
                for key in _DATA
            )
        ]
        for request in cells:
            if _place(request) in found:
                raise RequestError(f"{path}, line {row + 2}: expected one accuracy for {request.title}, found another above")
            found[_place(request)] = float(accuracy.iloc[row])
    if not found:
        names = shorten(list(dict.fromkeys(request.model for request in requests)))
        raise RequestError(f"{path}: expected accuracies of the models compared ({names}), found none; check the names")
    lacking = [request.title for request in requests if _place(request) not in found]
    return Truth(str(path), found, (f"{path} has no accuracy for {shorten(lacking, 3)}",) if lacking else ())


_DATA: tuple[Role, ...] = ("source", "target")


def _names(request: CellRequest) -> tuple[str, ...]:
    spec = str(request.spec.model.spec)
    return request.model, spec, Path(spec).name, Path(spec).stem


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
    tables: dict[tuple[str, str | None], list[tuple[CellRequest, Report]]] = {}
    for result in results:
        if result.report is not None and _place(result.request) in truth.accuracies:
            tables.setdefault((result.request.source, result.request.target), []).append((result.request, result.report))
    found: list[Prediction] = []
    for (source, target), members in tables.items():
        rules = [rule for rule in _metrics_of([report for _, report in members]) if rule.name != truth.title]
        found += [_predict(rule, members, truth, (source, target), seed) for rule in rules]
    return tuple(found)


def _metrics_of(reports: Sequence[Report]) -> list[Rule]:
    names: dict[str, None] = {}
    for report in reports:
        for role, block in report.blocks().items():
            for name, value in block.metrics.items():
                names[f"{role}.{name}"] = None
                names |= {f"{role}.{name}@{point.n_shot}": None for point in (value.curve or ())[1:]}
    return [parse_rule(f"{name} >= 0") for name in names]


def _predict(
    rule: Rule, members: Sequence[tuple[CellRequest, Report]], truth: Truth, place: tuple[str, str | None], seed: int
) -> Prediction:
    metric = find_metric(rule.metric)
    groups: dict[str, list[tuple[str, float, float]]] = {}
    for request, report in members:
        value = find_value(report, rule)
        if not isinstance(value, str) and value.value is not None:
            entry = (request.model, value.value, truth.accuracies[_place(request)])
            # whether a score orders models of other widths, too, is what is asked
            groups.setdefault(comparable_group(report, rule, replace(metric, sized=False)), []).append(entry)
    largest = max(groups.values(), key=len, default=[])
    models, scores, accuracies = zip(*largest, strict=True) if largest else ((), (), ())
    found = agreement(scores, accuracies, metric.direction, seed=seed)
    return Prediction(*place, rule.name, tuple(models), tuple(scores), tuple(accuracies), found)

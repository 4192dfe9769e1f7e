"""Comparing models, from what was asked to rankings: nothing is printed, laid out or written here but the store."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from gcaudit.audit import AuditSpec, check_options, check_request, expand_shorthands
from gcaudit.errors import GcauditWarning, InterruptedAuditError, RequestError, plain
from gcaudit.gate import Rule
from gcaudit.progress import ProgressBar, no_bar
from gcaudit.report import printed
from gcaudit.store import DEFAULT_STORE, Store, damage_of
from gcaudit.zoo.accuracies import read_accuracies
from gcaudit.zoo.cells import CellRequest, CellResult, Note, Scheduler, no_note
from gcaudit.zoo.engine import Engine, LocalEngine
from gcaudit.zoo.frames import predictions_frame, ranking_frame
from gcaudit.zoo.ranking import Ranking, parse_sort, rank
from gcaudit.zoo.truth import Prediction, Truth, metric_truth, predictions, read_measured
from gcaudit.zoo.waiting import MAX_WAIT_MINUTES, Say, say_nothing
from gcaudit.zoo.zoo import ZooData, ZooModel, expand_models, read_zoo

if TYPE_CHECKING:
    from pandas import DataFrame

ENGINES = ("local", "ray")


@final
@dataclass(frozen=True)
class CompareRequest:
    """What is asked of `gcaudit compare`.

    Attributes:
        models: as typed: models, globs, or one YAML file.
        sources: data specs; with a YAML file they stand in for its own.
        targets: data specs; with a YAML file they stand in for its own.
        options: of the audits, those that were typed; they win over a YAML file's.
        sort: metric to sort by, or None.
        truth: CSV of accuracies, or a metric; or None.
        truth_for: the target that the accuracies are on, when the CSV does not say; or None.
        store: path of the store.
        refresh: measure again what is there.
        keep: keep embeddings.
        strict: let cells fail whose reports would have warnings.
        engine: `local` or `ray`.
        address: of a Ray cluster, or None.
        gpus: that a task of Ray takes, or None.
        max_wait: minutes to wait for other processes on the same store without any of their blocks coming.
    """

    models: tuple[str, ...]
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    sort: str | None = None
    truth: str | None = None
    truth_for: str | None = None
    store: Path = DEFAULT_STORE
    refresh: bool = False
    keep: bool = False
    strict: bool = False
    engine: str = "local"
    address: str | None = None
    gpus: float | None = None
    max_wait: float = MAX_WAIT_MINUTES


@final
@dataclass(frozen=True)
class ComparePlan:
    """A comparison that has been checked as far as that is possible without any work.

    Attributes:
        request: what is asked.
        cells: every model on every source and target, those of one model together.
        sort: names the metric to rank by.
        truth: accuracies, the metric that stands for them, or None.
        began: when, by `time.perf_counter`.
    """

    request: CompareRequest
    cells: tuple[CellRequest, ...]
    sort: Rule
    truth: Truth | Rule | None
    began: float

    @property
    def measured(self) -> list[str]:
        """All that is measured in a cell, as `ROLE.METRIC`."""
        return self.cells[0].spec.measured

    @property
    def truth_name(self) -> str | None:
        """The metric that stands for the accuracies, where one does."""
        return self.truth.name if isinstance(self.truth, Rule) else None


@final
@dataclass(frozen=True)
class Comparison:
    """What came of it. Printed, it is the tables of the command line.

    Attributes:
        ranking: the rankings, and the cells that could not be done.
        truth: accuracies, or None.
        predictions: how well each metric predicts them.
        warnings: what should be said.
        measured: cells that were measured just now.
        known: cells that were taken from the store.
        store: path of the store.
        seconds: how long it took.
    """

    ranking: Ranking
    truth: Truth | None
    predictions: tuple[Prediction, ...]
    warnings: tuple[str, ...]
    measured: int
    known: int
    store: Path
    seconds: float

    def __str__(self) -> str:
        return printed(self, "render_comparison")

    def frame(self) -> DataFrame:
        """Return a table with a row a cell: names, rank, groups, and each value with its standard error and 95% interval."""
        return ranking_frame(self.ranking)

    def predictions_frame(self) -> DataFrame:
        """Return a table with a row for each score, source and target: how well it predicts accuracy; empty without a truth."""
        return predictions_frame(self.predictions, "" if self.truth is None else self.truth.title)


def plan_comparison(request: CompareRequest) -> ComparePlan:
    """Settle what will be measured; everything that can be wrong with a request is told now, before any work.

    Args:
        request: what is asked.

    Returns:
        The plan.

    Raises:
        RequestError: a YAML file, a glob, an option, or a metric that is wrong.
    """
    began = time.perf_counter()
    if not request.max_wait >= 0:
        raise RequestError(f"expected --max-wait of 0 minutes or more, found {request.max_wait:g}")
    cells = _cells(request)
    for cell in cells:
        check_request(cell.spec)
    first = cells[0]
    sort = parse_sort(request.sort, with_target=first.target is not None, measured=first.spec.metrics)
    return ComparePlan(request, cells, sort, _truth(request, cells), began)


def _cells(request: CompareRequest) -> tuple[CellRequest, ...]:
    typed = expand_shorthands(request.options)  # so that each of them wins over a YAML file's
    settings: Mapping[str, Any] = {}
    sources, targets = _typed_data(request.sources), _typed_data(request.targets)
    files = [name for name in request.models if name.lower().endswith((".yaml", ".yml"))]
    if files:
        if len(request.models) > 1:
            raise RequestError(f"expected one YAML file alone, found {len(request.models)} models; name them all in {files[0]}")
        zoo = read_zoo(Path(files[0]))
        entries, settings = zoo.models, zoo.settings
        sources, targets = sources or zoo.sources, targets or zoo.targets
    else:
        entries = expand_models(request.models, {})
    if not sources:
        raise RequestError("expected --source DATA, or sources in a YAML file, found none")
    return tuple(
        CellRequest(
            plain(model.name),
            plain(source.name),
            None if target is None else plain(target.name),
            _spec(settings, model, source, target, typed),
        )
        for model in entries
        for source in sources
        for target in (targets or (None,))
    )


def _typed_data(specs: Sequence[str]) -> tuple[ZooData, ...]:
    return tuple(ZooData(spec, spec) for spec in specs)


def _spec(
    settings: Mapping[str, Any], model: ZooModel, source: ZooData, target: ZooData | None, typed: Mapping[str, Any]
) -> AuditSpec:
    found = dict(settings) | dict(model.fields) | source.fields("source")
    if target is not None:
        found |= target.fields("target")
    return AuditSpec.from_options(**(found | dict(typed)))


def _truth(request: CompareRequest, cells: Sequence[CellRequest]) -> Truth | Rule | None:
    """Read the accuracies, or the name of the metric that stands for them."""
    text, only = request.truth, request.truth_for
    if text is not None and (text.lower().endswith(".csv") or Path(text).is_file()):
        return read_accuracies(Path(text), cells, only)
    if only is not None:
        raise RequestError(
            f"expected --truth FILE.csv with --truth-for {only}, found {text or 'none'}; add it or leave --truth-for out"
        )
    return None if text is None else read_measured(text, "--truth", cells[0].spec.measured)


def choose_engine(request: CompareRequest, progress: ProgressBar) -> Engine:
    """Make the engine that was asked for.

    Args:
        request: what is asked.
        progress: opens a progress bar.

    Returns:
        The engine.

    Raises:
        RequestError: it is unknown, or Ray is missing.
    """
    if request.engine not in ENGINES:
        raise RequestError(f"expected --engine of {', '.join(ENGINES)}; found {request.engine!r}")
    if request.engine == "ray":
        from gcaudit.zoo.engine_ray import RayEngine

        return RayEngine(request.address, request.gpus, progress)
    if request.address is not None or request.gpus is not None:
        raise RequestError("expected --address and --gpus-per-task with --engine ray, found --engine local; add --engine ray")
    return LocalEngine(progress)


def run_comparison(plan: ComparePlan, progress: ProgressBar = no_bar, note: Note = no_note, say: Say = say_nothing) -> Comparison:
    """Measure what is missing, and rank.

    Args:
        plan: from `plan_comparison`.
        progress: opens a progress bar.
        note: told of each cell as it is done or has failed.
        say: told for whom it waits.

    Returns:
        The rankings; failed cells are in them with their reasons.

    Raises:
        RequestError: the engine or the store cannot be had.
        InterruptedAuditError: by Ctrl-C.
    """
    request = plan.request
    engine = choose_engine(request, progress)

    def advancing(result: CellResult, done: int, total: int) -> None:
        if advance is not None:
            advance(1)
        note(result, done, total)

    try:
        store = Store(request.store)
        scheduler = Scheduler(
            store,
            engine,
            refresh=request.refresh,
            keep=request.keep,
            strict=request.strict,
            influences=(plan.sort.name,),
            max_wait=request.max_wait,
            say=say,
        )
        with progress("cells", len(plan.cells)) as advance:
            results = scheduler.run(plan.cells, advancing)
    except KeyboardInterrupt:
        raise InterruptedAuditError(f"finished cells are kept in {request.store}, the same command goes on from there") from None
    finally:
        engine.close()
    damage = damage_of(store)
    store.close()
    ranking = rank(results, plan.sort)
    truth = metric_truth(plan.truth, results) if isinstance(plan.truth, Rule) else plan.truth
    measured = sum(result.fresh for result in results)
    return Comparison(
        ranking=ranking,
        truth=truth,
        predictions=() if truth is None else predictions(results, truth),
        warnings=(() if damage is None else (damage,)) + (() if truth is None else truth.warnings),
        measured=measured,
        known=len(results) - measured - len(ranking.failed),
        store=request.store,
        seconds=time.perf_counter() - plan.began,
    )


def compare(
    models: str | Path | Sequence[str | Path],
    sources: str | Path | Sequence[str | Path] = (),
    targets: str | Path | Sequence[str | Path] = (),
    *,
    sort: str | None = None,
    truth: str | Path | None = None,
    truth_for: str | None = None,
    store: str | Path | None = None,
    strict: bool = False,
    **options: Any,
) -> Comparison:
    """Rank models on data, as `gcaudit compare` does; what is in the store is not measured again.

    Args:
        models: paths, `timm:NAME`, globs such as `timm:resnet*`, or one YAML file.
        sources: data specs of what they were trained on; may be missing with a YAML file.
        targets: data specs of what they will be used for.
        sort: the metric to rank by, such as `source.cdnv`; None takes the probe's accuracy on the target.
        truth: CSV of `model,accuracy[,target]`, or a metric, to compare all metrics with.
        truth_for: the target that the accuracies are on, when there are several and the CSV has no column `target`.
        store: path of the store; None takes `gcaudit.db` in the working folder.
        strict: let cells fail whose reports would have warnings.
        options: named as on the command line (`metrics="all"`, `n_shot=(1, 5)`, ...).

    Returns:
        The rankings; `frame()` makes a table of them. What could not be done is in `ranking.failed`. Warnings come as `GcauditWarning`.

    Raises:
        GcauditError: something asked for is wrong.

    Example:
        >>> compare(["a.pt", "b.pt"], "cifar10", "photos/", arch="timm:resnet18").frame()  # doctest: +SKIP
    """
    check_options(options)
    request = CompareRequest(
        models=_names(models),
        sources=_names(sources),
        targets=_names(targets),
        options=options,
        sort=sort,
        truth=None if truth is None else str(truth),
        truth_for=truth_for,
        store=DEFAULT_STORE if store is None else Path(store),
        strict=strict,
    )
    found = run_comparison(plan_comparison(request))
    for line in (*found.warnings, *found.ranking.warnings, *found.ranking.failures):
        warnings.warn(line, GcauditWarning, stacklevel=2)
    return found


def _names(given: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    return tuple(str(name) for name in ((given,) if isinstance(given, str | Path) else given))

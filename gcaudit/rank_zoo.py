"""`gcaudit compare`, from what was asked to a ranking."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from gcaudit.audit import check_request
from gcaudit.cells import CellRequest, CellResult, Comparison
from gcaudit.console import check_writable, table_text, write_atomically
from gcaudit.engine import Engine, LocalEngine
from gcaudit.errors import InterruptedAuditError, RequestError
from gcaudit.progress import ProgressBar, no_bar
from gcaudit.ranking import Ranking, parse_sort, rank
from gcaudit.report.predictions import predictions_json, predictions_markdown, render_predictions, scatter_plot
from gcaudit.report.ranking import frame_bytes, ranking_frame, ranking_json, render_ranking, render_ranking_markdown
from gcaudit.rules import Rule
from gcaudit.spec import AuditSpec, check_options
from gcaudit.store import DEFAULT_STORE, Store
from gcaudit.truth import Prediction, Truth, metric_truth, predictions, read_accuracies, read_metric
from gcaudit.zoo import ZooData, ZooModel, expand_models, read_zoo

if TYPE_CHECKING:
    from pandas import DataFrame

ENGINES = ("local", "ray")


@final
@dataclass(frozen=True)
class RankRequest:
    """What is asked of `gcaudit compare`.

    Attributes:
        models: as typed: models, globs, or one YAML file.
        sources: data specs; with a YAML file they stand in for its own.
        targets: data specs; with a YAML file they stand in for its own.
        fields: of `AuditSpec`, those that were typed; they win over a YAML file's.
        sort: metric to sort by, or None.
        store: path of the store, or None for the default.
        refresh: measure again what is there.
        keep: keep embeddings.
        engine: `local` or `ray`.
        address: of a Ray cluster, or None.
        gpus: that a task of Ray takes, or None.
        truth: CSV of accuracies, or a metric; or None.
        scatter: `METRIC=FILE`.
    """

    models: tuple[str, ...]
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    fields: Mapping[str, Any] | None = None
    sort: str | None = None
    store: Path | None = None
    refresh: bool = False
    keep: bool = False
    engine: str = "local"
    address: str | None = None
    gpus: float | None = None
    truth: str | None = None
    scatter: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Ranked:
    """What came of it.

    Attributes:
        ranking: the ranking.
        truth: accuracies, or None.
        predictions: how well each metric predicts them.
        warnings: what should be said.
        summary: one line on what was done.
    """

    ranking: Ranking
    truth: Truth | None
    predictions: tuple[Prediction, ...]
    warnings: tuple[str, ...]
    summary: str

    def frame(self) -> DataFrame:
        """Return a table with a row a cell: names, rank, groups, and each value with its standard error and 95% interval."""
        return ranking_frame(self.ranking)

    def render(self, name: str, *, to_terminal: bool = False) -> str | bytes:
        """Write it.

        Args:
            name: `table`, `json`, `markdown`, `csv` or `parquet`.
            to_terminal: whether colours and the terminal's width apply to a table.

        Returns:
            Text, or the bytes of a file.
        """
        if name == "json":
            return ranking_json(self.ranking, None if self.truth is None else predictions_json(self.predictions, self.truth))
        if name == "markdown":
            further = "" if self.truth is None else "\n" + predictions_markdown(self.predictions, self.truth)
            return render_ranking_markdown(self.ranking) + further
        if name in ("csv", "parquet"):
            return frame_bytes(self.frame(), name)
        text = table_text(render_ranking(self.ranking), to_terminal=to_terminal)
        if self.truth is not None:
            text += table_text(render_predictions(self.predictions, self.truth), to_terminal=to_terminal)
        return text


def cell_requests(request: RankRequest) -> list[CellRequest]:
    """List the cells that are asked for: every model on every source and target.

    Args:
        request: what is asked.

    Returns:
        The cells, those of one model together.

    Raises:
        RequestError: a YAML file, a glob or an option that is wrong.
    """
    fields = dict(request.fields or {})
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
    return [
        CellRequest(
            model.name, source.name, None if target is None else target.name, _spec(settings, model, source, target, fields)
        )
        for model in entries
        for source in sources
        for target in (targets or (None,))
    ]


def _typed_data(specs: Sequence[str]) -> tuple[ZooData, ...]:
    return tuple(ZooData(spec, spec, None, None, None) for spec in specs)


def _spec(
    settings: Mapping[str, Any], model: ZooModel, source: ZooData, target: ZooData | None, typed: Mapping[str, Any]
) -> AuditSpec:
    found = dict(settings) | dict(model.fields) | source.fields("source")
    if target is not None:
        found |= target.fields("target")
    return AuditSpec(**(found | dict(typed)))


def choose_engine(request: RankRequest, progress: ProgressBar) -> Engine:
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
        from gcaudit.engine_ray import RayEngine

        return RayEngine(request.address, request.gpus, progress)
    if request.address is not None or request.gpus is not None:
        raise RequestError("expected --address and --gpus-per-task with --engine ray, found --engine local; add --engine ray")
    return LocalEngine(progress)


def rank_zoo(request: RankRequest, progress: ProgressBar = no_bar, say: Callable[[str], None] = lambda _line: None) -> Ranked:
    """Measure what is missing, and rank.

    Args:
        request: what is asked.
        progress: opens a progress bar.
        say: told of each cell that was measured or failed.

    Returns:
        The ranking; failed cells are in it with their reasons.

    Raises:
        RequestError: something asked for is wrong.
        InterruptedAuditError: by Ctrl-C.
    """
    began = time.perf_counter()
    cells = cell_requests(request)
    for cell in cells:
        check_request(cell.spec)
    rule = parse_sort(request.sort, with_target=cells[0].target is not None, measured=cells[0].spec.metrics)
    truth = None if request.truth is None else _truth(request.truth, cells)
    plots = [_plot(text, cells[0].spec, request.truth) for text in request.scatter]
    path = request.store or DEFAULT_STORE
    check_writable(path, "--store")
    engine = choose_engine(request, progress)
    store = Store(path)

    told: set[str | None] = set()

    def note(result: CellResult, done: int, total: int) -> None:
        if advance is not None:
            advance(1)
        if result.report is None:
            known = result.reason in told
            say(f"gcaudit: {done}/{total} {result.request.title}: {'failed for the same reason' if known else result.reason}")
            told.add(result.reason)
        elif result.fresh:
            say(f"gcaudit: {done}/{total} {result.request.title}: done")

    try:
        comparison = Comparison(store, engine, refresh=request.refresh, keep=request.keep, influences=(rule.name,))
        with progress("cells", len(cells)) as advance:
            results = comparison.fill(cells, note)
    except KeyboardInterrupt:
        raise InterruptedAuditError(f"finished cells are kept in {path}, the same command goes on from there") from None
    finally:
        engine.close()
    store.close()
    ranking = rank(results, rule)
    truth = metric_truth(truth, results) if isinstance(truth, Rule) else truth
    found = () if truth is None else predictions(results, truth)
    for name, place in plots:
        assert truth is not None
        write_atomically(place, scatter_plot(found, truth, name, place))
    fresh, failed = sum(result.fresh for result in results), len(ranking.failed)
    summary = f"{len(results)} cell{'s' * (len(results) != 1)}: {fresh} measured, {len(results) - fresh - failed} from {path}, {failed} failed"
    warnings = () if truth is None else truth.warnings
    return Ranked(ranking, truth, found, warnings, f"{summary}; {time.perf_counter() - began:.1f} s")


def compare(
    models: str | Path | Sequence[str | Path],
    sources: str | Path | Sequence[str | Path] = (),
    targets: str | Path | Sequence[str | Path] = (),
    *,
    sort: str | None = None,
    truth: str | Path | None = None,
    store: str | Path | None = None,
    **options: Any,
) -> Ranked:
    """Rank models on data, as `gcaudit compare` does; what is in the store is not measured again.

    Args:
        models: paths, `timm:NAME`, globs such as `timm:resnet*`, or one YAML file.
        sources: data specs of what they were trained on; may be missing with a YAML file.
        targets: data specs of what they will be used for.
        sort: the metric to rank by, such as `source.cdnv`; None takes the probe's accuracy on the target.
        truth: CSV of `model,accuracy[,target]`, or a metric, to compare all metrics with.
        store: path of the store; None takes `gcaudit.db` in the working folder.
        options: fields of `AuditSpec`, named as on the command line (`metrics="all"`, `n_shot=(1, 5)`, ...).

    Returns:
        The rankings; `frame()` makes a table of them. What could not be done is in `ranking.failed`.

    Raises:
        GcauditError: something asked for is wrong.

    Example:
        >>> compare(["a.pt", "b.pt"], "cifar10", "photos/", arch="timm:resnet18").frame()  # doctest: +SKIP
    """
    check_options(options)
    request = RankRequest(
        models=_names(models),
        sources=_names(sources),
        targets=_names(targets),
        fields=options,
        sort=sort,
        truth=None if truth is None else str(truth),
        store=None if store is None else Path(store),
    )
    return rank_zoo(request)


def _names(given: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    return tuple(str(name) for name in ((given,) if isinstance(given, str | Path) else given))


def _truth(text: str, cells: Sequence[CellRequest]) -> Truth | Rule:
    """Read the accuracies, or the name of the metric that stands for them."""
    if text.lower().endswith(".csv") or Path(text).is_file():
        return read_accuracies(Path(text), cells)
    return _measured(read_metric(text, "--truth"), "--truth", cells[0].spec.measured)


def _measured(rule: Rule, option: str, known: Sequence[str]) -> Rule:
    if f"{rule.role}.{rule.metric}" not in known:
        raise RequestError(f"expected {option} of a metric that is measured ({', '.join(known)}), found {rule.name}; see --metrics")
    return rule


def _plot(text: str, spec: AuditSpec, truth: str | None) -> tuple[str, Path]:
    """Read `METRIC=FILE`, and check all that would keep the plot from being drawn in the end."""
    name, equals, place = text.partition("=")
    if truth is None:
        raise RequestError("expected --truth with --scatter, found none; add --truth accuracies.csv")
    if not equals or Path(place).suffix.lower() not in (".svg", ".png", ".pdf"):
        raise RequestError(f"expected --scatter METRIC=FILE.svg (or .png, .pdf), found {text!r}")
    rule = _measured(read_metric(name, "--scatter"), "--scatter", [known for known in spec.measured if known != truth])
    if find_spec("matplotlib") is None:
        raise RequestError("expected matplotlib for --scatter, found none; pip install 'gcaudit[plot]'")
    check_writable(Path(place), "--scatter")
    return rule.name, Path(place)

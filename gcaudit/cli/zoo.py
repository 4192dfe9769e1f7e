"""Commands on many checkpoints: compare, and results for what is in the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gcaudit.audit import DATA, RUN
from gcaudit.cli.app import app, command
from gcaudit.cli.console import (
    check_writable,
    choose_format,
    is_file_place,
    keep_apart,
    stdout_kept,
    stdout_paper,
    write_atomically,
    write_output,
    write_stderr,
    write_stdout,
)
from gcaudit.cli.options import OUT, Output, Quiet, Strict, option, takes
from gcaudit.errors import RequestError, plain
from gcaudit.progress import progress_board
from gcaudit.render import RANKING_FORMATS

if TYPE_CHECKING:
    from gcaudit.store import Store
    from gcaudit.zoo import ComparePlan, Comparison

STORE, TRUTH = "Store", "Does a score predict anything?"
StorePath = Annotated[Path | None, option("--store", panel=STORE, text="file of results", metavar="FILE", unset="gcaudit.db")]

Where = Annotated[
    list[str] | None,
    option(
        "--where",
        panel=STORE,
        text="only cells such as 'target=dtd10 and seed=0'; names are export's columns, a path goes by any of its parts",
        metavar="CONDITIONS",
        unset="all",
    ),
]


@command()
@takes()
def compare(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="models as for score, globs such as 'timm:resnet*', or one zoo.yaml")
    ],
    source: Annotated[
        list[str] | None,
        option(
            "--source",
            "-s",
            panel=DATA,
            text="data the models were trained on; repeatable",
            metavar="DATA",
            unset="those of the YAML file, else required",
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        option(
            "--target",
            "-t",
            panel=DATA,
            text="data they will be used for; repeatable",
            metavar="DATA",
            unset="those of the YAML file, else none",
        ),
    ] = None,
    *,
    options: dict[str, Any],
    sort: Annotated[
        str | None,
        option(
            "--sort",
            panel=OUT,
            text="such as target.probe_accuracy or source.cdnv",
            metavar="METRIC",
            unset="target.probe_accuracy, else what is measured",
        ),
    ] = None,
    store: StorePath = None,
    refresh: Annotated[bool, option("--refresh", panel=STORE, text="measure again what is there", unset="off")] = False,
    keep_embeddings: Annotated[
        bool,
        option("--keep-embeddings", panel=STORE, text="keep embeddings, so that a new metric costs no forward pass", unset="off"),
    ] = False,
    max_wait: Annotated[
        float | None,
        option(
            "--max-wait", panel=STORE, text="minutes to wait for another process on the same store", metavar="MINUTES", unset="60"
        ),
    ] = None,
    engine: Annotated[str, option("--engine", panel=RUN, text="local, or ray for many processes and machines")] = "local",
    address: Annotated[
        str | None, option("--address", panel=RUN, text="of the Ray cluster, or 'auto'", unset="a cluster of this machine alone")
    ] = None,
    gpus: Annotated[
        float | None,
        option("--gpus-per-task", panel=RUN, text="GPUs that a task takes", unset="1 where the cluster has any, else 0"),
    ] = None,
    truth: Annotated[
        str | None,
        option(
            "--truth",
            panel=TRUTH,
            text="CSV of model, accuracy[, target], or a metric such as target.linear_probe_accuracy",
            metavar="CSV|METRIC",
            unset="none",
        ),
    ] = None,
    truth_for: Annotated[
        str | None,
        option(
            "--truth-for",
            panel=TRUTH,
            text="target of the accuracies, when the CSV has no column target",
            metavar="TARGET",
            unset="the only one",
        ),
    ] = None,
    scatter: Annotated[
        list[str] | None,
        option("--scatter", panel=TRUTH, text="plot a metric against --truth; repeatable", metavar="METRIC=FILE.svg", unset="none"),
    ] = None,
    format_: Annotated[
        str | None,
        option(
            "--format", "-f", panel=OUT, text="table, json, markdown, csv or parquet", unset="as --output's suffix says, else table"
        ),
    ] = None,
    output: Output = None,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Rank checkpoints: which of them should I fine-tune for my data? Resumes where it was stopped."""
    name = choose_format(format_, output, RANKING_FORMATS)
    places = [_place(text) for text in scatter or ()]
    beside = _beside(output, name) if truth is not None else None
    from gcaudit.render import CellLines, comparison_summary, render_comparison, render_correlations, scatter_plot
    from gcaudit.store import DEFAULT_STORE
    from gcaudit.zoo import MAX_WAIT_MINUTES, CellResult, CompareRequest, plan_comparison, run_comparison

    store = store or DEFAULT_STORE
    written = (("--output", output), (_BESIDE, beside), ("--store", store), *(("--scatter", path) for _, path in places))
    keep_apart((*(("MODEL", model) for model in models), ("--truth", truth)), written)
    request = CompareRequest(
        models=tuple(models),
        sources=tuple(source or ()),
        targets=tuple(target or ()),
        options=options,
        sort=sort,
        truth=truth,
        truth_for=truth_for,
        refresh=refresh,
        keep=keep_embeddings,
        strict=strict,
        engine=engine,
        address=address,
        gpus=gpus,
        store=store,
        max_wait=MAX_WAIT_MINUTES if max_wait is None else max_wait,
    )
    plan = plan_comparison(request)
    asked = [cell.spec for cell in plan.cells]
    named = {("a model", str(spec.model.spec)) for spec in asked} | {
        ("a data set", str(d.spec)) for spec in asked for d in (spec.source, spec.target)
    }
    keep_apart(sorted(named), written)
    plots = [(_plotted(metric, plan), path) for metric, path in places]
    for what, path in ((_BESIDE, beside), *(("--scatter", path) for _, path in plots), ("--store", store)):
        if path is not None:
            check_writable(path, what)

    def say(line: str) -> None:
        write_stderr(f"gcaudit: {line}")

    if quiet:
        with stdout_kept():
            found = run_comparison(plan, say=say)  # who is waited for without a word seems to hang
    else:
        lines = CellLines()

        def note(result: CellResult, done: int, total: int) -> None:
            if (line := lines.line(result, done, total)) is not None:
                say(line)

        with stdout_kept(), progress_board() as bar:
            found = run_comparison(plan, bar, note, say)
    write_output(render_comparison(found, name, stdout_paper(output)), output)
    if beside is not None:
        write_atomically(beside, render_correlations(found, name))
    for line in (*found.warnings, *_unseen(found, name, output)):
        write_stderr(f"gcaudit: warning: {line}")
    for metric, place in plots:
        write_atomically(place, scatter_plot(found, metric, place))
    if not quiet:
        written = (("ranking", output), ("correlations", beside), *((f"plot of {metric}", path) for metric, path in plots))
        told = [f"{what} in {path}" for what, path in written if path is not None]
        write_stderr("gcaudit: " + "; ".join((comparison_summary(found), *([", ".join(told)] if told else []))))
    if found.ranking.failed:
        raise typer.Exit(3)


_TABLES = ("csv", "parquet")
_BESIDE = "the file of correlations beside --output"


def _unseen(found: Comparison, name: str, output: Path | None) -> list[str]:
    """List what a table says beside its rows, where no table is seen."""
    if name in ("table", "markdown") and (output is None or not is_file_place(output)):
        return []
    unseen = [*(table.caveat for table in found.ranking.tables if table.caveat is not None), *found.ranking.warnings]
    if name in _TABLES and found.truth is not None and _beside(output, name) is None:
        unseen.append(f"correlations are no part of this {name}; add -o FILE.{name} to have them beside it")
    return unseen


def _beside(output: Path | None, name: str) -> Path | None:
    """Find the file of correlations beside a ranking that is a table of cells."""
    return (
        output.with_name(f"{output.stem}.predictions.{name}")
        if output is not None and name in _TABLES and is_file_place(output)
        else None
    )


def _place(text: str) -> tuple[str, Path]:
    """Read `METRIC=FILE`."""
    name, equals, place = text.partition("=")
    if not equals or Path(place).suffix.lower() not in (".svg", ".png", ".pdf"):
        raise RequestError(f"expected --scatter METRIC=FILE.svg (or .png, .pdf), found {text!r}")
    return name, Path(place)


def _plotted(name: str, plan: ComparePlan) -> str:
    """Find a metric that can be plotted, and check all that would keep it from being drawn in the end."""
    from gcaudit.zoo import read_measured

    if plan.truth is None:
        raise RequestError("expected --truth with --scatter, found none; add --truth accuracies.csv")
    metric = read_measured(name, "--scatter", [known for known in plan.measured if known != plan.truth_name])
    if find_spec("matplotlib") is None:
        raise RequestError("expected matplotlib for --scatter, found none; pip install 'gcaudit[plot]'")
    return metric.name


results = typer.Typer(help="What is in the store of results: list, show, export, prune, repair.", invoke_without_command=True)
app.add_typer(results, name="results")


@results.callback()
def _results(ctx: typer.Context, store: StorePath = None, where: Where = None) -> None:
    ctx.obj = store
    if ctx.invoked_subcommand is None:
        list_results(ctx, store, where)
    elif where:
        raise RequestError(
            f"expected --where behind the command, found it before; type gcaudit results {ctx.invoked_subcommand} --where ..."
        )


@contextmanager
def _opened(ctx: typer.Context, store: Path | None) -> Iterator[Store]:
    """Open the store, and say in the end what of it is damaged."""
    from gcaudit.store import Store, damage_of

    opened = Store(_path(ctx, store), create=False)
    try:
        yield opened
    finally:
        if (line := damage_of(opened)) is not None:
            write_stderr(f"gcaudit: warning: {line}")
        opened.close()


def _path(ctx: typer.Context, store: Path | None) -> Path:
    from gcaudit.store import DEFAULT_STORE

    return store or ctx.obj or DEFAULT_STORE


@command("list", results)
def list_results(ctx: typer.Context, store: StorePath = None, where: Where = None) -> None:
    """List the cells: key, model, source, target, the probe's accuracy, and the settings in which they differ."""
    from gcaudit.render import render_cells
    from gcaudit.store import choose_cells

    with _opened(ctx, store) as opened:
        cells = opened.cells()
        chosen = choose_cells(cells, where or ())
        write_stdout(
            render_cells(chosen, stdout_paper()) if chosen or not cells else f"none of {len(cells)} cells fulfils --where\n"
        )


@command("show", results)
def show_result(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="from 'gcaudit results list', or its first characters")],
    store: StorePath = None,
    format_: Annotated[str, option("--format", "-f", panel=OUT, text="table, json or markdown")] = "table",
) -> None:
    """Show one cell's report."""
    from gcaudit.render import log_text, render_report
    from gcaudit.store import find_cell

    name = choose_format(format_, None)
    with _opened(ctx, store) as opened:
        cell = find_cell(opened.cells(), key)
    if cell.report is None:
        place = cell.source + (f" -> {cell.target}" if cell.target else "")
        write_stdout(log_text(plain(f"{cell.model}: {place}: {cell.reason}") + "\n"))
        return
    write_stdout(render_report(cell.report, name, stdout_paper()))


@command("export", results)
def export_results(
    ctx: typer.Context,
    output: Annotated[Path, typer.Argument(metavar="FILE", help="FILE.csv or FILE.parquet: a row a cell; FILE.json: all reports")],
    store: StorePath = None,
    where: Where = None,
) -> None:
    """Export cells with their settings, warnings and values as CSV, parquet or JSON."""
    if output.suffix.lower() not in (".csv", ".parquet", ".json"):
        raise RequestError(f"expected a FILE of .csv, .parquet or .json, found {output}")
    check_writable(output, "FILE")
    from gcaudit.render import export_cells
    from gcaudit.store import choose_cells

    keep_apart((("--store", _path(ctx, store)),), (("FILE", output),))
    with _opened(ctx, store) as opened:
        every = opened.cells()
        cells = choose_cells(every, where or ())
        if not cells:
            told = f"none of {len(every)} that fulfils --where" if every else f"none in {opened.path}"
            raise RequestError(f"expected cells to export, found {told}; see gcaudit results list")
        write_output(export_cells(cells, output.suffix.lower().removeprefix(".")), output)


@command("prune", results)
def prune_results(
    ctx: typer.Context,
    store: StorePath = None,
    failed: Annotated[bool, option("--failed", panel=STORE, text="cells that could not be done", unset="off")] = False,
    model: Annotated[
        str | None, option("--model", panel=STORE, text="cells of models that match", metavar="GLOB", unset="all")
    ] = None,
    older_than: Annotated[
        int | None, option("--older-than", panel=STORE, text="cells older than so many days", metavar="DAYS", unset="any")
    ] = None,
    everything: Annotated[bool, option("--all", panel=STORE, text="all cells", unset="off")] = False,
    dry_run: Annotated[bool, option("--dry-run", panel=STORE, text="only say how many", unset="off")] = False,
) -> None:
    """Remove cells, blocks that no cell needs, and kept embeddings that no block needs."""
    if not (failed or model or older_than is not None or everything):
        raise RequestError("expected --failed, --model GLOB, --older-than DAYS or --all, found none; add one")
    with _opened(ctx, store) as opened:
        total = len(opened.cells())
        if dry_run:
            keys = opened.choose(failed=failed, model=model, older_than=older_than)
            write_stdout(f"would remove {len(keys)} of {total} cells\n")
            return
        pruned = opened.prune(failed=failed, model=model, older_than=older_than)
        write_stdout(f"removed {pruned.removed} of {total} cells\n")
        if pruned.left:
            write_stderr(
                f"gcaudit: what only they needed is left, since another process has {opened.path} open; prune again when it is done"
            )


@command("repair", results)
def repair_results(ctx: typer.Context, store: StorePath = None) -> None:
    """Write a damaged store anew from what is sound in it; the damaged file is kept beside it."""
    from gcaudit.store import repair_store

    path = _path(ctx, store)
    done = repair_store(path)
    kept = ", ".join(f"{count} {table}" for table, count in done.kept.items())
    if done.moved is None:
        write_stdout(f"{path} is sound: {kept}\n")
        return
    lost = ", ".join(f"{count} {table}" for table, count in done.lost.items() if count) or "no row that left a trace"
    write_stdout(f"kept {kept}; lost {lost}; the damaged file is now {done.moved}\n")

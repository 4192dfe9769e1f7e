"""Commands that say what there is: metrics, datasets, schema."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gcaudit.audit import DATASET_OPTIONS, OPTIONS
from gcaudit.cli.app import command
from gcaudit.cli.console import choose_format, stdout_kept, stdout_paper, write_stderr, write_stdout
from gcaudit.cli.options import OUT, option, takes
from gcaudit.errors import RequestError
from gcaudit.render import LIST_FORMATS

ListFormat = Annotated[str, option("--format", "-f", panel=OUT, text="table or json")]


@command()
def metrics(
    name: Annotated[str | None, typer.Argument(metavar="[METRIC]", help="explain this one", show_default=False)] = None,
    format_: ListFormat = "table",
) -> None:
    """List the metrics, or explain one: definition, unit, direction, what it may be compared at, reference."""
    choose_format(format_, None, LIST_FORMATS)
    from gcaudit.metrics import METRICS, find_metric
    from gcaudit.render import metrics_json, render_metric, render_metrics

    found = METRICS if name is None else (find_metric(name),)
    if format_ == "json":
        write_stdout(metrics_json(found))
    else:
        write_stdout(render_metrics(stdout_paper()) if name is None else render_metric(found[0], stdout_paper()))


@command()
@takes(tuple(option for option in OPTIONS if option.name in DATASET_OPTIONS))
def datasets(
    data: Annotated[str | None, typer.Argument(metavar="[DATA]", help="look at this one", show_default=False)] = None,
    *,
    options: dict[str, Any],
    format_: ListFormat = "table",
) -> None:
    """List the data sets known by name, or look at one without a model: classes, counts, sizes, first rows, and what to type."""
    choose_format(format_, None, LIST_FORMATS)
    if data is None:
        if options:
            raise RequestError(f"expected a data set with --{next(iter(options)).replace('_', '-')}, found none; name one")
        from gcaudit.data import KNOWN
        from gcaudit.render import datasets_json, render_datasets

        write_stdout(datasets_json(KNOWN) if format_ == "json" else render_datasets(KNOWN, stdout_paper()))
        return
    from gcaudit.audit import look_at_data
    from gcaudit.render import overview_json, render_overview

    with stdout_kept():
        found = look_at_data(data, **options)
    write_stdout(overview_json(found) if format_ == "json" else render_overview(found, stdout_paper()))
    for line in found.warnings:
        write_stderr(f"gcaudit: warning: {line}")


@command()
def schema(
    name: Annotated[str, typer.Argument(metavar="report|ranking|gate|zoo", help="what is described")],
    format_: Annotated[str, option("--format", "-f", panel=OUT, text="json: a JSON schema; table: for people")] = "json",
) -> None:
    """Say what the JSON of score, compare and gate and the YAML of compare hold, with an example each."""
    choose_format(format_, None, LIST_FORMATS)
    from gcaudit.render import SCHEMAS, render_schema, schema_json

    if name not in SCHEMAS:
        raise RequestError(f"expected {', '.join(SCHEMAS[:-1])} or {SCHEMAS[-1]}, found {name!r}")
    write_stdout(schema_json(name) if format_ == "json" else render_schema(name, stdout_paper()))

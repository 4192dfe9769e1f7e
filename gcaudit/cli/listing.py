"""Commands that say what there is: metrics, datasets, schema."""

from __future__ import annotations

from typing import Annotated

import typer

from gcaudit.cli.app import command
from gcaudit.cli.console import choose_format, stdout_paper, write_stdout
from gcaudit.cli.options import OUT, option
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
def datasets(format_: ListFormat = "table") -> None:
    """List the data sets known by name: their splits, where they are looked for, and how to get them."""
    choose_format(format_, None, LIST_FORMATS)
    from gcaudit.data import KNOWN
    from gcaudit.render import datasets_json, render_datasets

    write_stdout(datasets_json(KNOWN) if format_ == "json" else render_datasets(KNOWN, stdout_paper()))


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

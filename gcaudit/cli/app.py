"""The program's frame, to which the modules beside this one add their commands."""

from __future__ import annotations

from typing import Annotated

import typer

from gcaudit.cli.console import write_stdout

app = typer.Typer(
    name="gcaudit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Audit pre-trained vision checkpoints for transfer: how simple and how collapsed is their embedding?",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        write_stdout(f"gcaudit {version('gcaudit')}\n")
        raise typer.Exit


@app.callback()
def _main_options(
    _version: Annotated[bool, typer.Option("--version", help="print the version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Hold the options of the program itself."""

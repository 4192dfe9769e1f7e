"""The program's frame, to which the modules beside this one add their commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from gcaudit.cli.console import write_stdout
from gcaudit.errors import RequestError

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


class _Command(TyperCommand):
    """A command that refuses an option given twice, of which the last would win without a word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(args=list(args))
            for parameter, count in Counter(order).items():
                if count > 1 and not parameter.multiple and parameter.param_type_name == "option":
                    raise RequestError(f"expected {parameter.opts[0]} once, found it {count} times; remove all but one")
        return super().parse_args(ctx, args)


def command(name: str | None = None, group: typer.Typer = app) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command.

    Args:
        name: of the command; None takes the function's.
        group: that it belongs to.

    Returns:
        A decorator.
    """
    return group.command(name, cls=_Command)

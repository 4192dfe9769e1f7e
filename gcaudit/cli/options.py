"""Options that commands share, and how their text is read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from gcaudit.audit import OPTIONS, Kind, Option, read_value

OUT, GATE = "Output", "Gate"


def option(*names: str, panel: str, text: str, metavar: str | None = None, unset: str | None = None) -> Any:
    """Make an option of a help panel.

    Args:
        names: such as `--seed`.
        panel: of the help.
        text: of the help.
        metavar: what stands for the value.
        unset: what is taken without it, in words; None where the parameter's default says it.

    Returns:
        For `typing.Annotated`.
    """
    return typer.Option(*names, help=text, rich_help_panel=panel, metavar=metavar, show_default=unset or True)


Model = Annotated[str, typer.Argument(metavar="MODEL", help="path, timm:NAME, hf-hub:ORG/REPO, torchvision:NAME or demo")]
Format = Annotated[
    str | None, option("--format", "-f", panel=OUT, text="table, json or markdown", unset="as --output's suffix says, else table")
]
Output = Annotated[Path | None, option("--output", "-o", panel=OUT, text="file to write", metavar="FILE", unset="stdout")]
Quiet = Annotated[bool, option("--quiet", "-q", panel=OUT, text="no progress and no summary", unset="off")]
Baseline = Annotated[
    Path | None, option("--baseline", panel=GATE, text="report of the last release", metavar="OLD.json", unset="none")
]
MaxRegression = Annotated[
    str | None,
    option(
        "--max-regression",
        panel=GATE,
        text="allowed for the headline metrics against --baseline",
        unset="2% where no rule is a regression",
        metavar="SHARE",
    ),
]
WhenUnsure = Annotated[str | None, option("--when-unsure", panel=GATE, text="undecided rules: pass, warn or fail", unset="pass")]
AllowMismatch = Annotated[
    bool, option("--allow-mismatch", panel=GATE, text="compare what may not be compared, with a warning", unset="off")
]
NoWarnings = Annotated[
    bool, option("--no-warnings", panel=GATE, text="fail on any warning of the report that no rule names", unset="off")
]
ProjectRules = Annotated[
    bool,
    option("--project-rules/--no-project-rules", panel=GATE, text="add the rules of \\[tool.gcaudit.gate] in ./pyproject.toml"),
]
Strict = Annotated[bool, option("--strict", panel=OUT, text="refuse what would be a warning", unset="off")]
Junit = Annotated[
    Path | None, option("--junit", panel=GATE, text="also write the verdicts as JUnit XML", metavar="FILE", unset="none")
]


_TYPES: dict[Kind, Any] = {"flag": bool, "whole": int, "number": float, "pairs": list[str]}
"""What Typer reads of each kind; text, where nothing is said."""


def _parameter(asked: Option) -> inspect.Parameter:
    """Make the parameter of a command; its default is for the help, since only what was typed is passed on."""
    kind = str if asked.word else _TYPES.get(asked.kind, str)
    default = asked.default
    if asked.word:
        default = asked.word if default is None else str(default)
    elif isinstance(default, tuple):
        default = ",".join(map(str, default))
    unset = asked.unset or ("off" if asked.kind == "flag" and "/" not in asked.flag else None)
    typed = option(asked.flag, panel=asked.panel, text=asked.text, metavar=asked.metavar or None, unset=unset)
    kind = kind if default is not None else kind | None
    return inspect.Parameter(asked.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, typed])


def takes(options: Sequence[Option] = OPTIONS) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command options of an audit.

    Args:
        options: which.

    Returns:
        A decorator. In place of its argument `options` the command takes these, and gets those that were typed, by their flat names.
    """
    shared = [_parameter(asked) for asked in options]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        given_to_it = _parameters(command)
        own = [parameter.name for parameter in given_to_it if parameter.name != "options"]

        def run(ctx: typer.Context, **given: Any) -> None:
            typed = {
                asked.name: read_value(asked, given[asked.name])
                for asked in options
                if getattr(ctx.get_parameter_source(asked.name), "name", "DEFAULT") != "DEFAULT"
            }
            command(**{name: given[name] for name in own}, options=typed)

        every = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
        for parameter in given_to_it:
            every += shared if parameter.name == "options" else [parameter]
        every = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in every]
        run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
        run.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
        return run

    return decorate


def _parameters(function: Callable[..., None]) -> list[inspect.Parameter]:
    hints = get_type_hints(function, include_extras=True)
    return [p.replace(annotation=hints[p.name]) for p in inspect.signature(function).parameters.values()]

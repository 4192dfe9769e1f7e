"""Options that commands share, and how their text is read."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from gcaudit.audit import OPTIONS, Kind, Option
from gcaudit.errors import RequestError

OUT, GATE = "Output", "Gate"


def option(*names: str, panel: str, text: str, metavar: str | None = None) -> Any:
    """Make an option of a help panel.

    Args:
        names: such as `--seed`.
        panel: of the help.
        text: of the help.
        metavar: what stands for the value.

    Returns:
        For `typing.Annotated`.
    """
    return typer.Option(*names, help=text, rich_help_panel=panel, metavar=metavar, show_default=True)


Model = Annotated[str, typer.Argument(metavar="MODEL", help="path, timm:NAME, hf-hub:ORG/REPO, torchvision:NAME or demo")]
Format = Annotated[
    str | None, option("--format", "-f", panel=OUT, text="table, json or markdown; by default as --output's suffix says")
]
Output = Annotated[Path | None, option("--output", "-o", panel=OUT, text="file to write instead of stdout", metavar="FILE")]
Quiet = Annotated[bool, option("--quiet", "-q", panel=OUT, text="no progress and no summary")]
Baseline = Annotated[Path | None, option("--baseline", panel=GATE, text="report of the last release", metavar="OLD.json")]
MaxRegression = Annotated[
    str | None,
    option(
        "--max-regression",
        panel=GATE,
        text="allowed for the headline metrics against --baseline; 2% when no rule is a regression",
        metavar="SHARE",
    ),
]
WhenUnsure = Annotated[str | None, option("--when-unsure", panel=GATE, text="too close to call means: pass, warn or fail")]
AllowMismatch = Annotated[bool, option("--allow-mismatch", panel=GATE, text="compare what may not be compared, with a warning")]
NoWarnings = Annotated[bool, option("--no-warnings", panel=GATE, text="fail on any warning of the report that no rule names")]
ProjectRules = Annotated[
    bool,
    option("--project-rules/--no-project-rules", panel=GATE, text="add the rules of \\[tool.gcaudit.gate] in ./pyproject.toml"),
]
Strict = Annotated[bool, option("--strict", panel=OUT, text="refuse what would be a warning")]
Junit = Annotated[Path | None, option("--junit", panel=GATE, text="also write the verdicts as JUnit XML", metavar="FILE")]


def _numbers(text: str, name: str, kind: type) -> tuple[Any, ...]:
    try:
        found = tuple(kind(part) for part in text.split(",") if part.strip())
        if not found:
            raise ValueError
    except ValueError:
        example = "1,5,20" if kind is int else "0.485,0.456,0.406"
        raise RequestError(f"expected {name} of numbers such as {example}, found {text!r}") from None
    return found


def _size(text: str) -> tuple[int, int]:
    try:
        sides = [int(part) for part in text.lower().replace(",", "x").split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise RequestError(f"expected --input-size such as 224 or 224x160, found {text!r}")
    return sides[0], sides[-1]


def _count(text: str, name: str, word: str) -> int | None:
    if text == word:
        return None
    try:
        return int(text)
    except ValueError:
        raise RequestError(f"expected {name} of a number or '{word}', found {text!r}") from None


def _pairs(pairs: list[str]) -> dict[str, Any]:
    """Read KEY=VALUE pairs; values are Python literals, or text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise RequestError(f"expected --arch-arg KEY=VALUE such as in_chans=1, found {pair!r}")
        words = {"true": True, "false": False, "none": None}
        try:
            found[key] = words[value.lower()] if value.lower() in words else ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[key] = value
    return found


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_TYPES: dict[Kind, Any] = {"flag": bool, "whole": int, "number": float, "pairs": list[str]}
"""What Typer reads of each kind; text, where nothing is said."""


def _read(asked: Option, value: Any) -> Any:
    """Turn what Typer has read into the option's value."""
    if asked.word:
        return _count(value, asked.flag, asked.word)
    if asked.kind in ("numbers", "wholes"):
        return _numbers(value, asked.flag, int if asked.kind == "wholes" else float)
    if asked.kind == "pairs":
        return _pairs(value)
    if asked.kind == "size":
        return _size(value)
    return _names(value) if asked.kind == "names" else value


def _parameter(asked: Option) -> inspect.Parameter:
    """Make the parameter of a command; its default is for the help, since only what was typed is passed on."""
    kind = str if asked.word else _TYPES.get(asked.kind, str)
    default = asked.default
    if asked.word:
        default = asked.word if default is None else str(default)
    elif isinstance(default, tuple):
        default = ",".join(map(str, default))
    typed = option(asked.flag, panel=asked.panel, text=asked.text, metavar=asked.metavar or None)
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
                asked.name: _read(asked, given[asked.name])
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

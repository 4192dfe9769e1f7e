"""Options that commands share, and how their text is read."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated, Any

import typer

from gcaudit.errors import RequestError

MODEL, DATA, GC, PROBE, RUN, OUT = "Model", "Data", "Geometric complexity", "Few-shot probe", "Running", "Output"


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
Arch = Annotated[
    str | None, option("--arch", panel=MODEL, text="what a bare state dict is: timm:NAME, torchvision:NAME, FILE.py:FACTORY")
]
ArchArg = Annotated[
    list[str] | None, option("--arch-arg", panel=MODEL, text="KEY=VALUE for the architecture; repeatable", metavar="KEY=VALUE")
]
Ema = Annotated[bool, option("--ema/--no-ema", panel=MODEL, text="take averaged weights")]
AllowMissing = Annotated[bool, option("--allow-missing", panel=MODEL, text="missing and unexpected keys are a warning")]
Layer = Annotated[str | None, option("--layer", panel=MODEL, text="take this layer's output instead of the classifier's input")]
Mean = Annotated[str | None, option("--mean", panel=MODEL, text="override, such as 0.485,0.456,0.406", metavar="NUMBERS")]
Std = Annotated[str | None, option("--std", panel=MODEL, text="override, such as 0.229,0.224,0.225", metavar="NUMBERS")]
InputSize = Annotated[str | None, option("--input-size", panel=MODEL, text="override, such as 224 or 224x160", metavar="SIZE")]
CropPct = Annotated[float | None, option("--crop-pct", panel=MODEL, text="override")]
Interpolation = Annotated[str | None, option("--interpolation", panel=MODEL, text="override: bilinear, bicubic, ...")]
Format = Annotated[
    str | None, option("--format", "-f", panel=OUT, text="table, json or markdown; by default as --output's suffix says")
]
Output = Annotated[Path | None, option("--output", "-o", panel=OUT, text="file to write instead of stdout", metavar="FILE")]
Quiet = Annotated[bool, option("--quiet", "-q", panel=OUT, text="no progress and no summary")]
GATE = "Gate"
Baseline = Annotated[Path | None, option("--baseline", panel=GATE, text="report of the last release", metavar="OLD.json")]
MaxRegression = Annotated[
    str | None,
    option("--max-regression", panel=GATE, text="allowed for the headline metrics against --baseline", metavar="SHARE"),
]
WhenUnsure = Annotated[str | None, option("--when-unsure", panel=GATE, text="too close to call means: pass, warn or fail")]
AllowMismatch = Annotated[bool, option("--allow-mismatch", panel=GATE, text="compare what may not be compared, with a warning")]
Junit = Annotated[Path | None, option("--junit", panel=GATE, text="also write the verdicts as JUnit XML", metavar="FILE")]
Device = Annotated[str, option("--device", panel=RUN, text="auto, cpu, cuda, cuda:1, ...")]


def numbers(text: str | None, name: str, kind: type = float) -> tuple[Any, ...] | None:
    """Read numbers with commas between them.

    Args:
        text: as typed, or None.
        name: of the option.
        kind: int or float.

    Returns:
        The numbers, or None.

    Raises:
        RequestError: they are no numbers.
    """
    if text is None:
        return None
    try:
        found = tuple(kind(part) for part in text.split(",") if part.strip())
        if not found:
            raise ValueError
    except ValueError:
        example = "1,5,20" if kind is int else "0.485,0.456,0.406"
        raise RequestError(f"expected {name} of numbers such as {example}, found {text!r}") from None
    return found


def size(text: str | None) -> tuple[int, int] | None:
    """Read a height and a width.

    Args:
        text: such as `224` or `224x160`, or None.

    Returns:
        (height, width), or None.

    Raises:
        RequestError: it is no size.
    """
    if text is None:
        return None
    try:
        sides = [int(part) for part in text.lower().replace(",", "x").split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise RequestError(f"expected --input-size such as 224 or 224x160, found {text!r}")
    return sides[0], sides[-1]


def count(text: str, name: str, word: str) -> int | None:
    """Read a number, or the word that stands for None.

    Args:
        text: as typed.
        name: of the option.
        word: that stands for None.

    Returns:
        The number, or None.

    Raises:
        RequestError: it is neither.
    """
    if text == word:
        return None
    try:
        return int(text)
    except ValueError:
        raise RequestError(f"expected {name} of a number or '{word}', found {text!r}") from None


def arch_arguments(pairs: list[str] | None) -> dict[str, Any]:
    """Read KEY=VALUE pairs; values are Python literals, or text.

    Args:
        pairs: as typed.

    Returns:
        Keyword arguments.

    Raises:
        RequestError: a pair has no key or no value.
    """
    found: dict[str, Any] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise RequestError(f"expected --arch-arg KEY=VALUE such as in_chans=1, found {pair!r}")
        words = {"true": True, "false": False, "none": None}
        try:
            found[key] = words[value.lower()] if value.lower() in words else ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[key] = value
    return found


def model_options(arch_arg: Any, mean: Any, std: Any, input_size: Any) -> dict[str, Any]:
    """Read the options of a model that are more than one word or number.

    Args:
        arch_arg: pairs as typed.
        mean: as typed.
        std: as typed.
        input_size: as typed.

    Returns:
        Fields of `AuditSpec`.
    """
    return {
        "arch_args": arch_arguments(arch_arg),
        "mean": numbers(mean, "--mean"),
        "std": numbers(std, "--std"),
        "input_size": size(input_size),
    }

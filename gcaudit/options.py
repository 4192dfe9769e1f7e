"""Options that commands share, and how their text is read."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

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


def audit_options(
    arch: Arch = None,
    arch_arg: ArchArg = None,
    ema: Ema = False,
    allow_missing: AllowMissing = False,
    layer: Layer = None,
    mean: Mean = None,
    std: Std = None,
    input_size: InputSize = None,
    crop_pct: CropPct = None,
    interpolation: Interpolation = None,
    source_split: Annotated[str | None, option("--source-split", panel=DATA, text="split of the source")] = None,
    source_classes: Annotated[str | None, option("--source-classes", panel=DATA, text="such as 0-9,12 or names")] = None,
    source_max_images: Annotated[int | None, option("--source-max-images", panel=DATA, text="class-balanced draw")] = None,
    target_split: Annotated[str | None, option("--target-split", panel=DATA, text="split of the target")] = None,
    target_classes: Annotated[str | None, option("--target-classes", panel=DATA, text="such as 0-9,12 or names")] = None,
    target_max_images: Annotated[int | None, option("--target-max-images", panel=DATA, text="class-balanced draw")] = None,
    max_images: Annotated[int | None, option("--max-images", panel=DATA, text="the same for both data sets")] = None,
    data_root: Annotated[
        str | None, option("--data-root", panel=DATA, text="where known data sets lie; else $GCAUDIT_DATA")
    ] = None,
    skip_bad_images: Annotated[bool, option("--skip-bad-images", panel=DATA, text="count damaged images, do not stop")] = False,
    gc_: Annotated[str, option("--gc", panel=GC, text="sketch, exact or outputs")] = "sketch",
    vectors: Annotated[int, option("--vectors", panel=GC, text="vector-Jacobian products an image")] = 1,
    gc_images: Annotated[
        str, option("--gc-images", panel=GC, text="at most so many images whose Jacobian is taken, or 'all'", metavar="N|all")
    ] = "all",
    gc_rtol: Annotated[
        float,
        option("--gc-rtol", panel=GC, text="stop when GC's standard error is below this share of GC; 0 goes on", metavar="SHARE"),
    ] = 0.02,
    target_gc: Annotated[bool, option("--target-gc", panel=GC, text="take the Jacobian on the target too")] = False,
    input_space: Annotated[str, option("--input-space", panel=GC, text="gradients in: pixel or normalized")] = "pixel",
    n_way: Annotated[int, option("--n-way", panel=PROBE, text="classes an episode")] = 5,
    n_shot: Annotated[
        str, option("--n-shot", panel=PROBE, text="support images a class; 1,5,20 gives the curve", metavar="N[,N]")
    ] = "5",
    n_query: Annotated[str, option("--n-query", panel=PROBE, text="queries a class, or 'all'", metavar="N|all")] = "15",
    episodes: Annotated[int, option("--episodes", panel=PROBE, text="how many")] = 1000,
    ridge: Annotated[float, option("--ridge", panel=PROBE, text="penalty, relative to the embedding's scale")] = 1.0,
    metrics: Annotated[
        str | None, option("--metrics", panel=RUN, text="names from 'gcaudit metrics', with commas", metavar="NAMES")
    ] = None,
    device: Device = "auto",
    precision: Annotated[str, option("--precision", panel=RUN, text="float32, tf32, bfloat16 or float64")] = "float32",
    batch_size: Annotated[str, option("--batch-size", panel=RUN, text="images a batch, or 'auto'", metavar="N|auto")] = "auto",
    compile_: Annotated[bool, option("--compile", panel=RUN, text="compile the network with torch.compile")] = False,
    workers: Annotated[int | None, option("--workers", panel=RUN, text="decoding processes")] = None,
    seed: Annotated[int, option("--seed", panel=RUN, text="of every random draw")] = 0,
) -> None:
    """Hold the options that every audit takes: each is a field of `AuditSpec`, its default that field's."""


def read_audit_options(typed: Mapping[str, Any]) -> dict[str, Any]:
    """Turn options of an audit into fields of `AuditSpec`.

    Args:
        typed: values by the names of `audit_options`, only those that were typed.

    Returns:
        Fields.

    Raises:
        RequestError: text that cannot be read.
    """
    found = dict(typed)
    both = found.pop("max_images", None)
    if both is not None:
        found = {"source_max_images": both, "target_max_images": both} | found
    for name, read in _READERS.items():
        if name in found:
            value = read(found.pop(name))
            found[_FIELDS.get(name, name)] = value
    return found


_FIELDS = {"arch_arg": "arch_args", "gc_": "gc", "compile_": "compile"}
_READERS: dict[str, Callable[[Any], Any]] = {
    "arch_arg": arch_arguments,
    "mean": lambda text: numbers(text, "--mean"),
    "std": lambda text: numbers(text, "--std"),
    "input_size": size,
    "gc_": str,
    "gc_images": lambda text: count(text, "--gc-images", "all"),
    "n_shot": lambda text: numbers(text, "--n-shot", int),
    "n_query": lambda text: count(text, "--n-query", "all"),
    "metrics": lambda text: None if text is None else tuple(part.strip() for part in text.split(",") if part.strip()),
    "batch_size": lambda text: count(text, "--batch-size", "auto"),
    "compile_": bool,
}


def takes(prototype: Callable[..., None]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of another function, so that they are written down once.

    Args:
        prototype: a function whose parameters are options.

    Returns:
        A decorator. In place of its argument `fields` the command takes these options, and gets those that were typed, read into fields of
        `AuditSpec`.
    """
    shared = _parameters(prototype)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        given_to_it = _parameters(command)
        own = [parameter for parameter in given_to_it if parameter.name != "fields"]

        def run(ctx: typer.Context, **given: Any) -> None:
            typed = {
                parameter.name: given[parameter.name]
                for parameter in shared
                if getattr(ctx.get_parameter_source(parameter.name), "name", "DEFAULT") != "DEFAULT"
            }
            command(**{parameter.name: given[parameter.name] for parameter in own}, fields=read_audit_options(typed))

        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        every = [context]
        for parameter in given_to_it:
            every += shared if parameter.name == "fields" else [parameter]
        every = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in every]
        run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
        run.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
        return run

    return decorate


def _parameters(function: Callable[..., None]) -> list[inspect.Parameter]:
    hints = get_type_hints(function, include_extras=True)
    return [p.replace(annotation=hints[p.name]) for p in inspect.signature(function).parameters.values()]


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

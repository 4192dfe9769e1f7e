"""The command line: parse, call one function, print, exit."""

from __future__ import annotations

import ast
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from gcaudit.console import choose_format, emit, progress_bar, say, write_out
from gcaudit.errors import GcauditError, RequestError

app = typer.Typer(
    name="gcaudit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Audit pre-trained vision checkpoints for transfer: how simple and how collapsed is their embedding?",
)

_MODEL, _DATA, _GC, _PROBE, _RUN, _OUT = "Model", "Data", "Geometric complexity", "Few-shot probe", "Running", "Output"


def _option(*names: str, panel: str, text: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, metavar=metavar, show_default=True)


Model = Annotated[str, typer.Argument(metavar="MODEL", help="path, timm:NAME, hf-hub:ORG/REPO, torchvision:NAME or demo")]
Arch = Annotated[
    str | None, _option("--arch", panel=_MODEL, text="what a bare state dict is: timm:NAME, torchvision:NAME, FILE.py:FACTORY")
]
ArchArg = Annotated[
    list[str] | None, _option("--arch-arg", panel=_MODEL, text="KEY=VALUE for the architecture; repeatable", metavar="KEY=VALUE")
]
Ema = Annotated[bool, _option("--ema/--no-ema", panel=_MODEL, text="take averaged weights")]
AllowMissing = Annotated[bool, _option("--allow-missing", panel=_MODEL, text="missing and unexpected keys are a warning")]
Layer = Annotated[str | None, _option("--layer", panel=_MODEL, text="take this layer's output instead of the classifier's input")]
Mean = Annotated[str | None, _option("--mean", panel=_MODEL, text="override, such as 0.485,0.456,0.406", metavar="NUMBERS")]
Std = Annotated[str | None, _option("--std", panel=_MODEL, text="override, such as 0.229,0.224,0.225", metavar="NUMBERS")]
InputSize = Annotated[str | None, _option("--input-size", panel=_MODEL, text="override, such as 224 or 224x160", metavar="SIZE")]
CropPct = Annotated[float | None, _option("--crop-pct", panel=_MODEL, text="override")]
Interpolation = Annotated[str | None, _option("--interpolation", panel=_MODEL, text="override: bilinear, bicubic, ...")]
Format = Annotated[
    str | None, _option("--format", "-f", panel=_OUT, text="table, json or markdown; by default as --output's suffix says")
]
Output = Annotated[Path | None, _option("--output", "-o", panel=_OUT, text="file to write instead of stdout", metavar="FILE")]
Quiet = Annotated[bool, _option("--quiet", "-q", panel=_OUT, text="no progress and no summary")]
Device = Annotated[str, _option("--device", panel=_RUN, text="auto, cpu, cuda, cuda:1, ...")]


def _numbers(text: str | None, option: str, kind: type = float) -> tuple[Any, ...] | None:
    if text is None:
        return None
    try:
        found = tuple(kind(part) for part in text.split(",") if part.strip())
        if not found:
            raise ValueError
    except ValueError:
        example = "1,5,20" if kind is int else "0.485,0.456,0.406"
        raise RequestError(f"expected {option} of numbers such as {example}, found {text!r}") from None
    return found


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        sides = [int(part) for part in text.lower().replace(",", "x").split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise RequestError(f"expected --input-size such as 224 or 224x160, found {text!r}")
    return sides[0], sides[-1]


def _count(text: str, option: str, word: str) -> int | None:
    """Read a number, or the word that stands for None."""
    if text == word:
        return None
    try:
        return int(text)
    except ValueError:
        raise RequestError(f"expected {option} of a number or '{word}', found {text!r}") from None


def _arch_arguments(pairs: list[str] | None) -> dict[str, Any]:
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


def _model_options(arch_arg: Any, mean: Any, std: Any, input_size: Any) -> dict[str, Any]:
    return {
        "arch_args": _arch_arguments(arch_arg),
        "mean": _numbers(mean, "--mean"),
        "std": _numbers(std, "--std"),
        "input_size": _size(input_size),
    }


@app.command()
def score(
    model: Model,
    source: Annotated[
        str, _option("--source", "-s", panel=_DATA, text="data the model was trained on: name, folder, parquet, hf:ID, disk:PATH")
    ],
    target: Annotated[str | None, _option("--target", "-t", panel=_DATA, text="data it will be used for")] = None,
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
    source_split: Annotated[str | None, _option("--source-split", panel=_DATA, text="split of the source")] = None,
    source_classes: Annotated[str | None, _option("--source-classes", panel=_DATA, text="such as 0-9,12 or names")] = None,
    source_max_images: Annotated[int | None, _option("--source-max-images", panel=_DATA, text="class-balanced draw")] = None,
    target_split: Annotated[str | None, _option("--target-split", panel=_DATA, text="split of the target")] = None,
    target_classes: Annotated[str | None, _option("--target-classes", panel=_DATA, text="such as 0-9,12 or names")] = None,
    target_max_images: Annotated[int | None, _option("--target-max-images", panel=_DATA, text="class-balanced draw")] = None,
    max_images: Annotated[int | None, _option("--max-images", panel=_DATA, text="the same for both data sets")] = None,
    data_root: Annotated[
        str | None, _option("--data-root", panel=_DATA, text="where known data sets lie; else $GCAUDIT_DATA")
    ] = None,
    skip_bad_images: Annotated[bool, _option("--skip-bad-images", panel=_DATA, text="count damaged images, do not stop")] = False,
    gc: Annotated[str, _option("--gc", panel=_GC, text="sketch, exact or outputs")] = "sketch",
    vectors: Annotated[int, _option("--vectors", panel=_GC, text="vector-Jacobian products an image")] = 1,
    gc_images: Annotated[
        str, _option("--gc-images", panel=_GC, text="images whose Jacobian is taken, or 'all'", metavar="N|all")
    ] = "1024",
    target_gc: Annotated[bool, _option("--target-gc", panel=_GC, text="take the Jacobian on the target too")] = False,
    input_space: Annotated[str, _option("--input-space", panel=_GC, text="gradients in: pixel or normalized")] = "pixel",
    n_way: Annotated[int, _option("--n-way", panel=_PROBE, text="classes an episode")] = 5,
    n_shot: Annotated[
        str, _option("--n-shot", panel=_PROBE, text="support images a class; 1,5,20 gives the curve", metavar="N[,N]")
    ] = "5",
    n_query: Annotated[str, _option("--n-query", panel=_PROBE, text="queries a class, or 'all'", metavar="N|all")] = "15",
    episodes: Annotated[int, _option("--episodes", panel=_PROBE, text="how many")] = 1000,
    ridge: Annotated[float, _option("--ridge", panel=_PROBE, text="penalty, relative to the embedding's scale")] = 1.0,
    metrics: Annotated[
        str | None, _option("--metrics", panel=_RUN, text="names from 'gcaudit metrics', with commas", metavar="NAMES")
    ] = None,
    device: Device = "auto",
    precision: Annotated[str, _option("--precision", panel=_RUN, text="float32, tf32, bfloat16 or float64")] = "float32",
    batch_size: Annotated[str, _option("--batch-size", panel=_RUN, text="images a batch, or 'auto'", metavar="N|auto")] = "auto",
    workers: Annotated[int | None, _option("--workers", panel=_RUN, text="decoding processes")] = None,
    seed: Annotated[int, _option("--seed", panel=_RUN, text="of every random draw")] = 0,
    format_: Format = None,
    output: Output = None,
    quiet: Quiet = False,
) -> None:
    """Score a checkpoint: geometric complexity and collapse on the source, few-shot accuracy on the target."""
    name = choose_format(format_, output)
    options: dict[str, Any] = _model_options(arch_arg, mean, std, input_size) | {
        "n_shot": _numbers(n_shot, "--n-shot", int),
        "n_query": _count(n_query, "--n-query", "all"),
        "gc_images": _count(gc_images, "--gc-images", "all"),
        "batch_size": _count(batch_size, "--batch-size", "auto"),
        "metrics": None if metrics is None else tuple(part.strip() for part in metrics.split(",") if part.strip()),
        "source_max_images": max_images if source_max_images is None else source_max_images,
        "target_max_images": max_images if target_max_images is None else target_max_images,
    }
    from gcaudit.audit import run_audit
    from gcaudit.spec import AuditSpec

    spec = AuditSpec(
        model=model,
        source=source,
        target=target,
        arch=arch,
        ema=ema,
        allow_missing=allow_missing,
        layer=layer,
        crop_pct=crop_pct,
        interpolation=interpolation,
        source_split=source_split,
        source_classes=source_classes,
        target_split=target_split,
        target_classes=target_classes,
        data_root=data_root,
        skip_bad_images=skip_bad_images,
        gc=gc,
        vectors=vectors,
        target_gc=target_gc,
        input_space=input_space,
        n_way=n_way,
        episodes=episodes,
        ridge=ridge,
        device=device,
        precision=precision,
        workers=workers,
        seed=seed,
        **options,
    )
    report = run_audit(spec) if quiet else run_audit(spec, progress_bar)
    emit(report, name, output, quiet=quiet)


@app.command()
def demo(device: Device = "cpu", format_: Format = None, output: Output = None, quiet: Quiet = False) -> None:
    """Score a bundled checkpoint on bundled images: offline, in seconds."""
    name = choose_format(format_, output)
    from gcaudit.audit import run_audit
    from gcaudit.spec import AuditSpec

    spec = AuditSpec(model="demo", source="demo", target="demo", device=device)
    report = run_audit(spec) if quiet else run_audit(spec, progress_bar)
    emit(report, name, output, quiet=quiet)
    if not quiet:
        say("gcaudit: on your own files: gcaudit score model.ckpt --arch timm:resnet18 --source train_images/ --target my_images/")


@app.command()
def inspect(
    model: Model,
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
    format_: Annotated[str, _option("--format", "-f", panel=_OUT, text="table or json")] = "table",
) -> None:
    """Say what a model is: format, architecture, layer, preprocessing, digest. Looks at no data."""
    changes = _model_options(arch_arg, mean, std, input_size)
    arguments = changes.pop("arch_args")
    if format_ not in ("table", "json"):
        raise RequestError(f"expected --format of table, json; found {format_!r}")
    from gcaudit.audit import inspect_model
    from gcaudit.encoders import ModelRequest
    from gcaudit.report.listing import render_model

    changes |= {"crop_pct": crop_pct, "interpolation": interpolation}
    block = inspect_model(ModelRequest(model, arch, arguments, ema, allow_missing, layer, changes))
    write_out(block.model_dump_json(indent=2) + "\n" if format_ == "json" else render_model(block))


@app.command()
def metrics() -> None:
    """List the metrics: what they need, which way is better, and when two values may be compared."""
    from gcaudit.report.listing import render_metrics

    write_out(render_metrics())


@app.command()
def datasets() -> None:
    """List the data sets known by name: their splits, where they are looked for, and how to get them."""
    from gcaudit.data import KNOWN
    from gcaudit.report.listing import render_datasets

    write_out(render_datasets(KNOWN))


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        write_out(f"gcaudit {version('gcaudit')}\n")
        raise typer.Exit


@app.callback()
def _main_options(
    _version: Annotated[bool, typer.Option("--version", help="print the version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Hold the options of the program itself."""


def _run() -> int:
    try:
        result = app(prog_name="gcaudit", standalone_mode=False)
    except GcauditError as error:
        say(f"gcaudit: error: {error}")
        return error.exit_code
    except typer.Abort:
        say("gcaudit: aborted")
        return 2
    except KeyboardInterrupt:
        result = 130
    except Exception as error:
        # Typer brings its own copy of click in some versions, so that its errors are told by what they can do
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            _show_usage_error(error)
            return 2
        if os.environ.get("GCAUDIT_DEBUG"):
            raise
        text = " ".join(str(error).split())
        say(f"gcaudit: internal error: {type(error).__name__}: {text}; set GCAUDIT_DEBUG=1 for the traceback, and report it")
        return 3
    if result == 130:
        say("gcaudit: interrupted; nothing was written")
    return int(result) if isinstance(result, int) else 0


def _show_usage_error(error: Any) -> None:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "gcaudit"
    say(f"gcaudit: error: {' '.join(error.format_message().split())}; see {command} --help")


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 a gate failed, 2 wrong request, 3 could not be completed, 130 Ctrl-C."""
    warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    code = _run()
    if code == 130:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)

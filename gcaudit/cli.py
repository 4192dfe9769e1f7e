"""The command line: parse, call one function, print, exit."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from gcaudit.console import (
    GATE_FORMATS,
    check_writable,
    choose_format,
    deliver_verdicts,
    emit,
    progress_bar,
    render_gate,
    say,
    write_atomically,
    write_out,
)
from gcaudit.errors import GcauditError, RequestError
from gcaudit.heap import keep_freed_memory
from gcaudit.options import (
    DATA,
    GATE,
    GC,
    OUT,
    PROBE,
    RUN,
    AllowMismatch,
    AllowMissing,
    Arch,
    ArchArg,
    Baseline,
    CropPct,
    Device,
    Ema,
    Format,
    InputSize,
    Interpolation,
    Junit,
    Layer,
    MaxRegression,
    Mean,
    Model,
    Output,
    Quiet,
    Std,
    WhenUnsure,
    count,
    model_options,
    numbers,
    option,
)

app = typer.Typer(
    name="gcaudit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Audit pre-trained vision checkpoints for transfer: how simple and how collapsed is their embedding?",
)


@app.command()
def score(
    model: Model,
    source: Annotated[
        str, option("--source", "-s", panel=DATA, text="data the model was trained on: name, folder, parquet, hf:ID, disk:PATH")
    ],
    target: Annotated[str | None, option("--target", "-t", panel=DATA, text="data it will be used for")] = None,
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
    gate_: Annotated[
        list[str] | None, option("--gate", panel=GATE, text="rule or file of rules to judge by; repeatable", metavar="RULES")
    ] = None,
    baseline: Baseline = None,
    max_regression: MaxRegression = None,
    when_unsure: WhenUnsure = None,
    allow_mismatch: AllowMismatch = False,
    junit: Junit = None,
    save_evidence: Annotated[
        bool, option("--save-evidence", panel=OUT, text="keep energies and episodes beside -o FILE.json, to compare pairwise")
    ] = False,
    format_: Format = None,
    output: Output = None,
    quiet: Quiet = False,
) -> None:
    """Score a checkpoint: geometric complexity and collapse on the source, few-shot accuracy on the target."""
    name = choose_format(format_, output)
    if save_evidence and (output is None or name != "json" or output.suffix != ".json"):
        raise RequestError("expected --save-evidence with --output FILE.json, found no such file; add -o report.json")
    options: dict[str, Any] = model_options(arch_arg, mean, std, input_size) | {
        "n_shot": numbers(n_shot, "--n-shot", int),
        "n_query": count(n_query, "--n-query", "all"),
        "gc_images": count(gc_images, "--gc-images", "all"),
        "batch_size": count(batch_size, "--batch-size", "auto"),
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
        gc=gc_,
        gc_rtol=gc_rtol,
        vectors=vectors,
        target_gc=target_gc,
        input_space=input_space,
        n_way=n_way,
        episodes=episodes,
        ridge=ridge,
        device=device,
        precision=precision,
        compile=compile_,
        workers=workers,
        seed=seed,
        **options,
    )
    asked = None
    if gate_ or allow_mismatch or any(given is not None for given in (baseline, max_regression, when_unsure, junit)):
        asked = _gate_request(gate_ or [], baseline, max_regression, when_unsure, allow_mismatch, junit)
    report = run_audit(spec) if quiet else run_audit(spec, progress_bar)
    emit(report, name, output, quiet=quiet, keep_evidence=save_evidence)
    if asked is not None:
        from gcaudit.report.verdicts import render_verdicts

        result = asked.judge(report)
        say(render_verdicts(result).rstrip())
        _finish_gate(result, junit)


def _gate_request(
    texts: list[str],
    baseline: Path | None,
    max_regression: str | None,
    when_unsure: str | None,
    allow_mismatch: bool,
    junit: Path | None,
) -> Any:
    from gcaudit.gates import gate_request

    if junit is not None:
        check_writable(junit, "--junit")
    return gate_request(
        texts, baseline=baseline, max_regression=max_regression, when_unsure=when_unsure, allow_mismatch=allow_mismatch
    )


def _finish_gate(result: Any, junit: Path | None) -> None:
    deliver_verdicts(result, junit)
    if not result.passed:
        raise typer.Exit(1)


@app.command()
def gate(
    report: Annotated[Path, typer.Argument(metavar="REPORT", help="JSON from gcaudit score")],
    rule: Annotated[
        list[str] | None,
        option("--rule", "-r", panel=GATE, text="such as 'target.probe_accuracy >= 0.6'; repeatable", metavar="RULE"),
    ] = None,
    rules: Annotated[
        Path | None, option("--rules", panel=GATE, text="YAML file; else \\[tool.gcaudit.gate] of ./pyproject.toml", metavar="FILE")
    ] = None,
    baseline: Baseline = None,
    max_regression: MaxRegression = None,
    when_unsure: WhenUnsure = None,
    allow_mismatch: AllowMismatch = False,
    junit: Junit = None,
    format_: Annotated[str, option("--format", "-f", panel=OUT, text="table, json, junit or markdown")] = "table",
    output: Output = None,
) -> None:
    """Judge a report by rules and against the last release; exit code 1 when it fails."""
    if format_ not in GATE_FORMATS:
        raise RequestError(f"expected --format of {', '.join(GATE_FORMATS)}; found {format_!r}")
    if output is not None:
        check_writable(output)
    from gcaudit.report.schema import Report

    texts = [*(rule or []), *([str(rules)] if rules is not None else [])]
    asked = _gate_request(texts, baseline, max_regression, when_unsure, allow_mismatch, junit)
    result = asked.judge(Report.read(report))
    text = render_gate(result, format_)
    if output is None:
        write_out(text)
    else:
        write_atomically(output, text)
    _finish_gate(result, junit)


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
    format_: Annotated[str, option("--format", "-f", panel=OUT, text="table or json")] = "table",
) -> None:
    """Say what a model is: format, architecture, layer, preprocessing, digest. Looks at no data."""
    changes = model_options(arch_arg, mean, std, input_size)
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
            traceback.print_exc()
            return 3
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
    keep_freed_memory()
    gc.set_threshold(100_000)  # importing torch and timm makes many objects and hardly any garbage
    # a stream that the caller has closed is None
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the end
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    code = _run()
    if code == 130:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def program() -> None:
    """Be the program `gcaudit`: run the command line, then end the process without taking torch's modules apart, which takes a second."""
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a reader that left early has seen what it wanted
            stream.flush()
    os._exit(code)

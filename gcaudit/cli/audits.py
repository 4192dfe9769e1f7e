"""Commands on one checkpoint: score, gate, power, demo, inspect."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gcaudit.audit import DATA, RUN, options_under
from gcaudit.cli.app import command
from gcaudit.cli.console import (
    check_writable,
    choose_format,
    is_file_place,
    keep_apart,
    stdout_kept,
    stdout_paper,
    write_output,
    write_report,
    write_stderr,
    write_stdout,
    write_verdicts,
)
from gcaudit.cli.options import (
    GATE,
    OUT,
    AllowMismatch,
    Baseline,
    Format,
    Junit,
    MaxRegression,
    Model,
    NoWarnings,
    Output,
    ProjectRules,
    Quiet,
    Strict,
    WhenUnsure,
    option,
    takes,
)
from gcaudit.errors import RequestError
from gcaudit.progress import progress_bar
from gcaudit.render import GATE_FORMATS, LIST_FORMATS

if TYPE_CHECKING:
    from gcaudit.gate import GateRequest, GateResult


@command()
@takes()
def score(
    model: Model,
    source: Annotated[
        str | None,
        option(
            "--source",
            "-s",
            panel=DATA,
            text="data the model was trained on: name, folder, parquet, hf:ID, disk:PATH",
            unset="that of --config, else required",
        ),
    ] = None,
    target: Annotated[
        str | None, option("--target", "-t", panel=DATA, text="data it will be used for", unset="that of --config, else none")
    ] = None,
    config: Annotated[
        Path | None,
        option(
            "--config",
            panel=RUN,
            text="YAML, or TOML with \\[tool.gcaudit.score], of options; typed ones win",
            metavar="FILE",
            unset="./pyproject.toml, where it has that table",
        ),
    ] = None,
    project_options: Annotated[
        bool, option("--project-options/--no-project-options", panel=RUN, text="take options of ./pyproject.toml without --config")
    ] = True,
    *,
    options: dict[str, Any],
    gate_: Annotated[
        list[str] | None,
        option("--gate", panel=GATE, text="rule or file of rules to judge by; repeatable", metavar="RULES", unset="none"),
    ] = None,
    baseline: Baseline = None,
    max_regression: MaxRegression = None,
    when_unsure: WhenUnsure = None,
    allow_mismatch: AllowMismatch = False,
    no_warnings: NoWarnings = False,
    project_rules: ProjectRules = True,
    junit: Junit = None,
    save_evidence: Annotated[
        bool,
        option(
            "--save-evidence", panel=OUT, text="keep energies and episodes beside -o FILE.json, to compare pairwise", unset="off"
        ),
    ] = False,
    strict: Strict = False,
    format_: Format = None,
    output: Output = None,
    quiet: Quiet = False,
) -> None:
    """Score a checkpoint: geometric complexity and collapse on the source, few-shot accuracy on the target."""
    name = choose_format(format_, output)
    if save_evidence and (output is None or name != "json" or output.suffix != ".json"):
        raise RequestError("expected --save-evidence with --output FILE.json, found no such file; add -o report.json")
    if save_evidence and output is not None:
        from gcaudit.report import evidence_path

        check_writable(evidence_path(output), "--save-evidence")
    from gcaudit.audit import AuditSpec, run_audit

    typed = options | {role: data for role, data in (("source", source), ("target", target)) if data is not None}
    given = _with_file(typed, config, project=project_options, quiet=quiet)
    spec = AuditSpec.from_options(model, **given)
    read = [("MODEL", model), ("--source", spec.source.spec), ("--target", spec.target.spec)]
    rules: list[tuple[str, Any]] = [("--config", config), ("--baseline", baseline), *(("--gate", text) for text in gate_ or ())]
    keep_apart([*read, *rules, *_evidence_of(baseline)], (("--output", output), ("--junit", junit)))
    asked = None
    if gate_ or allow_mismatch or no_warnings or any(given is not None for given in (baseline, max_regression, when_unsure, junit)):
        asked = _gate_request(
            gate_ or [],
            junit,
            baseline=baseline,
            max_regression=max_regression,
            when_unsure=when_unsure,
            allow_mismatch=allow_mismatch,
            no_warnings=no_warnings,
            project=project_rules,
            option="--gate",
        )
        asked.foresee(spec.to_options(), spec.roles)
    with stdout_kept():
        report = run_audit(spec, strict=strict) if quiet else run_audit(spec, progress_bar, strict=strict)
    write_report(report, name, output, quiet=quiet, keep_evidence=save_evidence)
    if asked is not None:
        result = asked.judge(report)
        _show_verdicts(result)
        _finish_gate(result, junit)


def _with_file(typed: dict[str, Any], config: Path | None, *, project: bool, quiet: bool) -> dict[str, Any]:
    """Add the options of a file to those that were typed."""
    from gcaudit.audit import expand_shorthands
    from gcaudit.zoo import OptionFile, project_options, read_option_file

    file = read_option_file(config) if config is not None else project_options(Path()) if project else OptionFile()
    if file.options and not quiet:
        write_stderr(f"gcaudit: {file.told}")
    found = dict(file.options) | expand_shorthands(typed)
    if "source" not in found:
        raise RequestError(
            "expected --source DATA, the data the model was trained on, found none; add --source cifar10 or a folder"
        )
    return found


def _gate_request(texts: list[str], junit: Path | None, **asked: Any) -> GateRequest:
    from gcaudit.gate import gate_request

    if junit is not None:
        check_writable(junit, "--junit")
    return gate_request(texts, **asked)


def _evidence_of(report: Path | None) -> list[tuple[str, Path]]:
    """Name what lies beside a report, as what is read with it."""
    from gcaudit.report import evidence_path

    return [] if report is None else [("the evidence beside a report", evidence_path(report))]


def _show_verdicts(result: GateResult) -> None:
    """Write verdicts to stderr, where stdout or a file has another text."""
    from gcaudit.render import paper_of, render_verdicts

    write_stderr(render_verdicts(result, paper_of(terminal=sys.stderr.isatty())).rstrip(), command=True)


def _finish_gate(result: GateResult, junit: Path | None) -> None:
    write_verdicts(result, junit)
    if not result.passed:
        raise typer.Exit(1)


@command()
def gate(
    report: Annotated[Path, typer.Argument(metavar="REPORT", help="JSON from gcaudit score")],
    rule: Annotated[
        list[str] | None,
        option("--rule", "-r", panel=GATE, text="such as 'target.probe_accuracy >= 0.6'; repeatable", metavar="RULE", unset="none"),
    ] = None,
    rules: Annotated[
        list[Path] | None,
        option(
            "--rules",
            panel=GATE,
            text="YAML file, beside \\[tool.gcaudit.gate] of ./pyproject.toml; repeatable",
            metavar="FILE",
            unset="none",
        ),
    ] = None,
    baseline: Baseline = None,
    max_regression: MaxRegression = None,
    when_unsure: WhenUnsure = None,
    allow_mismatch: AllowMismatch = False,
    no_warnings: NoWarnings = False,
    project_rules: ProjectRules = True,
    junit: Junit = None,
    format_: Annotated[
        str | None,
        option("--format", "-f", panel=OUT, text="table, json, junit or markdown", unset="as --output's suffix says, else table"),
    ] = None,
    output: Output = None,
) -> None:
    """Judge a report by rules and against the last release; exit code 1 when it fails."""
    name = choose_format(format_, output, GATE_FORMATS)
    typed = (("--rule", text) for text in rule or ())
    files = (("REPORT", report), ("--baseline", baseline), *typed, *(("--rules", path) for path in rules or ()))
    keep_apart([*files, *_evidence_of(report), *_evidence_of(baseline)], (("--output", output), ("--junit", junit)))
    from gcaudit.render import render_gate
    from gcaudit.report import Report

    found = Report.read(report, evidence=baseline is not None)
    asked = _gate_request(
        [*(rule or []), *map(str, rules or [])],
        junit,
        baseline=baseline,
        max_regression=max_regression,
        when_unsure=when_unsure,
        allow_mismatch=allow_mismatch,
        no_warnings=no_warnings,
        project=project_rules,
    )
    result = asked.judge(found)
    write_output(render_gate(result, name, stdout_paper(output)), output)
    if name != "table" or (output is not None and is_file_place(output)):
        _show_verdicts(result)
    _finish_gate(result, junit)


@command()
def power(
    report: Annotated[Path, typer.Argument(metavar="REPORT", help="JSON from gcaudit score")],
    baseline: Annotated[
        Path | None,
        option(
            "--baseline",
            "-b",
            panel=GATE,
            text="report of another model on the same images, with its evidence",
            metavar="REPORT",
            unset="none, as if images were drawn anew",
        ),
    ] = None,
    format_: Format = None,
    output: Output = None,
) -> None:
    """Say how many images or episodes a gate needs to see a change of 1%, 2% or 5%."""
    name = choose_format(format_, output)
    files = (("REPORT", report), ("--baseline", baseline), *_evidence_of(report), *_evidence_of(baseline))
    keep_apart(files, (("--output", output),))
    from gcaudit.gate import power_rows
    from gcaudit.render import render_power
    from gcaudit.report import Report

    rows = power_rows(Report.read(report, evidence=baseline is not None), None if baseline is None else Report.read(baseline))
    write_output(render_power(rows, name, stdout_paper(output)), output)


@command()
def demo(
    device: Annotated[str, option("--device", panel=RUN, text="auto, cpu, cuda, cuda:1, ...")] = "cpu",
    format_: Format = None,
    output: Output = None,
    quiet: Quiet = False,
) -> None:
    """Score a bundled checkpoint on bundled images: offline, in seconds."""
    name = choose_format(format_, output)
    from gcaudit.audit import AuditSpec, run_audit

    spec = AuditSpec.from_options("demo", "demo", "demo", device=device)
    with stdout_kept():
        report = run_audit(spec) if quiet else run_audit(spec, progress_bar)
    write_report(report, name, output, quiet=quiet)
    if not quiet:
        write_stderr(
            "gcaudit: on your own files: gcaudit score model.ckpt --arch timm:resnet18 --source train_images/ --target my_images/"
        )


@command()
@takes(options_under("model"))
def inspect(
    model: Model,
    *,
    options: dict[str, Any],
    layers: Annotated[
        bool, option("--layers", panel=OUT, text="list the layers that --layer can name, with what they give", unset="off")
    ] = False,
    format_: Annotated[str, option("--format", "-f", panel=OUT, text="table or json")] = "table",
) -> None:
    """Say what a model is: format, architecture, layer, preprocessing, digest. Looks at no data."""
    choose_format(format_, None, LIST_FORMATS)
    from gcaudit.audit import inspect_layers, inspect_model, model_request
    from gcaudit.render import render_layers, render_model

    paper = stdout_paper()
    if layers:
        with stdout_kept():
            found, warnings = inspect_layers(model_request(model, **options))
        text = json.dumps([asdict(layer) for layer in found], indent=2) + "\n" if format_ == "json" else render_layers(found, paper)
    else:
        with stdout_kept():
            block, warnings = inspect_model(model_request(model, **options))
        text = block.model_dump_json(indent=2) + "\n" if format_ == "json" else render_model(block, paper)
    write_stdout(text)
    for line in warnings:
        write_stderr(f"gcaudit: warning: {line}")

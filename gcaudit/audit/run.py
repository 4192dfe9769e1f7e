"""AuditSpec -> Report: the whole job, in the order in which it can fail cheaply."""

from __future__ import annotations

import shlex
import time
import warnings
from collections.abc import Sequence
from typing import Any

from gcaudit.audit.block import Block
from gcaudit.audit.blocks import assemble_report, make_block, model_block, used_settings
from gcaudit.audit.held_out import open_held_out, takes_held_out, with_held_out
from gcaudit.audit.options import OPTIONS
from gcaudit.audit.spec import AuditSpec
from gcaudit.data import ImageSet, Overview, open_data, overview
from gcaudit.encoders import Layer, ModelRequest, list_layers, load_encoder
from gcaudit.errors import DataError, GcauditWarning, RequestError, shorten
from gcaudit.metrics import Role
from gcaudit.passes import Runner, observe, resolve_device
from gcaudit.progress import ProgressBar, no_bar
from gcaudit.report import ModelBlock, Report, ReportWarning, warn


def check_request(spec: AuditSpec) -> None:
    """Check what can be checked without opening a file.

    Args:
        spec: what is asked.

    Raises:
        RequestError: no such device, or nothing could be measured.
    """
    resolve_device(spec.run.device)
    if spec.target.spec is None and not spec.chosen_metrics("source"):
        raise RequestError(f"expected --target for {shorten(spec.metrics or ())}, found none; add --target DATA")


def check_target(spec: AuditSpec, target: ImageSet) -> tuple[ReportWarning, ...]:
    """Check that the target has images for the probe's episodes.

    Args:
        spec: what is asked.
        target: the images.

    Returns:
        What the report should say.

    Raises:
        DataError: too few classes, or too few images of one.
    """
    if any(metric.episodes for metric in spec.chosen_metrics("target")):
        try:
            return tuple(warn("episodes", line) for line in spec.probe.check(target.counts, target.class_names))
        except DataError as error:
            if spec.target.max_images is None:
                raise
            raise DataError(f"{error}, or raise --target-max-images above {spec.target.max_images}") from None
    return ()


def refuse_warnings(said: Sequence[ReportWarning]) -> None:
    """Make an error of warnings.

    Args:
        said: by a report, or by a part of one.

    Raises:
        RequestError: there are any.
    """
    if said:
        more = f" (and {len(said) - 1} more warnings)" if len(said) > 1 else ""
        raise RequestError(f"{said[0]}{more}; leave --strict out to go on")


def run_audit(spec: AuditSpec, progress: ProgressBar = no_bar, *, strict: bool = False) -> Report:
    """Carry out an audit.

    Args:
        spec: what is asked.
        progress: opens a progress bar of a title and a number of images.
        strict: refuse what would be a warning, as soon as it is known.

    Returns:
        The report.

    Raises:
        GcauditError: something asked for is wrong, or the audit could not be completed.
    """
    began = time.perf_counter()
    check_request(spec)
    source = open_data(spec.source)
    target = open_data(spec.target) if "target" in spec.roles else None
    if takes_held_out(spec, "source"):
        open_held_out(spec, source)  # what is wrong with it is told before the pass
    said = [warning.about("source") for warning in source.warnings]
    if target is not None:
        said += [*(warning.about("target") for warning in target.warnings), *check_target(spec, target)]
    encoder = load_encoder(spec.model)
    if strict:
        refuse_warnings((*encoder.warnings, *said))
    runner = Runner(encoder, spec.run)
    on_source = observe_block(spec, "source", source, runner, progress)
    if strict:
        refuse_warnings(on_source.warnings)
    on_target = None if target is None else observe_block(spec, "target", target, runner, progress)
    model = model_block(encoder, spec.run.input_space)
    seconds = time.perf_counter() - began
    report = assemble_report(
        spec,
        model,
        on_source,
        on_target,
        warnings=(*said, *encoder.warnings),
        seconds=seconds,
        target_images=target,
    )
    if strict:
        refuse_warnings(report.warnings)
    return report


def observe_block(spec: AuditSpec, role: Role, images: ImageSet, runner: Runner, progress: ProgressBar = no_bar) -> Block:
    """Run a data set through a model and measure it.

    Args:
        spec: what is asked.
        role: of the data set.
        images: the data set.
        runner: the model.
        progress: opens a progress bar.

    Returns:
        The block.

    Raises:
        GcauditError: the pass could not be completed.
    """
    with progress(f"{role} {images.spec}", len(images.labels)) as advance:
        observation = observe(runner, images, spec.pass_settings(role), advance)
    if takes_held_out(spec, role):
        observation = with_held_out(spec, images, observation, runner, progress)
    return make_block(spec, role, images, observation, used_settings(runner, observation))


def inspect_model(request: ModelRequest) -> tuple[ModelBlock, tuple[ReportWarning, ...]]:
    """Say what a model is, without looking at any data.

    Args:
        request: which, and how.

    Returns:
        The report's block on the model, and what a report would say of it.

    Raises:
        GcauditError: the file, the architecture or their match is wrong.
    """
    encoder = load_encoder(request)
    return model_block(encoder), encoder.warnings


def look_at_data(data: Any, **options: Any) -> Overview:
    """Say what a data set is, without a model.

    Args:
        data: as the source of an audit.
        options: those of the source.

    Returns:
        Classes, counts, sizes of pictures, the first rows, and what to type.

    Raises:
        GcauditError: it is missing or unreadable, or an option is unknown.
    """
    spec = AuditSpec.from_options("demo", data, **options)
    typed = [
        f" {option.flag}" + ("" if option.kind == "flag" else f" {shlex.quote(str(options[option.name]))}")
        for option in OPTIONS
        if option.name in options and option.name != "source_split"
    ]
    return overview(open_data(spec.source), "".join(typed))


def inspect_layers(request: ModelRequest) -> tuple[list[Layer], tuple[ReportWarning, ...]]:
    """List the layers that `--layer` can name.

    Args:
        request: which model, and how.

    Returns:
        All of them, with what they give for one image, and what a report would say of the model.

    Raises:
        GcauditError: the file, the architecture or their match is wrong.
    """
    encoder = load_encoder(request)
    return list_layers(encoder), encoder.warnings


def score(model: Any, source: Any, target: Any = None, *, strict: bool = False, **options: Any) -> Report:
    """Audit a model for transfer.

    Args:
        model: a `torch.nn.Module`, a path, `timm:NAME`, `hf-hub:ORG/REPO` or `torchvision:NAME`. A module is copied; its attribute
            `pretrained_cfg` (timm's convention) says its preprocessing.
        source: what it was trained on: (images, labels), a Dataset, a DataLoader of one, or a data spec. Tensors are pixels of
            the right size in [0, 1], before normalisation.
        target: what it will be used for, in the same forms.
        strict: refuse what would be a warning.
        options: named as on the command line (`n_shot=(1, 5)`, `gc="exact"`, `seed=1`, ...).

    Returns:
        The report; its warnings also come as `GcauditWarning`.

    Raises:
        GcauditError: something asked for is wrong, or the audit could not be completed.

    Example:
        >>> report = score("timm:resnet18", source="cifar10", target="photos/")  # doctest: +SKIP
        >>> report.source.metrics["cdnv"].value  # doctest: +SKIP
    """
    report = run_audit(AuditSpec.from_options(model, source, target, **options), strict=strict)
    for line in report.warnings:
        warnings.warn(str(line), GcauditWarning, stacklevel=2)
    return report

"""A block: one model looked at with one data set. A report is put together of one or two."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from gcaudit.audit.block import Block
from gcaudit.audit.checks import head_warnings
from gcaudit.audit.shared import repeated_warnings, shared_warnings
from gcaudit.audit.spec import AuditSpec
from gcaudit.data import ImageSet
from gcaudit.encoders import Encoder
from gcaudit.geometry import Estimate, summarise_classes
from gcaudit.metrics import Role, measure_evidence
from gcaudit.passes import Observation, Runner
from gcaudit.report import (
    SCHEMA,
    DataBlock,
    MetricValue,
    ModelBlock,
    PreprocessingBlock,
    Report,
    ReportEvidence,
    ReportWarning,
    Timing,
)


def model_block(encoder: Encoder, input_space: str = "pixel") -> ModelBlock:
    """Describe a model for the report.

    Args:
        encoder: the model.
        input_space: what the Jacobian is taken with respect to.

    Returns:
        The report's block on the model.
    """
    preprocessing = encoder.preprocessing
    checkpoint = encoder.checkpoint
    return ModelBlock(
        spec=encoder.spec,
        arch=encoder.arch,
        sha256=encoder.sha256,
        format=checkpoint.format if checkpoint else None,
        container=checkpoint.container if checkpoint else None,
        other_containers=checkpoint.other_containers if checkpoint else (),
        layer=encoder.tap.name,
        embedding=encoder.tap.describe(),
        embedding_dim=encoder.dim,
        parameters=encoder.parameters,
        preprocessing=PreprocessingBlock(
            input_size=preprocessing.input_size,
            mean=preprocessing.mean,
            std=preprocessing.std,
            interpolation=preprocessing.interpolation,
            crop_pct=preprocessing.crop_pct,
            crop_mode=preprocessing.crop_mode,
            input_space=input_space,  # type: ignore[arg-type]
            origin=preprocessing.origin,
            assumed=preprocessing.assumed,
        ),
    )


def used_settings(runner: Runner, observation: Observation) -> dict[str, Any]:
    """Say how a pass was run.

    Args:
        runner: that ran it.
        observation: what came of it.

    Returns:
        Entries of the report's settings.
    """
    on_gpu = observation.device.startswith("cuda")
    return {
        "device": observation.device,
        "device_name": torch.cuda.get_device_name(observation.device) if on_gpu else "cpu",
        "batch_size": observation.batch_size,
        "folded_batch_norms": runner.folded,
        "memory_format": str(runner.layout).removeprefix("torch."),
        "torch": torch.__version__,
        "timm": version("timm"),
    }


def make_block(spec: AuditSpec, role: Role, images: ImageSet, observation: Observation, used: Mapping[str, Any]) -> Block:
    """Measure what was observed.

    Args:
        spec: what is asked.
        role: of the data set.
        images: the data set.
        observation: of these images.
        used: how the pass was run.

    Returns:
        The block.
    """
    evidence = observation.evidence
    estimates = measure_evidence(evidence, spec.chosen_metrics(role), spec.probe)
    data = DataBlock(
        spec=images.spec,
        split=images.split,
        classes=evidence.classes,
        images=evidence.images,
        class_names=images.class_names,
        fingerprint=evidence.fingerprint,
        left_alone=observation.left_alone,
        columns=images.columns,
        metrics={name: metric_value(estimate) for name, estimate in estimates.items()},
    )
    head = head_warnings(evidence) if role == "source" else []  # the target's classes need not be the head's
    digests = observation.digests.numpy()
    whole = len(images.labels) == len(digests)  # none was left out
    repeated = repeated_warnings(digests, evidence.labels.numpy(), images.where if whole else None)
    return Block(
        role=role,
        data=data,
        evidence=_role_evidence(role, observation, estimates),
        digests=digests,
        perceptual=observation.perceptual[:].numpy(),
        family=images.family,
        warnings=tuple(warning.about(role) for warning in (*observation.warnings, *repeated, *head)),
        used=used,
        seconds=observation.seconds,
        decode_seconds=observation.decode_seconds,
        summary=summarise_classes(evidence) if spec.across else None,
    )


def _role_evidence(role: Role, observation: Observation, estimates: Mapping[str, Estimate]) -> ReportEvidence:
    influences, episodes, draws = {}, {}, {}
    for name, estimate in estimates.items():
        points = {f"{role}.{name}": estimate}
        for point in estimate.details.get("curve", (estimate,)):
            shot = point.details.get("n_shot")
            if shot is not None:
                points[f"{role}.{name}@{shot}"] = point
                pool = point.given_pool
                if pool is not None and pool.influence is not None:
                    scale = (pool.n * (pool.n - 1)) ** 0.5
                    draws[f"{role}.episode_accuracies@{shot}"] = pool.value + scale * pool.influence.numpy()
        for key, point in points.items():
            if point.influence is not None:
                influences[key] = point.influence.numpy()
            if point.given_pool is not None and point.given_pool.influence is not None:
                episodes[key] = point.given_pool.influence.numpy()
    evidence = observation.evidence
    if evidence.energies is not None and evidence.energy_rows is not None:
        draws[f"{role}.energies"] = evidence.energies.numpy()
        draws[f"{role}.energy_images"] = evidence.energy_rows.numpy()
    return ReportEvidence(influences, draws, episodes)


def metric_value(estimate: Estimate) -> MetricValue:
    """Put an estimate into the report's form.

    Args:
        estimate: as measured.

    Returns:
        The same numbers.
    """
    details = dict(estimate.details)
    curve = details.pop("curve", None)
    pool = estimate.given_pool
    return MetricValue(
        value=estimate.value,
        stderr=estimate.stderr,
        ci95=estimate.ci95,
        n=estimate.n,
        reason=estimate.reason,
        pool_stderr=None if pool is None else pool.stderr,
        pool_ci95=None if pool is None else pool.ci95,
        curve=None if curve is None else tuple(metric_value(point) for point in curve),
        **details,
    )


def assemble_report(
    spec: AuditSpec,
    model: ModelBlock,
    source: Block,
    target: Block | None = None,
    *,
    warnings: tuple[ReportWarning, ...],
    seconds: float,
    target_images: ImageSet | None = None,
) -> Report:
    """Put a report together.

    Args:
        spec: what was asked.
        model: the model.
        source: measured on the source.
        target: measured on the target, or None.
        warnings: about the model and the data sets.
        seconds: how long it took in all.
        target_images: the target's images, to name those that the source has too.

    Returns:
        The report, with the blocks' evidence.
    """
    blocks = (source,) if target is None else (source, target)
    lines = [*warnings, *(line for block in blocks for line in block.warnings)]
    if target is not None:
        whole = target_images is not None and len(target_images.labels) == len(target.digests)  # none was left out
        lines += shared_warnings(source, target, target_images.where if target_images is not None and whole else None)
    images, passes, waited = (
        sum(values) for values in zip(*((b.data.images, b.seconds, b.decode_seconds) for b in blocks), strict=True)
    )
    report = Report(
        schema=SCHEMA,
        gcaudit=version("gcaudit"),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        model=model,
        settings=_asked(spec) | dict(source.used),
        source=source.data,
        target=None if target is None else _with_across(spec, source, target),
        warnings=tuple(dict.fromkeys(lines)),
        timing=Timing(images_per_second=images / passes, seconds=seconds, decode_seconds=waited, decode_share=waited / passes),
    )
    influences = {key: values for block in blocks for key, values in block.evidence.influences.items()}
    draws = {key: values for block in blocks for key, values in block.evidence.draws.items()}
    episodes = {key: values for block in blocks for key, values in block.evidence.episodes.items()}
    return report.with_evidence(ReportEvidence(influences, draws, episodes))


def _with_across(spec: AuditSpec, source: Block, target: Block) -> DataBlock:
    """Add what sets the target's classes beside the source's."""
    if source.summary is None or target.summary is None:
        return target.data
    found = {metric.name: metric_value(metric.measure_across(source.summary, target.summary)) for metric in spec.across}
    return target.data.model_copy(update={"metrics": {**target.data.metrics, **found}})


_ELSEWHERE = ("mean", "std", "input_size", "crop_pct", "interpolation", "input_space", "source_split", "target_split")


def _asked(spec: AuditSpec) -> dict[str, Any]:
    """List what was asked and is in no other part of the report."""
    return {name: _plain(value) for name, value in spec.to_options().items() if name not in _ELSEWHERE}


def _plain(value: Any) -> Any:
    """Keep what JSON can hold; anything else by its repr."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else repr(value)

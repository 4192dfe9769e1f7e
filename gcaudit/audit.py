"""AuditSpec -> Report: the whole job, in the order in which it can fail cheaply."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from gcaudit.data import ImageSet, open_data
from gcaudit.encoders import Encoder, ModelRequest, load_encoder
from gcaudit.errors import RequestError, shorten
from gcaudit.geometry.estimate import Estimate
from gcaudit.metrics import Role, measure_evidence
from gcaudit.observe import Observation, observe
from gcaudit.report.evidence import ReportEvidence
from gcaudit.report.schema import DataBlock, MetricValue, ModelBlock, PreprocessingBlock, Report, Timing
from gcaudit.runner import Runner, resolve_device
from gcaudit.spec import AuditSpec

ProgressBar = Callable[[str, int], AbstractContextManager[Callable[[int], None] | None]]


def _no_bar(_title: str, _total: int) -> AbstractContextManager[None]:
    return nullcontext()


def run_audit(spec: AuditSpec, progress: ProgressBar = _no_bar) -> Report:
    """Carry out an audit.

    Args:
        spec: what is asked.
        progress: opens a progress bar of a title and a number of images.

    Returns:
        The report.

    Raises:
        GcauditError: something asked for is wrong, or the audit could not be completed.
    """
    began = time.perf_counter()
    resolve_device(spec.device)
    if spec.target is None and not spec.chosen_metrics("source"):
        raise RequestError(f"expected --target for {shorten(spec.metrics or ())}, found none; add --target DATA")
    source = open_data(spec.data_request("source"))
    target = None if spec.target is None else open_data(spec.data_request("target"))
    warnings: list[str] = []
    if target is not None and any(metric.name == "probe_accuracy" for metric in spec.chosen_metrics("target")):
        warnings += spec.probe().check(target.counts, target.class_names)
    encoder = load_encoder(spec.model_request())
    warnings += encoder.warnings
    runner = Runner(encoder, spec.run_settings())
    seen: dict[Role, Observation] = {}
    blocks: dict[Role, DataBlock] = {}
    kept: list[ReportEvidence] = []
    chosen: tuple[tuple[Role, ImageSet | None], ...] = (("source", source), ("target", target))
    for role, images in chosen:
        if images is None:
            continue
        with progress(f"{role} {images.spec}", len(images.labels)) as advance:
            seen[role] = observe(runner, images, spec.pass_settings(role), advance)
        warnings += [f"{role}: {line}" for line in seen[role].warnings]
        estimates = measure_evidence(seen[role].evidence, spec.chosen_metrics(role), spec.probe())
        blocks[role] = _data_block(images, seen[role], estimates)
        kept.append(_role_evidence(role, seen[role], estimates))
    if target is not None:
        warnings += _overlap(source, target, seen["source"], seen["target"])
    images_seen = sum(observation.evidence.images for observation in seen.values())
    report = Report(
        schema="gcaudit.report/1",
        gcaudit=version("gcaudit"),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        model=_model_block(encoder, spec),
        settings=_settings(spec, seen, runner),
        source=blocks["source"],
        target=blocks.get("target"),
        warnings=tuple(dict.fromkeys(warnings)),
        timing=Timing(
            images_per_second=images_seen / sum(observation.seconds for observation in seen.values()),
            seconds=time.perf_counter() - began,
        ),
    )
    influences = {key: values for part in kept for key, values in part.influences.items()}
    return report.with_evidence(ReportEvidence(influences, {key: values for part in kept for key, values in part.draws.items()}))


def _role_evidence(role: Role, observation: Observation, estimates: Mapping[str, Estimate]) -> ReportEvidence:
    influences, draws = {}, {}
    for name, estimate in estimates.items():
        if estimate.influence is not None:
            influences[f"{role}.{name}"] = estimate.influence.numpy()
        for point in estimate.details.get("curve", (estimate,)):
            shot = point.details.get("n_shot")
            if shot is not None and point.influence is not None:
                influences[f"{role}.{name}@{shot}"] = point.influence.numpy()
                scale = (point.n * (point.n - 1)) ** 0.5
                draws[f"{role}.episode_accuracies@{shot}"] = point.value + scale * point.influence.numpy()
    evidence = observation.evidence
    if evidence.energies is not None and evidence.energy_rows is not None:
        draws[f"{role}.energies"] = evidence.energies.numpy()
        draws[f"{role}.energy_images"] = evidence.energy_rows.numpy()
    return ReportEvidence(influences, draws)


def _model_block(encoder: Encoder, spec: AuditSpec) -> ModelBlock:
    preprocessing = encoder.preprocessing
    block = PreprocessingBlock(
        input_size=preprocessing.input_size,
        mean=preprocessing.mean,
        std=preprocessing.std,
        interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop_pct,
        crop_mode=preprocessing.crop_mode,
        input_space=spec.input_space,  # type: ignore[arg-type]
        origin=preprocessing.origin,
        assumed=preprocessing.assumed,
    )
    checkpoint = encoder.checkpoint
    return ModelBlock(
        spec=encoder.spec,
        arch=encoder.arch,
        sha256=encoder.sha256,
        format=checkpoint.format if checkpoint else None,
        container=checkpoint.container if checkpoint else None,
        other_containers=checkpoint.other_containers if checkpoint else (),
        layer=encoder.tap.layer,
        embedding=encoder.tap.describe(),
        embedding_dim=encoder.dim,
        parameters=encoder.parameters,
        preprocessing=block,
    )


def inspect_model(request: ModelRequest) -> ModelBlock:
    """Say what a model is, without looking at any data.

    Args:
        request: which, and how.

    Returns:
        The report's block on the model.

    Raises:
        GcauditError: the file, the architecture or their match is wrong.
    """
    return _model_block(load_encoder(request), AuditSpec(model=request.spec, source=""))


def metric_value(estimate: Estimate) -> MetricValue:
    """Put an estimate into the report's form.

    Args:
        estimate: as measured.

    Returns:
        The same numbers.
    """
    details = dict(estimate.details)
    curve = details.pop("curve", None)
    return MetricValue(
        value=estimate.value,
        stderr=estimate.stderr,
        ci95=estimate.ci95,
        n=estimate.n,
        reason=estimate.reason,
        curve=None if curve is None else tuple(metric_value(point) for point in curve),
        **details,
    )


def _data_block(images: ImageSet, observation: Observation, estimates: Mapping[str, Estimate]) -> DataBlock:
    return DataBlock(
        spec=images.spec,
        split=images.split,
        classes=observation.evidence.classes,
        images=observation.evidence.images,
        class_names=images.class_names,
        fingerprint=observation.evidence.fingerprint,
        metrics={name: metric_value(estimate) for name, estimate in estimates.items()},
    )


_NOT_SETTINGS = frozenset(
    (
        "model",
        "source",
        "target",
        "source_split",
        "target_split",
        "mean",
        "std",
        "input_size",
        "crop_pct",
        "interpolation",
        "input_space",
    )
)


def _plain(value: Any) -> Any:
    """Keep what JSON can hold; anything else by its repr."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def _settings(spec: AuditSpec, seen: dict[Role, Observation], runner: Runner) -> dict[str, Any]:
    asked = {f.name: _plain(getattr(spec, f.name)) for f in dataclasses.fields(spec) if f.name not in _NOT_SETTINGS}
    used = seen["source"]
    return asked | {
        "device": used.device,
        "device_name": torch.cuda.get_device_name(used.device) if used.device.startswith("cuda") else "cpu",
        "batch_size": used.batch_size,
        "folded_batch_norms": runner.folded,
        "memory_format": str(runner.layout).removeprefix("torch."),
        "torch": torch.__version__,
        "timm": version("timm"),
    }


def _overlap(source: ImageSet, target: ImageSet, on_source: Observation, on_target: Observation) -> list[str]:
    found = []
    shared = [name for name in target.class_names if name in set(source.class_names)] if source.family == target.family else []
    if shared:
        found.append(
            f"source and target share {len(shared)} classes ({shorten(shared, 3)}): "
            "few-shot accuracy on classes the model was trained on is not transfer"
        )
    shared_images = _shared_rows(on_source.digests, on_target.digests)
    if shared_images:
        found.append(f"source and target share {shared_images} images: accuracy on images the model was trained on is not transfer")
    return found


def _shared_rows(a: Tensor, b: Tensor) -> int:
    """Count the distinct rows that two tables of bytes share."""
    distinct = [torch.unique(table.contiguous().view(torch.int64), dim=0) for table in (a, b)]
    return sum(len(table) for table in distinct) - len(torch.unique(torch.cat(distinct), dim=0))


def score(model: Any, source: Any, target: Any = None, **options: Any) -> Report:
    """Audit a model for transfer.

    Args:
        model: a `torch.nn.Module`, a path, `timm:NAME`, `hf-hub:ORG/REPO` or `torchvision:NAME`. A module is copied; its attribute
            `pretrained_cfg` (timm's convention) says its preprocessing.
        source: what it was trained on: (images, labels), a Dataset, a DataLoader of one, or a data spec. Tensors are pixels of
            the right size in [0, 1], before normalisation.
        target: what it will be used for, in the same forms.
        options: fields of `AuditSpec`, named as on the command line (`n_shot=(1, 5)`, `gc="exact"`, `seed=1`, ...).

    Returns:
        The report.

    Raises:
        GcauditError: something asked for is wrong, or the audit could not be completed.

    Example:
        >>> report = score("timm:resnet18", source="cifar10", target="photos/")  # doctest: +SKIP
        >>> report.source.metrics["cdnv"].value  # doctest: +SKIP
    """
    known = [field.name for field in dataclasses.fields(AuditSpec)]
    for name in options:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            raise RequestError(
                f"expected an option of an audit, found {name!r}; {f'did you mean {close[0]}?' if close else 'see AuditSpec'}"
            )
    return run_audit(AuditSpec(model=model, source=source, target=target, **options))

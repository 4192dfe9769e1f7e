"""AuditSpec -> Report: the whole job, in the order in which it can fail cheaply."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.metadata import version
from typing import Any, final

import torch

from gcaudit.data import DataRequest, ImageSet, open_data
from gcaudit.encoders import Encoder, ModelRequest, load_encoder
from gcaudit.errors import RequestError, shorten
from gcaudit.geometry.estimate import Estimate
from gcaudit.geometry.jacobian import ESTIMATORS
from gcaudit.geometry.ridge import ProbeSettings
from gcaudit.metrics import Metric, Role, find_metrics, measure_evidence
from gcaudit.observe import INPUT_SPACES, PRECISIONS, Observation, PassSettings, observe, resolve_device
from gcaudit.report.schema import DataBlock, MetricValue, ModelBlock, PreprocessingBlock, Report, Timing

ProgressBar = Callable[[str, int], AbstractContextManager[Callable[[int], None] | None]]


@final
@dataclass(frozen=True)
class AuditSpec:
    """Everything that can be asked of an audit; each field is the command line's option of that name.

    Attributes:
        model: path, `timm:NAME[.TAG]`, `hf-hub:ORG/REPO[@REV]`, `torchvision:NAME[:WEIGHTS]`, or a module.
        source: data spec, (images, labels), Dataset or DataLoader: what the model was trained on.
        target: the same: what it will be used for.
        arch: what a bare state dict is.
        arch_args: keyword arguments of the architecture.
        ema: take averaged weights.
        allow_missing: make missing and unexpected keys a warning.
        layer: take this layer's output instead of the classifier's input.
        mean: override, C numbers in pixel scale.
        std: override, C numbers in pixel scale.
        input_size: override, (H, W).
        crop_pct: override.
        interpolation: override.
        source_split: None takes the default.
        source_classes: such as `0-9,12` or names.
        source_max_images: class-balanced draw.
        target_split: None takes the default.
        target_classes: such as `0-9,12` or names.
        target_max_images: class-balanced draw.
        data_root: where known names lie.
        skip_bad_images: count images that cannot be decoded instead of stopping.
        gc: estimator of the energies.
        vectors: VJPs an image.
        gc_images: images that get an energy; None all.
        target_gc: take the Jacobian on the target too.
        input_space: what the Jacobian is taken with respect to.
        n_way: classes an episode.
        n_shot: support images a class; several make a curve.
        n_query: queries a class; None takes all that are left.
        episodes: how many.
        ridge: relative penalty.
        metrics: names; None takes all.
        device: `auto`, `cpu`, `cuda`, ...
        precision: of the forward and backward pass.
        batch_size: None chooses.
        workers: None chooses.
        seed: of every draw.
    """

    model: Any
    source: Any
    target: Any = None
    arch: str | None = None
    arch_args: dict[str, Any] = field(default_factory=dict)
    ema: bool = False
    allow_missing: bool = False
    layer: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_size: tuple[int, int] | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    source_split: str | None = None
    source_classes: str | None = None
    source_max_images: int | None = None
    target_split: str | None = None
    target_classes: str | None = None
    target_max_images: int | None = None
    data_root: str | None = None
    skip_bad_images: bool = False
    gc: str = "sketch"
    vectors: int = 1
    gc_images: int | None = 1024
    target_gc: bool = False
    input_space: str = "pixel"
    n_way: int = 5
    n_shot: tuple[int, ...] = (5,)
    n_query: int | None = 15
    episodes: int = 1000
    ridge: float = 1.0
    metrics: tuple[str, ...] | None = None
    device: str = "auto"
    precision: str = "float32"
    batch_size: int | None = None
    workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what can be checked without looking at any file.

        Raises:
            RequestError: an option is out of range.
        """
        for name, value, known in (
            ("gc", self.gc, ESTIMATORS),
            ("precision", self.precision, PRECISIONS),
            ("input-space", self.input_space, INPUT_SPACES),
        ):
            if value not in known:
                raise RequestError(f"expected --{name} of {', '.join(known)}; found {value!r}")
        for name, number, low in (
            ("vectors", self.vectors, 1),
            ("gc-images", self.gc_images, 1),
            ("batch-size", self.batch_size, 1),
            ("workers", self.workers, 0),
            ("source-max-images", self.source_max_images, 1),
            ("target-max-images", self.target_max_images, 1),
        ):
            if number is not None and number < low:
                raise RequestError(f"expected --{name} of at least {low}, found {number}")
        self.probe()
        find_metrics(self.metrics)

    def model_request(self) -> ModelRequest:
        """Return the part that says which model."""
        changes = {key: getattr(self, key) for key in ("mean", "std", "input_size", "crop_pct", "interpolation")}
        return ModelRequest(self.model, self.arch, self.arch_args, self.ema, self.allow_missing, self.layer, changes)

    def data_request(self, role: Role) -> DataRequest:
        """Return the part that says which images.

        Args:
            role: of the data set.
        """
        return DataRequest(
            spec=getattr(self, role),
            role=role,
            split=getattr(self, f"{role}_split"),
            classes=getattr(self, f"{role}_classes"),
            max_images=getattr(self, f"{role}_max_images"),
            root=self.data_root,
            seed=self.seed,
        )

    def pass_settings(self, role: Role) -> PassSettings:
        """Return the part that says how to look at a data set.

        Args:
            role: of the data set.
        """
        wanted = role == "source" or self.target_gc
        needed = any(metric.needs == "energies" for metric in self.chosen_metrics(role))
        return PassSettings(
            device=self.device,
            precision=self.precision,  # type: ignore[arg-type]
            batch_size=self.batch_size,
            workers=self.workers,
            seed=self.seed,
            estimator=self.gc,  # type: ignore[arg-type]
            vectors=self.vectors,
            gc_images=self.gc_images if wanted and needed else 0,
            input_space=self.input_space,  # type: ignore[arg-type]
            skip_bad_images=self.skip_bad_images,
        )

    def probe(self) -> ProbeSettings:
        """Return the part that says how episodes are drawn."""
        return ProbeSettings(self.n_way, self.n_shot, self.n_query, self.episodes, self.ridge, self.seed)

    def chosen_metrics(self, role: Role) -> tuple[Metric, ...]:
        """Return what is measured on a data set.

        Args:
            role: of the data set.
        """
        without = () if role == "source" or self.target_gc else ("energies",)
        return tuple(m for m in find_metrics(self.metrics) if role in m.roles and m.needs not in without)


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
    source = open_data(spec.data_request("source"))
    target = None if spec.target is None else open_data(spec.data_request("target"))
    warnings: list[str] = []
    if target is not None and any(metric.name == "probe_accuracy" for metric in spec.chosen_metrics("target")):
        warnings += spec.probe().check(target.counts, target.class_names)
    encoder = load_encoder(spec.model_request())
    warnings += encoder.warnings
    seen: dict[Role, Observation] = {}
    blocks: dict[Role, DataBlock] = {}
    chosen: tuple[tuple[Role, ImageSet | None], ...] = (("source", source), ("target", target))
    for role, images in chosen:
        if images is None:
            continue
        with progress(f"{role} {images.spec}", len(images.labels)) as advance:
            seen[role] = observe(encoder, images, spec.pass_settings(role), advance)
        warnings += [f"{role}: {line}" for line in seen[role].warnings]
        blocks[role] = _data_block(images, seen[role], spec, role)
    if target is not None:
        warnings += _overlap(source, target, seen["source"], seen["target"])
    images_seen = sum(observation.evidence.images for observation in seen.values())
    return Report(
        schema="gcaudit.report/1",
        gcaudit=version("gcaudit"),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        model=_model_block(encoder, spec),
        settings=_settings(spec, seen),
        source=blocks["source"],
        target=blocks.get("target"),
        warnings=tuple(dict.fromkeys(warnings)),
        timing=Timing(
            images_per_second=images_seen / sum(observation.seconds for observation in seen.values()),
            seconds=time.perf_counter() - began,
        ),
    )


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


def _data_block(images: ImageSet, observation: Observation, spec: AuditSpec, role: Role) -> DataBlock:
    estimates = measure_evidence(observation.evidence, spec.chosen_metrics(role), spec.probe())
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


def _settings(spec: AuditSpec, seen: dict[Role, Observation]) -> dict[str, Any]:
    asked = {f.name: _plain(getattr(spec, f.name)) for f in dataclasses.fields(spec) if f.name not in _NOT_SETTINGS}
    used = seen["source"]
    return asked | {
        "device": used.device,
        "device_name": torch.cuda.get_device_name(used.device) if used.device.startswith("cuda") else "cpu",
        "batch_size": used.batch_size,
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
    images = set(on_source.digests) & set(on_target.digests)
    if images:
        found.append(f"source and target share {len(images)} images: accuracy on images the model was trained on is not transfer")
    return found


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

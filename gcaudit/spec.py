"""AuditSpec: everything that can be asked of an audit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any, final

from gcaudit.data import DataRequest
from gcaudit.encoders import ModelRequest
from gcaudit.errors import RequestError
from gcaudit.geometry.jacobian import ESTIMATORS
from gcaudit.geometry.ridge import ProbeSettings
from gcaudit.metrics import Metric, Role, find_metrics
from gcaudit.observe import PassSettings
from gcaudit.runner import INPUT_SPACES, PRECISIONS, RunSettings


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
        gc_images: at most so many images get an energy; None all.
        gc_rtol: stop when the standard error of GC is below this share of GC; 0 takes all of `gc_images`.
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
        batch_size: None finds one by timing.
        compile: compile the network with torch.compile.
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
    gc_images: int | None = None
    gc_rtol: float = 0.02
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
    compile: bool = False
    workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Bring single values into their tuples, and check what can be checked without looking at any file.

        Raises:
            RequestError: an option is out of range.
        """
        singles = {key: getattr(self, key) for key in ("n_shot", "mean", "std", "metrics")}
        for key, single in singles.items():
            if isinstance(single, int | float | str):
                object.__setattr__(self, key, (single,))
        if isinstance(self.input_size, int):
            object.__setattr__(self, "input_size", (self.input_size, self.input_size))
        if isinstance(self.model, PurePath):
            object.__setattr__(self, "model", str(self.model))
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
        if not 0 <= self.gc_rtol < 1:
            raise RequestError(f"expected --gc-rtol from 0 (take all images) to below 1, found {self.gc_rtol}; 0.02 is the default")
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
            workers=self.workers,
            gc_images=self.gc_images if wanted and needed else 0,
            gc_rtol=self.gc_rtol,
            skip_bad_images=self.skip_bad_images,
            logits=any(metric.needs == "logits" for metric in self.chosen_metrics(role)),
        )

    def run_settings(self) -> RunSettings:
        """Return the part that says how a batch is run."""
        return RunSettings(
            device=self.device,
            precision=self.precision,  # type: ignore[arg-type]
            batch_size=self.batch_size,
            seed=self.seed,
            estimator=self.gc,  # type: ignore[arg-type]
            vectors=self.vectors,
            input_space=self.input_space,  # type: ignore[arg-type]
            compile=self.compile,
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

    @property
    def roles(self) -> tuple[Role, ...]:
        """The data sets that are looked at."""
        return ("source",) if self.target is None else ("source", "target")

    @property
    def measured(self) -> list[str]:
        """All that is measured, as `ROLE.METRIC`."""
        return [f"{role}.{metric.name}" for role in self.roles for metric in self.chosen_metrics(role)]


def check_options(names: Iterable[str]) -> None:
    """Check that a Python call names options that there are.

    Args:
        names: of fields of `AuditSpec`.

    Raises:
        RequestError: one is unknown.
    """
    known = [field.name for field in fields(AuditSpec)]
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            raise RequestError(
                f"expected an option of an audit, found {name!r}; {f'did you mean {close[0]}?' if close else 'see AuditSpec'}"
            )

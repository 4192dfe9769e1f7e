"""AuditSpec: everything that can be asked of an audit, made of what is asked of each room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, final

from gcaudit.audit.options import OPTIONS, place_options
from gcaudit.data import DataRequest
from gcaudit.encoders import ModelRequest
from gcaudit.errors import RequestError
from gcaudit.metrics import METRICS, Metric, ProbeSettings, Role, find_metrics
from gcaudit.passes import PassSettings, RunSettings

_ABSENT = DataRequest(None, "target")
_NO_HELD_OUT = DataRequest(None, "source-test")


@final
@dataclass(frozen=True)
class AuditSpec:
    """Everything that can be asked of an audit; `from_options` makes one of the names that people type.

    Attributes:
        model: which model, and how it is read.
        source: which images it was trained on.
        target: which images it will be used for; its `spec` is None where there are none.
        run: how a batch is run.
        passes: how a data set is looked at; which of its images get an energy also depends on the metrics.
        probe: how episodes are drawn.
        metrics: names and groups; None takes the core.
        target_gc: take the Jacobian on the target too.
        held_out: which images of the source's classes no class mean is to be of; its `spec` is None where there are none.
    """

    model: ModelRequest
    source: DataRequest
    target: DataRequest = _ABSENT
    run: RunSettings = field(default_factory=RunSettings)
    passes: PassSettings = field(default_factory=PassSettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    metrics: tuple[str, ...] | None = None
    target_gc: bool = False
    held_out: DataRequest = _NO_HELD_OUT

    def __post_init__(self) -> None:
        """Check what can be told before any file is looked at, and what no room can check by itself.

        Raises:
            RequestError: an unknown metric, a number of images below 1, or parts that disagree.
        """
        requests = [self.data_request(role) for role in self.roles]
        if [request.role for request in requests] != list(self.roles):
            raise RequestError("expected a source and a target in their roles, found others")
        requests.append(self.held_out)
        if len({self.run.seed, self.probe.seed, *(request.seed for request in requests)}) > 1:
            raise RequestError("expected one seed of all draws, found several; see AuditSpec.from_options")
        for option, images in (
            ("gc-images", self.passes.gc_images),
            ("source-max-images", self.source.max_images),
            ("target-max-images", self.target.max_images),
            ("source-test-max-images", self.held_out.max_images),
        ):
            if images is not None and images < 1:
                raise RequestError(f"expected --{option} of at least 1, found {images}")
        takes = [metric.name for metric in METRICS if metric.held_out]
        chosen = {metric.name for metric in find_metrics(self.metrics)}
        if self.held_out.spec is None and self.held_out.split is not None:
            raise RequestError(f"expected --source-test with --source-test-split {self.held_out.split}, found none; name the data")
        if self.held_out.spec is not None and not chosen & set(takes):
            raise RequestError(f"expected no --source-test without {' or '.join(takes)}; pass --metrics core,theory")

    @staticmethod
    def from_options(model: Any, source: Any, target: Any = None, **options: Any) -> AuditSpec:
        """Make a spec of flat names, as they are typed on the command line, in Python and in YAML.

        Args:
            model: path, `timm:NAME[.TAG]`, `hf-hub:ORG/REPO[@REV]`, `torchvision:NAME[:WEIGHTS]`, or a module.
            source: data spec, (images, labels), Dataset or DataLoader: what the model was trained on.
            target: the same: what it will be used for; None for none.
            options: by the names of `OPTIONS`.

        Returns:
            The spec.

        Raises:
            RequestError: an option is unknown or out of range.
        """
        parts = place_options(options)
        on_source = DataRequest(source, "source", **parts.get("source", {}))
        unlike = on_source if on_source.drop_duplicates else None
        read_alike = {name: getattr(on_source, name) for name in ("image_key", "label_key", "class_map")}
        return AuditSpec(
            model=_model_request(model, parts),
            source=on_source,
            target=DataRequest(target, "target", **parts.get("target", {}), unlike=unlike),
            held_out=DataRequest(**{"spec": None, "role": "source-test"} | read_alike | parts.get("held_out", {})),
            run=RunSettings(**parts.get("run", {})),
            passes=PassSettings(**parts.get("passes", {})),
            probe=ProbeSettings(**parts.get("probe", {})),
            **parts.get("", {}),
        )

    def to_options(self) -> dict[str, Any]:
        """Return all options by their flat names, in the order of `OPTIONS`."""
        found = {}
        for option in OPTIONS:
            if option.shorthand:
                continue
            part, _, name = option.places[0].rpartition(".")
            changes = part == "model.changes"
            found[option.name] = self.model.changes.get(name) if changes else attrgetter(option.places[0])(self)
        return found

    @property
    def roles(self) -> tuple[Role, ...]:
        """The data sets that are looked at."""
        return ("source",) if self.target.spec is None else ("source", "target")

    def data_request(self, role: Role) -> DataRequest:
        """Return which images are asked for.

        Args:
            role: of the data set.
        """
        return self.source if role == "source" else self.target

    def chosen_metrics(self, role: Role) -> tuple[Metric, ...]:
        """Return what is measured on a data set.

        Args:
            role: of the data set.
        """
        without = role == "target" and not self.target_gc
        found = (m for m in find_metrics(self.metrics) if role in m.roles and not m.across)
        return tuple(m for m in found if not (without and m.per_pixel))

    @property
    def across(self) -> tuple[Metric, ...]:
        """What sets the target's classes beside the source's."""
        return tuple(m for m in find_metrics(self.metrics) if m.across and "target" in self.roles)

    def pass_settings(self, role: Role) -> PassSettings:
        """Return how a data set is looked at: what takes time or space, only where a metric needs it.

        Args:
            role: of the data set.
        """
        across = () if role == "target" and not self.target_gc else self.across
        needs = {metric.needs for metric in (*self.chosen_metrics(role), *across)}
        return replace(
            self.passes,
            gc_images=self.passes.gc_images if needs & {"energies", "logit_energies"} else 0,
            logits="logits" in needs,
            logit_gc="logit_energies" in needs,
            flatness="flatness" in needs,
            lipschitz="lipschitz" in needs,
        )

    @property
    def measured(self) -> list[str]:
        """All that is measured, as `ROLE.METRIC`."""
        apart = [f"{role}.{metric.name}" for role in self.roles for metric in self.chosen_metrics(role)]
        return [*apart, *(f"target.{metric.name}" for metric in self.across)]


def model_request(model: Any, **options: Any) -> ModelRequest:
    """Make the request of a model of flat names.

    Args:
        model: as for `AuditSpec.from_options`.
        options: by the names of `OPTIONS`; those of other parts are left aside.

    Returns:
        The request.

    Raises:
        RequestError: an option is unknown.
    """
    return _model_request(model, place_options(options))


def _model_request(model: Any, parts: Mapping[str, Mapping[str, Any]]) -> ModelRequest:
    return ModelRequest(model, **parts.get("model", {}), changes=parts.get("model.changes", {}))

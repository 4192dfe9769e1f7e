"""The table of metrics.

Adding a metric: one file beside this one, one line in `METRICS`, one test file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, final

from gcaudit.errors import RequestError, suggest
from gcaudit.geometry import missing

if TYPE_CHECKING:
    from gcaudit.geometry import ClassSummary, Estimate, Evidence
    from gcaudit.metrics.ridge import ProbeSettings

Role = Literal["source", "target"]
Needs = Literal["embeddings", "energies", "predictions", "logits", "weights", "logit_energies", "flatness", "lipschitz"]


@final
@dataclass(frozen=True)
class Metric:
    """One quantity of the report.

    Attributes:
        name: its key in reports.
        title: what people read.
        direction: which way is better for transfer; `none` where neither is.
        comparable: what must agree before two values may be compared.
        needs: `embeddings`, `energies` (the Jacobian), `predictions` (the head's classes are the data's), `logits` (any head) or
            `weights` (a linear head of the data's classes), `logit_energies` (the Jacobian of any head's outputs), `flatness` (derivatives of the
            loss over the parameters) or `lipschitz` (layers whose slopes are bounded).
        roles: the data sets it is measured on by default.
        module: of this room, in which the function of this name stands; it is loaded when it is first measured.
        group: `core` is measured unless others are asked for; `field` are the scores of other papers, which take longer; `theory` are the paper's
            inequalities.
        episodes: it draws episodes, and its function takes their settings beside the evidence.
        shots: of these settings it takes `n_shot` alone.
        unit: of its value: `share` is a number from 0 to 1, `pixel` what an image in [0, 1] is measured in (that of the network's own input with
            `--input-space normalized`), and nothing stands for what has no unit.
        across: it sets the target's classes beside the source's, and its function takes the summaries of both.
        held_out: it takes images that no class mean is of, where there are any.
        sized: its value depends on the number of images and dimensions by definition, so that no distribution has one; its interval is for
            other images in the same number.
    """

    name: str
    title: str
    direction: Literal["lower", "higher", "none"]
    comparable: str
    needs: Needs
    roles: tuple[Role, ...]
    module: str
    group: Literal["core", "field", "theory"] = "core"
    episodes: bool = False
    shots: bool = False
    across: bool = False
    held_out: bool = False
    sized: bool = False
    unit: str = ""

    @property
    def per_pixel(self) -> bool:
        """Whether it is of how the network changes with its pixels: energies, or what bounds them."""
        return self.needs in ("energies", "logit_energies", "lipschitz")

    @property
    def has_shots(self) -> bool:
        """Whether it has a value for each `n_shot`."""
        return self.episodes or self.shots

    def measure(self, evidence: Evidence, probe: ProbeSettings) -> Estimate:
        """Measure it.

        Args:
            evidence: the observed images.
            probe: settings of the episodes.

        Returns:
            The estimate.
        """
        if self.across:
            return missing("it sets a target beside a source; score both", evidence.images)
        function = self._function()
        found: Estimate = function(evidence, probe) if self.has_shots else function(evidence)
        return replace(found, details={**found.details, "interval": _REPEATABILITY}) if self.sized else found

    def measure_across(self, source: ClassSummary, target: ClassSummary) -> Estimate:
        """Measure what sets the target's classes beside the source's.

        Args:
            source: of the source's classes.
            target: of the target's.

        Returns:
            The estimate.
        """
        found: Estimate = self._function()(source, target)
        return found

    def _function(self) -> Any:
        return getattr(import_module(f"gcaudit.metrics.{self.module}"), self.name)


_REPEATABILITY = "repeatability: other images in this number, at this number of dimensions"
_PIXEL, _PER_PIXEL, _SQUARED = "pixel^2", "1/pixel^2", "embedding^2/pixel^2"
_BOTH: tuple[Role, ...] = ("source", "target")
_SOURCE: tuple[Role, ...] = ("source",)
_TARGET: tuple[Role, ...] = ("target",)
_FAMILY = "one training family, same data and input"
_SCALE_FREE = "same data, classes and input size"
_SAME_K = "same data, number of classes and input size"
_ANY = "same data and classes"
_EPISODES = "same data and episode settings"
_SIZED = "same data, classes, numbers of images and dimensions"

METRICS: tuple[Metric, ...] = (
    Metric("gc", "geometric complexity (GC)", "lower", _FAMILY, "energies", _BOTH, "complexity", unit=_SQUARED),
    Metric("relative_gc", "relative GC", "lower", _SCALE_FREE, "energies", _BOTH, "complexity", unit=_PER_PIXEL),
    Metric("cdnv", "CDNV", "lower", _ANY, "embeddings", _BOTH, "collapse"),
    Metric("directional_cdnv", "CDNV, directional", "lower", _ANY, "embeddings", _BOTH, "directional"),
    Metric("geometric_collapse", "geometric collapse", "lower", _SAME_K, "energies", _BOTH, "collapse", unit=_PER_PIXEL),
    Metric(
        "geometric_collapse_refined",
        "geometric collapse, refined",
        "lower",
        _SCALE_FREE,
        "energies",
        _BOTH,
        "collapse",
        unit=_PER_PIXEL,
    ),
    Metric(
        "poincare_lower_bound",
        "Poincaré constant, at least (estimate)",
        "none",
        _SCALE_FREE,
        "energies",
        _BOTH,
        "complexity",
        unit=_PIXEL,
    ),
    Metric("ncm_accuracy", "nearest-class-mean accuracy", "higher", _ANY, "embeddings", _BOTH, "accuracy", unit="share"),
    Metric("head_accuracy", "accuracy of the model's head", "higher", _ANY, "predictions", _SOURCE, "accuracy", unit="share"),
    Metric(
        "probe_accuracy",
        "few-shot probe accuracy",
        "higher",
        _EPISODES,
        "embeddings",
        _TARGET,
        "ridge",
        episodes=True,
        unit="share",
    ),
    Metric("nc1", "NC1, collapse along the class means", "lower", _SIZED, "embeddings", _BOTH, "nc1", "field", sized=True),
    Metric("sfda", "SFDA", "higher", _SIZED, "embeddings", _TARGET, "sfda", "field", sized=True),
    Metric("gbc", "GBC, overlap of classes", "higher", _SIZED, "embeddings", _TARGET, "gbc", "field", sized=True),
    Metric(
        "rankme", "RankMe, effective rank", "higher", _SIZED, "embeddings", _BOTH, "rankme", "field", sized=True, unit="dimensions"
    ),
    Metric("ncti_seli", "NCTI, spread of discriminants", "higher", _SIZED, "embeddings", _TARGET, "ncti", "field", sized=True),
    Metric("ncti_ncc", "NCTI, probability of the class", "higher", _SIZED, "embeddings", _TARGET, "ncti", "field", sized=True),
    Metric("ncti_vc", "NCTI, variety of answers in a class", "lower", _SIZED, "embeddings", _TARGET, "ncti", "field", sized=True),
    Metric("logme", "LogME", "higher", _SIZED, "embeddings", _TARGET, "logme", "field", sized=True, unit="nats"),
    Metric("h_score", "H-score", "higher", _SIZED, "embeddings", _TARGET, "hscore", "field", sized=True),
    Metric("h_score_regularized", "H-score, regularised", "higher", _SIZED, "embeddings", _TARGET, "hscore", "field", sized=True),
    Metric("trans_rate", "TransRate", "higher", _SIZED, "embeddings", _TARGET, "transrate", "field", sized=True, unit="nats"),
    Metric("leep", "LEEP", "higher", _SIZED, "logits", _TARGET, "leep", "field", sized=True, unit="nats"),
    Metric(
        "nce", "NCE, negative conditional entropy", "higher", _SIZED, "logits", _TARGET, "leep", "field", sized=True, unit="nats"
    ),
    Metric(
        "knn_accuracy", "nearest-neighbour accuracy", "higher", _ANY, "embeddings", _TARGET, "neighbours", "field", unit="share"
    ),
    Metric(
        "linear_probe_accuracy",
        "linear probe accuracy",
        "higher",
        _ANY,
        "embeddings",
        _TARGET,
        "linear_probe",
        "field",
        unit="share",
    ),
    Metric("nc2", "NC2, class means against a simplex", "lower", _ANY, "embeddings", _BOTH, "nc2", "field"),
    Metric("nc3", "NC3, head against class means", "lower", _ANY, "weights", _SOURCE, "nc3", "field"),
    Metric("nc4", "NC4, head agrees with nearest mean", "higher", _ANY, "predictions", _SOURCE, "nc4", "field", unit="share"),
    Metric("parc", "PARC", "higher", _SIZED, "embeddings", _TARGET, "parc", "field", sized=True),
    Metric(
        "pactran_gaussian",
        "PACTran, Gaussian prior",
        "lower",
        _SIZED,
        "embeddings",
        _TARGET,
        "pactran",
        "field",
        sized=True,
        unit="nats",
    ),
    Metric("n_leep", "N-LEEP", "higher", _SIZED, "embeddings", _TARGET, "nleep", "field", sized=True, unit="nats"),
    Metric(
        "cdnv_over_collapse",
        "CDNV over geometric collapse",
        "none",
        _SAME_K,
        "energies",
        _BOTH,
        "bounds",
        "theory",
        unit=_PIXEL,
    ),
    Metric(
        "gc_deviation", "GC, deviation at most (Hoeffding)", "none", _FAMILY, "energies", _BOTH, "bounds", "theory", unit=_SQUARED
    ),
    Metric(
        "ncm_error_bound",
        "nearest-mean error, at most",
        "none",
        _SAME_K,
        "energies",
        _BOTH,
        "bounds",
        "theory",
        shots=True,
        held_out=True,
    ),
    Metric(
        "lipschitz_bound",
        "Lipschitz constant, at most (by layers)",
        "none",
        _FAMILY,
        "lipschitz",
        _SOURCE,
        "bounds",
        "theory",
        unit="embedding/pixel",
    ),
    Metric(
        "gc_over_least_distance",
        "GC over least squared distance of means, all classes",
        "lower",
        _SCALE_FREE,
        "energies",
        _TARGET,
        "new_classes",
        "theory",
        across=True,
        unit=_PER_PIXEL,
    ),
    Metric(
        "granularity",
        "target's class means, out of the source's hull",
        "lower",
        _ANY,
        "embeddings",
        _TARGET,
        "granularity",
        "theory",
        across=True,
    ),
    Metric(
        "logits_gc", "GC of the logits", "lower", _FAMILY, "logit_energies", _BOTH, "complexity", "theory", unit="logit^2/pixel^2"
    ),
    Metric(
        "loss_slope",
        "slope of the head's loss",
        "lower",
        _FAMILY,
        "flatness",
        _SOURCE,
        "flatness",
        "theory",
        unit="nat^2/parameter^2",
    ),
    Metric(
        "loss_sharpness",
        "sharpness of the head's loss",
        "lower",
        _FAMILY,
        "flatness",
        _SOURCE,
        "flatness",
        "theory",
        unit="nat/parameter^2",
    ),
)
"""Every metric, in the order of the report."""
_OTHER_NAMES = {
    "geometric_complexity": "gc",
    "class_distance_normalized_variance": "cdnv",
    "ncm": "ncm_accuracy",
    "nearest_class_mean": "ncm_accuracy",
    "log_maximum_evidence": "logme",
    "regularized_h_score": "h_score_regularized",
    "reg_h_score": "h_score_regularized",
    "reg_h": "h_score_regularized",
    "log_expected_empirical_prediction": "leep",
    "negative_conditional_entropy": "nce",
    "knn": "knn_accuracy",
    "linear_probe": "linear_probe_accuracy",
    "pactran": "pactran_gaussian",
}
"""What papers and other tools call some of them, where that is more than another spelling."""


def _letters(name: str) -> str:
    """Reduce a name to what all spellings of it share: `N-LEEP`, `n_leep` and `nleep` are one."""
    return "".join(character for character in name.casefold() if character.isalnum()).replace("ised", "ized")


_FORMER = {"cdnv_debiased": "cdnv"}
"""What is no metric of its own any more, and what has taken its place."""
_BY_NAME = {metric.name: metric for metric in METRICS}
_BY_LETTERS = {_letters(name): metric for name, metric in _BY_NAME.items()}
_BY_LETTERS |= {_letters(other): _BY_NAME[name] for other, name in _OTHER_NAMES.items()}
_GROUPS = {"all": METRICS} | {
    group: tuple(metric for metric in METRICS if metric.group == group) for group in ("core", "field", "theory")
}


def find_metric(name: str) -> Metric:
    """Look a metric up by name.

    Args:
        name: as papers and tools write it: capitals, dashes and underscores do not matter, nor does British spelling.

    Returns:
        The metric.

    Raises:
        RequestError: the name is unknown.
    """
    return _find(name, list(_BY_NAME))


def _find(name: str, known: list[str]) -> Metric:
    found = _BY_LETTERS.get(_letters(name))
    if found is None:
        raise RequestError(f"expected the name of a metric, found {name!r}; {suggest(_FORMER.get(name, name), known)}")
    return found


def find_metrics(names: Iterable[str] | None) -> tuple[Metric, ...]:
    """Look metrics up by name.

    Args:
        names: names as for `find_metric`, and groups (`core`, `field`, `all`), in any order; None for the core.

    Returns:
        The metrics in the order of `METRICS`.

    Raises:
        RequestError: a name is unknown, or there is none.
    """
    wanted = ["core"] if names is None else [names] if isinstance(names, str) else list(names)
    if not wanted:
        raise RequestError(f"expected the name of at least one metric, found none; known: {', '.join(_BY_NAME)}")
    known = [*_GROUPS, *_BY_NAME]
    chosen = {metric.name for name in wanted for metric in _GROUPS.get(name) or (_find(name, known),)}
    return tuple(metric for metric in METRICS if metric.name in chosen)


def measure_evidence(evidence: Evidence, metrics: Sequence[Metric], probe: ProbeSettings) -> dict[str, Estimate]:
    """Turn evidence into estimates.

    Args:
        evidence: the observed images.
        metrics: what to measure.
        probe: settings of the ridge probe.

    Returns:
        Estimates by metric name, in the order given.
    """
    return {metric.name: metric.measure(evidence, probe) for metric in metrics}

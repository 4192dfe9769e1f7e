"""The table of metrics.

Adding a metric: one file beside this one, one line in `METRICS`, one test file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, final

from gcaudit.errors import RequestError
from gcaudit.geometry import Estimate, Evidence
from gcaudit.metrics.accuracy import head_accuracy, ncm_accuracy
from gcaudit.metrics.collapse import cdnv, cdnv_debiased, directional_cdnv, geometric_collapse, geometric_collapse_refined
from gcaudit.metrics.complexity import gc, poincare_lower_bound, relative_gc
from gcaudit.metrics.gbc import gbc
from gcaudit.metrics.hscore import h_score, h_score_regularized
from gcaudit.metrics.leep import leep, nce
from gcaudit.metrics.linear_probe import linear_probe_accuracy
from gcaudit.metrics.logme import logme
from gcaudit.metrics.nc1 import nc1
from gcaudit.metrics.nc2 import nc2
from gcaudit.metrics.nc3 import nc3
from gcaudit.metrics.nc4 import nc4
from gcaudit.metrics.ncti import ncti_ncc, ncti_seli, ncti_vc
from gcaudit.metrics.neighbours import knn_accuracy
from gcaudit.metrics.nleep import n_leep
from gcaudit.metrics.pactran import pactran_gaussian
from gcaudit.metrics.parc import parc
from gcaudit.metrics.rankme import rankme
from gcaudit.metrics.ridge import ProbeSettings, probe_accuracy
from gcaudit.metrics.sfda import sfda
from gcaudit.metrics.transrate import trans_rate

Role = Literal["source", "target"]


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
            `weights` (a linear head of the data's classes).
        roles: the data sets it is measured on by default.
        measure: the function of evidence and probe settings.
        group: `core` is measured unless others are asked for; `field` are the scores of other papers, which take longer.
        other_names: by which papers and other tools call it, where they are more than another spelling of `name`.
    """

    name: str
    title: str
    direction: Literal["lower", "higher", "none"]
    comparable: str
    needs: Literal["embeddings", "energies", "predictions", "logits", "weights"]
    roles: tuple[Role, ...]
    measure: Callable[[Evidence, ProbeSettings], Estimate]
    group: Literal["core", "field"] = "core"
    other_names: tuple[str, ...] = ()


def _plain(function: Callable[[Evidence], Estimate]) -> Callable[[Evidence, ProbeSettings], Estimate]:
    return lambda evidence, _settings: function(evidence)


_BOTH: tuple[Role, ...] = ("source", "target")
_SOURCE: tuple[Role, ...] = ("source",)
_TARGET: tuple[Role, ...] = ("target",)
_FAMILY = "one training family, same data and input"
_SCALE_FREE = "same data, classes and input size"
_SAME_K = "same data, number of classes and input size"
_ANY = "same data and classes"
_EPISODES = "same data and episode settings"

METRICS: tuple[Metric, ...] = (
    Metric(
        "gc", "geometric complexity (GC)", "lower", _FAMILY, "energies", _BOTH, _plain(gc), other_names=("geometric_complexity",)
    ),
    Metric("relative_gc", "relative GC", "lower", _SCALE_FREE, "energies", _BOTH, _plain(relative_gc)),
    Metric("cdnv", "CDNV", "lower", _ANY, "embeddings", _BOTH, _plain(cdnv), other_names=("class_distance_normalized_variance",)),
    Metric("cdnv_debiased", "CDNV, debiased", "lower", _ANY, "embeddings", _BOTH, _plain(cdnv_debiased)),
    Metric("directional_cdnv", "CDNV, directional", "lower", _ANY, "embeddings", _BOTH, _plain(directional_cdnv)),
    Metric("geometric_collapse", "geometric collapse", "lower", _SAME_K, "energies", _BOTH, _plain(geometric_collapse)),
    Metric(
        "geometric_collapse_refined",
        "geometric collapse, refined",
        "lower",
        _SCALE_FREE,
        "energies",
        _BOTH,
        _plain(geometric_collapse_refined),
    ),
    Metric("poincare_lower_bound", "Poincaré lower bound", "none", _SCALE_FREE, "energies", _BOTH, _plain(poincare_lower_bound)),
    Metric(
        "ncm_accuracy",
        "nearest-class-mean accuracy",
        "higher",
        _ANY,
        "embeddings",
        _BOTH,
        _plain(ncm_accuracy),
        other_names=("ncm", "nearest_class_mean"),
    ),
    Metric("head_accuracy", "accuracy of the model's head", "higher", _ANY, "predictions", _SOURCE, _plain(head_accuracy)),
    Metric("probe_accuracy", "few-shot probe accuracy", "higher", _EPISODES, "embeddings", _TARGET, probe_accuracy),
    Metric("nc1", "NC1, collapse along the class means", "lower", _ANY, "embeddings", _BOTH, _plain(nc1), "field"),
    Metric("sfda", "SFDA", "higher", _ANY, "embeddings", _TARGET, _plain(sfda), "field"),
    Metric("gbc", "GBC, overlap of classes", "higher", _ANY, "embeddings", _TARGET, _plain(gbc), "field"),
    Metric("rankme", "RankMe, effective rank", "higher", _ANY, "embeddings", _BOTH, _plain(rankme), "field"),
    Metric("ncti_seli", "NCTI, spread of discriminants", "higher", _ANY, "embeddings", _TARGET, _plain(ncti_seli), "field"),
    Metric("ncti_ncc", "NCTI, probability of the class", "higher", _ANY, "embeddings", _TARGET, _plain(ncti_ncc), "field"),
    Metric("ncti_vc", "NCTI, variety of answers in a class", "lower", _ANY, "embeddings", _TARGET, _plain(ncti_vc), "field"),
    Metric("logme", "LogME", "higher", _ANY, "embeddings", _TARGET, _plain(logme), "field", other_names=("log_maximum_evidence",)),
    Metric("h_score", "H-score", "higher", _ANY, "embeddings", _TARGET, _plain(h_score), "field"),
    Metric(
        "h_score_regularized",
        "H-score, regularised",
        "higher",
        _ANY,
        "embeddings",
        _TARGET,
        _plain(h_score_regularized),
        "field",
        other_names=("regularized_h_score", "reg_h_score", "reg_h"),
    ),
    Metric("trans_rate", "TransRate", "higher", _ANY, "embeddings", _TARGET, _plain(trans_rate), "field"),
    Metric(
        "leep", "LEEP", "higher", _ANY, "logits", _TARGET, _plain(leep), "field", other_names=("log_expected_empirical_prediction",)
    ),
    Metric(
        "nce",
        "NCE, negative conditional entropy",
        "higher",
        _ANY,
        "logits",
        _TARGET,
        _plain(nce),
        "field",
        other_names=("negative_conditional_entropy",),
    ),
    Metric(
        "knn_accuracy",
        "nearest-neighbour accuracy",
        "higher",
        _ANY,
        "embeddings",
        _TARGET,
        _plain(knn_accuracy),
        "field",
        other_names=("knn",),
    ),
    Metric(
        "linear_probe_accuracy",
        "linear probe accuracy",
        "higher",
        _ANY,
        "embeddings",
        _TARGET,
        _plain(linear_probe_accuracy),
        "field",
        other_names=("linear_probe",),
    ),
    Metric("nc2", "NC2, class means against a simplex", "lower", _ANY, "embeddings", _BOTH, _plain(nc2), "field"),
    Metric("nc3", "NC3, head against class means", "lower", _ANY, "weights", _SOURCE, _plain(nc3), "field"),
    Metric("nc4", "NC4, head agrees with nearest mean", "higher", _ANY, "predictions", _SOURCE, _plain(nc4), "field"),
    Metric("parc", "PARC", "higher", _ANY, "embeddings", _TARGET, _plain(parc), "field"),
    Metric(
        "pactran_gaussian",
        "PACTran, Gaussian prior",
        "lower",
        _ANY,
        "embeddings",
        _TARGET,
        _plain(pactran_gaussian),
        "field",
        other_names=("pactran",),
    ),
    Metric("n_leep", "N-LEEP", "higher", _ANY, "embeddings", _TARGET, _plain(n_leep), "field"),
)
"""Every metric, in the order of the report."""


def _letters(name: str) -> str:
    """Reduce a name to what all spellings of it share: `N-LEEP`, `n_leep` and `nleep` are one."""
    return "".join(character for character in name.casefold() if character.isalnum()).replace("ised", "ized")


_BY_LETTERS = {_letters(name): metric for metric in METRICS for name in (metric.name, *metric.other_names)}
_GROUPS = {"all": METRICS} | {group: tuple(metric for metric in METRICS if metric.group == group) for group in ("core", "field")}


def find_metric(name: str) -> Metric:
    """Look a metric up by name.

    Args:
        name: as papers and tools write it: capitals, dashes and underscores do not matter, nor does British spelling.

    Returns:
        The metric.

    Raises:
        RequestError: the name is unknown.
    """
    found = _BY_LETTERS.get(_letters(name))
    if found is None:
        known = [metric.name for metric in METRICS]
        close = get_close_matches(name, [*known, *_GROUPS], n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join((*_GROUPS, *known))}"
        raise RequestError(f"expected the name of a metric, found {name!r}; {hint}")
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
        known = ", ".join(metric.name for metric in METRICS)
        raise RequestError(f"expected the name of at least one metric, found none; known: {known}")
    chosen = {metric.name for name in wanted for metric in _GROUPS.get(name) or (find_metric(name),)}
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

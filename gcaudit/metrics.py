"""The table of metrics, and measuring embeddings that are already at hand.

Adding a metric: one file in `geometry/`, one line in `METRICS`, one test file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor

from gcaudit.errors import DataError, RequestError
from gcaudit.geometry.accuracy import head_accuracy, ncm_accuracy
from gcaudit.geometry.collapse import cdnv, cdnv_debiased, directional_cdnv, geometric_collapse, geometric_collapse_refined
from gcaudit.geometry.complexity import gc, poincare_lower_bound, relative_gc
from gcaudit.geometry.estimate import Estimate
from gcaudit.geometry.evidence import Evidence
from gcaudit.geometry.gbc import gbc
from gcaudit.geometry.hscore import h_score, h_score_regularized
from gcaudit.geometry.leep import leep, nce
from gcaudit.geometry.linear_probe import linear_probe_accuracy
from gcaudit.geometry.logme import logme
from gcaudit.geometry.moments import ClassMoments
from gcaudit.geometry.nc1 import nc1
from gcaudit.geometry.nc2 import nc2
from gcaudit.geometry.nc3 import nc3
from gcaudit.geometry.nc4 import nc4
from gcaudit.geometry.ncti import ncti_ncc, ncti_seli, ncti_vc
from gcaudit.geometry.neighbours import knn_accuracy
from gcaudit.geometry.nleep import n_leep
from gcaudit.geometry.pactran import pactran_gaussian
from gcaudit.geometry.parc import parc
from gcaudit.geometry.rankme import rankme
from gcaudit.geometry.ridge import ProbeSettings, probe_accuracy
from gcaudit.geometry.sfda import sfda
from gcaudit.geometry.transrate import trans_rate

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
    """

    name: str
    title: str
    direction: Literal["lower", "higher", "none"]
    comparable: str
    needs: Literal["embeddings", "energies", "predictions", "logits", "weights"]
    roles: tuple[Role, ...]
    measure: Callable[[Evidence, ProbeSettings], Estimate]
    group: Literal["core", "field"] = "core"


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
    Metric("gc", "geometric complexity (GC)", "lower", _FAMILY, "energies", _BOTH, _plain(gc)),
    Metric("relative_gc", "relative GC", "lower", _SCALE_FREE, "energies", _BOTH, _plain(relative_gc)),
    Metric("cdnv", "CDNV", "lower", _ANY, "embeddings", _BOTH, _plain(cdnv)),
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
    Metric("ncm_accuracy", "nearest-class-mean accuracy", "higher", _ANY, "embeddings", _BOTH, _plain(ncm_accuracy)),
    Metric("head_accuracy", "accuracy of the model's head", "higher", _ANY, "predictions", _SOURCE, _plain(head_accuracy)),
    Metric("probe_accuracy", "few-shot probe accuracy", "higher", _EPISODES, "embeddings", _TARGET, probe_accuracy),
    Metric("nc1", "NC1, collapse along the class means", "lower", _ANY, "embeddings", _BOTH, _plain(nc1), "field"),
    Metric("sfda", "SFDA", "higher", _ANY, "embeddings", _TARGET, _plain(sfda), "field"),
    Metric("gbc", "GBC, overlap of classes", "higher", _ANY, "embeddings", _TARGET, _plain(gbc), "field"),
    Metric("rankme", "RankMe, effective rank", "higher", _ANY, "embeddings", _BOTH, _plain(rankme), "field"),
    Metric("ncti_seli", "NCTI, spread of discriminants", "higher", _ANY, "embeddings", _TARGET, _plain(ncti_seli), "field"),
    Metric("ncti_ncc", "NCTI, probability of the class", "higher", _ANY, "embeddings", _TARGET, _plain(ncti_ncc), "field"),
    Metric("ncti_vc", "NCTI, variety of answers in a class", "lower", _ANY, "embeddings", _TARGET, _plain(ncti_vc), "field"),
    Metric("logme", "LogME", "higher", _ANY, "embeddings", _TARGET, _plain(logme), "field"),
    Metric("h_score", "H-score", "higher", _ANY, "embeddings", _TARGET, _plain(h_score), "field"),
    Metric(
        "h_score_regularized", "H-score, regularised", "higher", _ANY, "embeddings", _TARGET, _plain(h_score_regularized), "field"
    ),
    Metric("trans_rate", "TransRate", "higher", _ANY, "embeddings", _TARGET, _plain(trans_rate), "field"),
    Metric("leep", "LEEP", "higher", _ANY, "logits", _TARGET, _plain(leep), "field"),
    Metric("nce", "NCE, negative conditional entropy", "higher", _ANY, "logits", _TARGET, _plain(nce), "field"),
    Metric("knn_accuracy", "nearest-neighbour accuracy", "higher", _ANY, "embeddings", _TARGET, _plain(knn_accuracy), "field"),
    Metric(
        "linear_probe_accuracy",
        "linear probe accuracy",
        "higher",
        _ANY,
        "embeddings",
        _TARGET,
        _plain(linear_probe_accuracy),
        "field",
    ),
    Metric("nc2", "NC2, class means against a simplex", "lower", _ANY, "embeddings", _BOTH, _plain(nc2), "field"),
    Metric("nc3", "NC3, head against class means", "lower", _ANY, "weights", _SOURCE, _plain(nc3), "field"),
    Metric("nc4", "NC4, head agrees with nearest mean", "higher", _ANY, "predictions", _SOURCE, _plain(nc4), "field"),
    Metric("parc", "PARC", "higher", _ANY, "embeddings", _TARGET, _plain(parc), "field"),
    Metric("pactran_gaussian", "PACTran, Gaussian prior", "lower", _ANY, "embeddings", _TARGET, _plain(pactran_gaussian), "field"),
    Metric("n_leep", "N-LEEP", "higher", _ANY, "embeddings", _TARGET, _plain(n_leep), "field"),
)
"""Every metric, in the order of the report."""


def find_metrics(names: Iterable[str] | None) -> tuple[Metric, ...]:
    """Look metrics up by name.

    Args:
        names: names and groups (`core`, `field`, `all`) in any order, or None for the core.

    Returns:
        The metrics in the order of `METRICS`.

    Raises:
        RequestError: a name is unknown.
    """
    wanted = ["core"] if names is None else [names] if isinstance(names, str) else list(names)
    groups = {"all": [metric.name for metric in METRICS]}
    groups |= {group: [metric.name for metric in METRICS if metric.group == group] for group in ("core", "field")}
    known = groups["all"]
    if not wanted:
        raise RequestError(f"expected the name of at least one metric, found none; known: {', '.join(known)}")
    chosen: set[str] = set()
    for name in wanted:
        if name not in (*known, *groups):
            close = get_close_matches(name, [*known, *groups], n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join((*groups, *known))}"
            raise RequestError(f"expected the name of a metric, found {name!r}; {hint}")
        chosen.update(groups.get(name, [name]))
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


def _as_tensor(values: Any, what: str, ndim: int) -> Tensor:
    tensor = torch.as_tensor(np.asarray(values) if not isinstance(values, Tensor) else values).detach().cpu()
    if tensor.ndim != ndim:
        raise DataError(f"expected {what} of {ndim} dimensions, found shape {tuple(tensor.shape)}")
    return tensor


def _labels_of(labels: Any) -> tuple[Tensor, tuple[str, ...]]:
    given = _as_tensor(labels, "labels", 1)
    if given.is_floating_point() or given.dtype == torch.bool:
        raise DataError(f"expected integer labels, found {given.dtype}; convert them with .long() or astype(int)")
    values, inverse = torch.unique(given.to(torch.int64), return_inverse=True)
    return inverse, tuple(str(value) for value in values.tolist())


def evidence_of(embeddings: Any, labels: Any, logits: Any = None, energies: Any = None, head_weight: Any = None) -> Evidence:
    """Make evidence of arrays.

    Args:
        embeddings: (N, D) floating point array or tensor.
        labels: (N,) integers; classes are the values that occur.
        logits: (N, Z) outputs of the model's own head. For metrics that need its predictions, column c stands for label c.
        energies: (N,) energies of all images.
        head_weight: (K, D) of a linear head, its rows in the order of the labels' values.

    Returns:
        The evidence; its fingerprint is that of the labels, so that two models see the same episodes.

    Raises:
        DataError: shapes that disagree, NaN or infinite numbers, no images.
    """
    z = _as_tensor(embeddings, "embeddings", 2)
    z = z if z.dtype in (torch.float32, torch.float64) else z.to(torch.float64)
    inverse, names = _labels_of(labels)
    if len(z) != len(inverse) or not len(z):
        raise DataError(f"expected as many labels as embeddings and at least one, found {len(inverse)} and {len(z)}")
    if not bool(torch.isfinite(z).all()):
        row = int((~torch.isfinite(z)).any(1).nonzero()[0])
        raise DataError(f"expected finite embeddings, found NaN or inf in row {row}; leave it out or mend the encoder")
    moments = ClassMoments(len(names), z.shape[1])
    moments.update(z, inverse)
    fingerprint = hashlib.sha256(inverse.numpy().tobytes()).hexdigest()
    predictions, scores = None, None
    if logits is not None:
        scores = _as_tensor(logits, "logits", 2)
        if len(scores) != len(z):
            raise DataError(f"expected {len(z)} rows of logits, found {len(scores)}")
        if not bool(torch.isfinite(scores).all()):
            raise DataError("expected finite logits, found NaN or inf")
        renumber = {int(name): place for place, name in enumerate(names)}
        predictions = torch.tensor([renumber.get(c, -1) for c in scores.argmax(1).tolist()])
    values = None if energies is None else _as_tensor(energies, "energies", 1).to(torch.float64)
    if values is not None and len(values) != len(z):
        raise DataError(f"expected {len(z)} energies, one an image, found {len(values)}")
    if values is not None and not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise DataError("expected energies that are finite and not negative, found others; take them with gcaudit.energies")
    weight = None if head_weight is None else _as_tensor(head_weight, "head_weight", 2).to(torch.float64)
    if weight is not None and weight.shape != (len(names), z.shape[1]):
        raise DataError(f"expected head_weight of shape {(len(names), z.shape[1])}, found {tuple(weight.shape)}")
    return Evidence(
        embeddings=z,
        labels=inverse,
        class_names=names,
        moments=moments,
        fingerprint=fingerprint,
        energies=values,
        energy_rows=None if values is None else torch.arange(len(z)),
        estimator="given",
        predictions=predictions,
        predictions_reason="no logits were given",
        logits=scores,
        logits_reason="no logits were given",
        head_weight=weight,
        head_reason="no head_weight was given",
    )


def measure(
    embeddings: Any,
    labels: Any,
    logits: Any = None,
    metrics: Iterable[str] | None = None,
    *,
    energies: Any = None,
    head_weight: Any = None,
    probe: ProbeSettings | None = None,
) -> dict[str, Estimate]:
    """Measure embeddings that are already at hand.

    Args:
        embeddings: (N, D) floating point array or tensor.
        labels: (N,) integers; classes are the values that occur.
        logits: (N, Z) outputs of the model's own head, for LEEP and NCE; for `head_accuracy` and NC4 column c stands for label c.
        metrics: names from `gcaudit metrics`, or `all`; None takes the core metrics that the arguments allow.
        energies: (N,) from `gcaudit.energies`, for GC and geometric collapse.
        head_weight: (K, D) of a linear head, for NC3; its rows in the order of the labels' values.
        probe: settings of the few-shot probe.

    Returns:
        Estimates by metric name. What cannot be measured has value None and a reason.

    Raises:
        GcauditError: shapes that disagree, NaN embeddings, an unknown metric.

    Example:
        >>> measure([[-1.0], [1.0], [9.0], [11.0]], [0, 0, 1, 1], metrics=["cdnv"])["cdnv"].value
        0.01
    """
    chosen = find_metrics(metrics)
    evidence = evidence_of(embeddings, labels, logits, energies, head_weight)
    if metrics is None:
        have = {"embeddings"} | ({"predictions", "logits"} if logits is not None else set())
        have |= {"energies"} if energies is not None else set()
        chosen = tuple(metric for metric in chosen if metric.needs in have)
    return measure_evidence(evidence, chosen, probe or ProbeSettings())

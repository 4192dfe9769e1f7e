"""Measuring embeddings that are already at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcaudit.errors import DataError
from gcaudit.geometry import ClassMoments, Estimate, Evidence
from gcaudit.metrics.ridge import ProbeSettings
from gcaudit.metrics.table import find_metrics, measure_evidence


def _as_tensor(values: Any, what: str, ndim: int) -> Tensor:
    array = values if isinstance(values, Tensor) else np.asarray(values)
    if isinstance(array, np.ndarray) and array.dtype.kind not in "biufc":
        hint = "; number text by numpy.unique(labels, return_inverse=True)[1]" if what == "labels" else ""
        raise DataError(f"expected {what} that are numbers, found {array.dtype}{hint}")
    tensor = torch.as_tensor(array).detach().cpu()
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
        >>> measure([[-1.0], [1.0], [9.0], [11.0]], [0, 0, 1, 1], metrics=["cdnv"])["cdnv"].details["plug_in"]
        0.01
    """
    chosen = find_metrics(metrics)
    evidence = evidence_of(embeddings, labels, logits, energies, head_weight)
    if metrics is None:
        have = {"embeddings"} | ({"predictions", "logits"} if logits is not None else set())
        have |= {"energies"} if energies is not None else set()
        chosen = tuple(metric for metric in chosen if metric.needs in have)
    return measure_evidence(evidence, chosen, probe or ProbeSettings())

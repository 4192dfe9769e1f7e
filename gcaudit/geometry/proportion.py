"""Shares of images, averaged over classes of equal weight."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gcaudit.geometry.estimate import NORMAL_95, Estimate
from gcaudit.geometry.evidence import Evidence
from gcaudit.geometry.interval import student_95


def wilson(share: float, size: float, quantile: float = NORMAL_95) -> tuple[float, float]:
    """Return Wilson's interval of a share.

    Args:
        share: between 0 and 1.
        size: how many draws.
        quantile: of the error, in standard errors.

    Returns:
        Low and high, between 0 and 1.
    """
    z2 = quantile**2
    middle = (share + z2 / (2 * size)) / (1 + z2 / size)
    half = quantile / (1 + z2 / size) * math.sqrt(max(0.0, share * (1 - share) / size + z2 / (4 * size**2)))
    return max(0.0, middle - half) if share > 0 else 0.0, min(1.0, middle + half) if share < 1 else 1.0


def balanced_proportion(correct: Tensor, labels: Tensor, classes: int) -> Estimate:
    """Average a yes/no outcome over classes of equal weight.

    p = (1/K) sum_c p_c. The standard error s is that of stratified sampling, s^2 = sum_c p_c (1 - p_c) / (n_c - 1) / K^2. The interval is Wilson's at
    the number of simple draws that would have that error, p (1 - p)/s^2, with Student's quantile at Satterthwaite's degrees of freedom: so a rare
    class that differs from the others has its full say. Where all p_c are 0 or 1 there is no such number, and K^2 / sum_c (1/n_c) is taken.

    References: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927; Korn, Graubard, "Confidence intervals
    for proportions with small expected number of positive counts estimated from survey data", Survey Methodology 1998.

    Args:
        correct: (N,) bool.
        labels: (N,) int64 in 0..K-1, every class present.
        classes: K.

    Returns:
        The estimate, between 0 and 1.
    """
    counts = torch.bincount(labels, minlength=classes).to(torch.float64)
    hits = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, correct.to(torch.float64))
    share = hits / counts
    value = float(share.mean())
    simple = classes**2 / float((1 / counts).sum())
    if bool((counts < 2).any()):
        reason = "a class with a single image has no variance: no standard error"
        return Estimate(value, None, wilson(value, simple), len(labels), reason)
    influence = (correct.to(torch.float64) - share[labels]) / (classes * (counts * (counts - 1)).sqrt()[labels])
    error = float(influence.norm())
    if error == 0:
        return Estimate(value, 0.0, wilson(value, simple), len(labels), influence=influence)
    return _with_interval(Estimate(value, n=len(labels)), influence, labels, classes)


def _with_interval(found: Estimate, influence: Tensor, labels: Tensor, classes: int) -> Estimate:
    assert found.value is not None
    error = float(influence.norm())
    student = student_95(influence, labels, classes)
    interval = wilson(found.value, found.value * (1 - found.value) / error**2, student)
    return Estimate(found.value, error, interval, found.n, None, {**found.details, "student": student}, influence)


def with_influence(found: Estimate, influence: Tensor, evidence: Evidence) -> Estimate:
    """Give a share another standard error.

    Args:
        found: of `balanced_proportion`, or of a part of the images.
        influence: (N,) of all images.
        evidence: of these.

    Returns:
        The same value with the error and the interval that follow from the influence; as it is where that is 0, or the share 0 or 1.
    """
    if found.value in (None, 0.0, 1.0) or not bool(influence.any()):
        return found
    return _with_interval(found, influence, evidence.labels, evidence.classes)

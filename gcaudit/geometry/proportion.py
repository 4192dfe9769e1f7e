"""Shares of images, averaged over classes of equal weight."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gcaudit.geometry.estimate import NORMAL_95, Estimate


def balanced_proportion(correct: Tensor, labels: Tensor, classes: int) -> Estimate:
    """Average a yes/no outcome over classes of equal weight.

    p = (1/K) sum_c p_c. The standard error is that of stratified sampling, sqrt(sum_c p_c (1 - p_c) / (n_c - 1)) / K. The interval is
    Wilson's at the effective sample size K^2 / sum_c (1/n_c), which stays honest when p is 0 or 1.

    Reference: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

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
    size = classes**2 / float((1 / counts).sum())
    z2 = NORMAL_95**2
    middle = (value + z2 / (2 * size)) / (1 + z2 / size)
    half = NORMAL_95 / (1 + z2 / size) * math.sqrt(value * (1 - value) / size + z2 / (4 * size**2))
    interval = (max(0.0, middle - half), min(1.0, middle + half))
    if bool((counts < 2).any()):
        reason = "a class with a single image has no variance: no standard error"
        return Estimate(value, None, interval, len(labels), reason)
    influence = (correct.to(torch.float64) - share[labels]) / (classes * (counts * (counts - 1)).sqrt()[labels])
    return Estimate(value, float(influence.norm()), interval, len(labels), influence=influence)

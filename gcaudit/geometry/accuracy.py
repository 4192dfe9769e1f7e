"""Class-balanced accuracies: nearest class mean, and the model's own head."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gcaudit.geometry.estimate import NORMAL_95, Estimate, missing
from gcaudit.geometry.evidence import Evidence

_ROWS = 4096


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


def ncm_accuracy(evidence: Evidence) -> Estimate:
    """Measure the leave-one-out accuracy of the nearest-class-mean rule.

    An image's distance to its own class mean is multiplied by n_c/(n_c - 1), which is exactly the distance to the mean of the
    others of its class. Class-balanced share of images strictly nearest to their own. Invariant under scale, rotation and
    shift. The interval treats images as independent given the class means.

    Args:
        evidence: at least two classes with at least two images each.

    Returns:
        The estimate, between 0 and 1.
    """
    counts = evidence.moments.counts
    if evidence.classes < 2:
        return missing(f"a nearest-mean rule needs at least 2 classes, found {evidence.classes}", evidence.images)
    if bool((counts < 2).any()):
        name = evidence.class_names[int(torch.argmin(counts))]
        return missing(f"class {name!r} has 1 image: leaving it out leaves no mean", evidence.images)
    if reason := evidence.moments.range_reason:
        return missing(reason, evidence.images)
    if evidence.moments.all_equal:
        return missing("all embeddings are equal: none is nearer than another", evidence.images)
    centre = evidence.moments.means.mean(0)
    means = evidence.moments.means - centre
    factor = (counts / (counts - 1)).to(torch.float64)
    correct = torch.empty(evidence.images, dtype=torch.bool)
    for start in range(0, evidence.images, _ROWS):
        rows = slice(start, start + _ROWS)
        labels = evidence.labels[rows, None]
        z = evidence.embeddings[rows].to(torch.float64) - centre
        distances = torch.cdist(z, means, compute_mode="donot_use_mm_for_euclid_dist")
        own = distances.gather(1, labels) * factor[labels]
        others = distances.scatter(1, labels, torch.inf).min(1).values
        correct[rows] = own[:, 0] < others
    return balanced_proportion(correct, evidence.labels, evidence.classes)


def head_accuracy(evidence: Evidence) -> Estimate:
    """Measure the top-1 accuracy of the model's own head: a check that preprocessing and labels are right.

    Class-balanced. It is meaningful when the head was trained on these classes in this order; a checkpoint that is known
    to be good and scores near chance here has been given other preprocessing, or other labels, than in training.

    Args:
        evidence: with predictions.

    Returns:
        The estimate, between 0 and 1.
    """
    if evidence.predictions is None:
        return missing(evidence.predictions_reason)
    return balanced_proportion(evidence.predictions == evidence.labels, evidence.labels, evidence.classes)

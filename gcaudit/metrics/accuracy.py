"""Class-balanced accuracies: nearest class mean, and the model's own head."""

from __future__ import annotations

import torch

from gcaudit.geometry import Estimate, Evidence, balanced_proportion, missing

_ROWS = 4096


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

"""Class-balanced accuracies: nearest class mean, and the model's own head.

Every class has equal weight, so that a chance guess is right in 1/K of cases whatever the numbers of images.

Reference: Mensink, Verbeek, Perronnin, Csurka, "Distance-based image classification: generalizing to new classes at near-zero cost", IEEE Transactions on
Pattern Analysis and Machine Intelligence 2013.
"""

from __future__ import annotations

import torch

from gcaudit.geometry import Estimate, Evidence, balanced_proportion, missing, nearest_mean_share


def ncm_accuracy(evidence: Evidence) -> Estimate:
    """Measure the accuracy of the nearest-class-mean rule with the class means of the distribution.

    Class-balanced share of images that are nearest to the mean of their class; what the noise of means of few images costs is taken off
    (`geometry/nearest_mean.py`). Invariant under scale, rotation and shift.

    Args:
        evidence: at least two classes with at least 3 images each.

    Returns:
        The estimate, between 0 and 1. `plug_in` is the leave-one-out accuracy with the means of the images at hand: an image's distance to its own class
        mean is multiplied by n_c/(n_c - 1), which is exactly the distance to the mean of the others of its class; ties are wrong.
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
    return nearest_mean_share(evidence, evidence.labels)


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

"""Accuracy of a linear probe: logistic regression on frozen embeddings, the number that most papers report.

Multinomial logistic regression with a squared penalty and a free intercept, C = 1 in scikit-learn's terms: minimise the sum of cross-entropies plus
|W|^2 / 2. Embeddings are centred and divided by one number, so that their coordinates have variance 1 on average; that makes the penalty free
of unit, shift and rotation, which standardising each coordinate would not. Two classes have one vector of weights, as in scikit-learn.

Accuracy is that of held-out images in 5-fold cross-validation, stratified by class, the folds drawn from the fingerprint of the data; with fewer than 5
images in a class there are as many folds as the smallest class has images.

Reference: Kornblith, Shlens, Le, "Do better ImageNet models transfer better?", CVPR 2019 (logistic regression on fixed features).
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from gcaudit.geometry import (
    Estimate,
    Evidence,
    balanced_subset,
    derive_seed,
    labels_reason,
    missing,
    random_order_keys,
    single_image_reason,
    subset_accuracy,
)

_IMAGES = 20000
_FOLDS = 5
_PENALTY = 1.0
_ITERATIONS = 1000


def stratified_folds(labels: Tensor, index: Tensor, folds: int, seed: int) -> Tensor:
    """Deal the images of each class to folds in random order.

    Args:
        labels: (n,) int64.
        index: (n,) int64 index of each image in its data set.
        folds: how many.
        seed: of the order.

    Returns:
        (n,) int64 in 0..folds-1; sizes of folds differ by at most 1.
    """
    by_key = torch.argsort(random_order_keys(seed, index), stable=True)
    by_class = by_key[torch.argsort(labels[by_key], stable=True)]
    fold = torch.empty_like(labels)
    fold[by_class] = torch.arange(len(labels)) % folds
    return fold


def held_out_predictions(z: Tensor, labels: Tensor, fold: Tensor) -> Tensor:
    """Predict the class of each image by a model of the other folds.

    Args:
        z: (n, D) float64.
        labels: (n,) int64.
        fold: (n,) int64; every class is in at least two folds.

    Returns:
        (n,) int64. Where the solver has not converged after 1000 iterations, its last iterate is the model.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    found = torch.empty_like(labels)
    for number in range(int(fold.max()) + 1):
        test = fold == number
        model = LogisticRegression(C=_PENALTY, max_iter=_ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(z[~test].numpy(), labels[~test].numpy())
        found[test] = torch.from_numpy(model.predict(z[test].numpy()))
    return found


def linear_probe_accuracy(evidence: Evidence) -> Estimate:
    """Measure the cross-validated accuracy of logistic regression.

    Class-balanced. Of more than 20,000 images a class-balanced 20,000 are taken; n says how many. The interval treats images as independent given the
    models that were fitted.

    Args:
        evidence: at least two classes with at least two images each.

    Returns:
        The estimate, between 0 and 1. Invariant under scale, rotation and shift, up to the tolerance of the solver.
    """
    reason = labels_reason(evidence)
    if reason:
        return missing(reason, evidence.images)
    rows = balanced_subset(evidence, "linear_probe_accuracy", _IMAGES)
    reason = single_image_reason(evidence, rows)
    if reason:
        return missing(reason, len(rows))
    labels = evidence.labels[rows]
    folds = min(_FOLDS, int(torch.bincount(labels).min()))
    z = evidence.embeddings[rows].to(torch.float64) - evidence.moments.means.mean(0)
    z -= z.mean(0)
    z /= z.square().mean().sqrt()
    fold = stratified_folds(labels, rows, folds, derive_seed(0, "linear_probe_accuracy", evidence.fingerprint))
    return subset_accuracy(held_out_predictions(z, labels, fold) == labels, rows, evidence)

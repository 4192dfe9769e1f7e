"""LEEP and NCE: how well the classes a model was trained on predict the classes of new data.

Both need the outputs of the model's own head on the new images, whatever classes it was trained on, and nothing else. With theta_iz the
probability that the head gives image i for its class z (softmax of its outputs), and y_i the label of the image,

    P(t, z) = 1/N sum over images with label t of theta_iz,     P(t | z) = P(t, z) / sum_t P(t, z)
    LEEP    = 1/N sum_i ln sum_z P(y_i | z) theta_iz
    NCE     = sum over t, z of Q(t, z) ln Q(t | z),   Q like P with theta_i replaced by 1 at the head's largest output

NCE is minus the conditional entropy of the label given the head's answer. Natural logarithm, 0 ln 0 = 0, images have equal weight as in both
papers, and no small numbers are added anywhere: P(y_i | z) theta_iz is positive at the z that image i itself supports. Published
codes add 1e-20 to 1e-5 inside of NCE, where the last changes the third digit; others give LEEP without the logarithm, or NCE with
soft answers, which is another score.

Both are at most 0. NCE is never below minus the entropy of the labels, what guessing by frequency gives.

References: Nguyen, Hassner, Seeger, Archambeau, "LEEP: a new measure to evaluate transferability of learned representations", ICML 2020; Tran,
Nguyen, Hassner, "Transferability and hardness of supervised classification tasks", ICCV 2019 (NCE).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gcaudit.geometry import ONE_IMAGE, Estimate, Evidence, centred_influence, missing, normal_estimate

_ROWS = 4096


def leep_of(probabilities: Callable[[slice], Tensor], labels: Tensor, classes: int, states: int) -> tuple[Tensor, Tensor]:
    """Evaluate LEEP, going three times through the probabilities.

    With s_i = sum_z P(y_i|z) theta_iz and A(t, z) = 1/N sum over images with label t of theta_iz / s_i, the derivative by the weight of image k is
    ln s_k + sum_z theta_kz / P(z) * (A(y_k, z) - sum_t P(t|z) A(t, z)).

    Args:
        probabilities: gives theta of some rows, (B, Z) float64 whose rows sum to 1.
        labels: (N,) int64 in 0..K-1.
        classes: K.
        states: Z.

    Returns:
        LEEP, and (N,) float64 derivatives of it by the images' weights.
    """
    parts = [slice(start, start + _ROWS) for start in range(0, len(labels), _ROWS)]
    joint = torch.zeros(classes, states, dtype=torch.float64)
    for rows in parts:
        joint.index_add_(0, labels[rows], probabilities(rows) / len(labels))
    marginal = joint.sum(0)
    inverse = torch.where(marginal > 0, 1 / marginal, torch.zeros_like(marginal))
    conditional = joint * inverse
    gradient = torch.empty(len(labels), dtype=torch.float64)
    pull = torch.zeros_like(joint)
    for rows in parts:
        theta = probabilities(rows)
        shares = (conditional[labels[rows]] * theta).sum(1)
        gradient[rows] = shares.log()
        pull.index_add_(0, labels[rows], theta / (shares * len(labels))[:, None])
    value = gradient.mean()
    slope = (pull - (conditional * pull).sum(0)) * inverse
    for rows in parts:
        gradient[rows] += (slope[labels[rows]] * probabilities(rows)).sum(1)
    return value, gradient


def _reason(evidence: Evidence) -> str | None:
    if evidence.logits is None:
        return evidence.logits_reason
    if evidence.classes < 2:
        return f"predicting labels needs at least 2 classes, found {evidence.classes}"
    return None


def leep(evidence: Evidence) -> Estimate:
    """Measure LEEP, the log expected empirical prediction.

    Args:
        evidence: with logits; at least two classes.

    Returns:
        The estimate in nats, at most 0; higher is better. Invariant under a constant added to all outputs of an image, and under the order of
        the outputs.

    Example:
        Two images of each of two classes and a head that is sure of z = 0 for the first three, z = 1 for the last:
        P(first | 0) = 2/3, P(second | 0) = 1/3, P(second | 1) = 1, LEEP = (2 ln 2/3 + ln 1/3 + ln 1)/4.
    """
    reason = _reason(evidence)
    if reason or evidence.logits is None:
        return missing(str(reason), evidence.images)
    logits = evidence.logits

    def probabilities(rows: slice) -> Tensor:
        return torch.softmax(logits[rows].to(torch.float64), 1)

    value, gradient = leep_of(probabilities, evidence.labels, evidence.classes, logits.shape[1])
    return normal_estimate(value, centred_influence(gradient, evidence.labels, evidence.classes), evidence.images, ONE_IMAGE)


def nce(evidence: Evidence) -> Estimate:
    """Measure the negative conditional entropy of the label given the class that the model's own head says.

    The derivative by the weight of an image is ln Q(y_i | z_i) up to a constant. Where a head says one of many classes to few
    images, NCE is too high: an answer that is given once predicts its label without error.

    Args:
        evidence: with logits; at least two classes.

    Returns:
        The estimate in nats, at most 0; higher is better. Invariant under any increasing function of the outputs of an image.
    """
    reason = _reason(evidence)
    if reason or evidence.logits is None:
        return missing(str(reason), evidence.images)
    labels, states = evidence.labels, evidence.logits.shape[1]
    answers = torch.empty_like(labels)
    for start in range(0, len(labels), _ROWS):
        rows = slice(start, start + _ROWS)
        answers[rows] = evidence.logits[rows].argmax(1)
    counts = torch.bincount(labels * states + answers, minlength=evidence.classes * states).reshape(-1, states)
    found, given = counts[labels, answers], counts.sum(0)[answers]
    gradient = (found.to(torch.float64) / given).log()
    return normal_estimate(gradient.mean(), centred_influence(gradient, labels, evidence.classes), evidence.images, ONE_IMAGE)

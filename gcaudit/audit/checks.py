"""A check that costs nothing: does the model's head answer as if labels and preprocessing were those of its training?"""

from __future__ import annotations

import torch
from torch import Tensor

from gcaudit.geometry import Evidence
from gcaudit.report import ReportWarning, warn

_FEWEST = 20
_GAIN = 0.2
"""A permutation of classes that raises the accuracy of the head by so much is no accident."""


def head_warnings(evidence: Evidence) -> list[ReportWarning]:
    """Look whether the model's head answers as if labels or preprocessing were those of its training.

    With the (K, K) table of labels and answers, class-balanced accuracy is the mean of its diagonal of shares. Another order of the classes is
    looked for, greedily, where the largest shares of all labels allow a far better one.

    Args:
        evidence: with the head's predictions, where it has the classes of the data.

    Returns:
        A warning where another order of classes would give a far better accuracy, or where the accuracy is that of chance.
    """
    if evidence.predictions is None or evidence.classes < 2 or evidence.images < _FEWEST:
        return []
    table = _shares(evidence.labels, evidence.predictions, evidence.classes)
    accuracy = float(table.diagonal().mean())
    best = float(table.max(1).values.mean())
    if best >= accuracy + _GAIN:
        best = _reordered(table)
    if best >= accuracy + _GAIN:
        line = (
            f"the model's head is right for {accuracy:.3f} of the images, and for {best:.3f} with its classes in another order: "
            "are the labels in the order of training?"
        )
        return [warn("head", line)]
    chance = 1 / evidence.classes
    error = (chance * (1 - chance) / evidence.images) ** 0.5
    if accuracy <= chance + 2 * error:
        line = f"the model's head is right for {accuracy:.3f} of the images, chance is {chance:.3f}: are preprocessing, labels and weights those of training?"
        return [warn("head", line)]
    return []


def _shares(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """Return, for each label, the share of each answer; answers outside of the classes are left out of the table."""
    known = predictions >= 0
    counts = torch.bincount(labels[known] * classes + predictions[known], minlength=classes * classes).view(classes, classes)
    return counts.to(torch.float64) / torch.bincount(labels, minlength=classes).clamp(min=1)[:, None]


def _reordered(table: Tensor) -> float:
    """Return the accuracy in another order of classes: the largest shares one after the other, each label and answer once."""
    left, total = table.clone(), 0.0
    for _ in range(len(table)):
        row, column = divmod(int(left.argmax()), len(table))
        total += float(table[row, column])
        left[row, :] = left[:, column] = -1
    return total / len(table)

"""When enough images have been looked at: the stopping rule of GC.

GC is a mean over images, so its standard error falls as one over the square root of their number, and how many are needed depends on
how much they differ. The rule looks at fixed counts, 256 * 2^k with at least 5 images a class, of the seeded class-balanced order,
and stops at the first where

    standard error of GC <= rtol * GC

A rule that looked after every batch would depend on the batch size, and would stop too often at a lucky moment: at a few
doublings the interval keeps its coverage.

Reference: Chow, Robbins, "On the asymptotic theory of fixed-width sequential confidence intervals for the mean", Annals of
Mathematical Statistics 1965.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcaudit.geometry.tails import tail_reason

FIRST_LOOK = 256
IMAGES_PER_CLASS = 5


def look_counts(images: int, classes: int, rtol: float) -> tuple[int, ...]:
    """List the numbers of images after which the rule looks.

    Args:
        images: the most that may be used.
        classes: K.
        rtol: 0 never stops before the end.

    Returns:
        Ascending counts; the last is `images`.

    Example:
        >>> look_counts(1000, 10, 0.02)
        (256, 512, 1000)
        >>> look_counts(1000, 10, 0.0)
        (1000,)
    """
    found = []
    count = FIRST_LOOK
    while rtol > 0 and count < images:
        if count >= IMAGES_PER_CLASS * classes:
            found.append(count)
        count *= 2
    return (*found, images)


def relative_error(energies: Tensor, labels: Tensor, classes: int) -> float:
    """Return the standard error of GC divided by GC.

    Args:
        energies: (M,) float64.
        labels: (M,) int64 in 0..K-1.
        classes: K.

    Returns:
        A number >= 0; infinite when a class has fewer than two energies, or when their tail is so heavy that no interval can be trusted. 0
        when all energies are 0.
    """
    counts = torch.bincount(labels, minlength=classes).to(torch.float64)
    if bool((counts < 2).any()) or tail_reason(energies) is not None:
        return float("inf")
    means = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, energies) / counts
    squares = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, (energies - means[labels]).square())
    error = float((squares / (counts * (counts - 1))).sum().sqrt()) / classes
    value = float(means.mean())
    return error / value if value > 0 else 0.0

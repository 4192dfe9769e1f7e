"""What is kept of the classes of one data set, to be set beside those of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gcaudit.geometry.conditions import energies_reason, single_reason
from gcaudit.geometry.counter import derive_seed, random_order_keys
from gcaudit.geometry.delta import class_complexities
from gcaudit.geometry.evidence import Evidence
from gcaudit.geometry.rows import chunks


@final
@dataclass(frozen=True)
class ClassSummary:
    """Classes of one data set.

    Attributes:
        names: K names.
        means: (2, K, D) float64 means of two halves of each class's images, drawn at random.
        counts: (2, K) int64 images behind them.
        variances: (K,) float64 u_c.
        complexities: (K,) float64 GC_c, or None where the Jacobian was not measured in each class.
        reason: why nothing can be measured of them; empty where it can.
    """

    names: tuple[str, ...]
    means: Tensor
    counts: Tensor
    variances: Tensor
    complexities: Tensor | None
    reason: str = ""

    @property
    def whole(self) -> Tensor:
        """(K, D) means of all images."""
        shares = self.counts.double() / self.counts.sum(0)
        found: Tensor = (shares[:, :, None] * self.means).sum(0)
        return found

    @property
    def noise(self) -> Tensor:
        """(K, D), one draw of what `whole` is off by: a multiple of the difference of both halves, whose mean square is that of the error."""
        first, second = self.counts.double()
        found: Tensor = (first * second).sqrt()[:, None] / (first + second)[:, None] * (self.means[0] - self.means[1])
        return found


def summarise_classes(evidence: Evidence) -> ClassSummary:
    """Summarise the classes of a data set.

    Args:
        evidence: the observed images.

    Returns:
        The summary; which half an image is in depends on the data's fingerprint alone.
    """
    labels, classes = evidence.labels, evidence.classes
    keys = random_order_keys(derive_seed(0, "halves", evidence.fingerprint), torch.arange(len(labels)))
    order = torch.argsort(keys)
    order = order[torch.argsort(labels[order], stable=True)]
    counts = torch.bincount(labels, minlength=classes)
    place = torch.arange(len(labels)) - (torch.cumsum(counts, 0) - counts)[labels[order]]
    half = torch.empty_like(labels)
    half[order] = place % 2
    group = half * classes + labels
    centre = evidence.moments.means  # sums about it lose nothing to an offset
    sums = torch.zeros(2 * classes, centre.shape[1], dtype=torch.float64)
    for part, z in chunks(evidence.embeddings):
        sums.index_add_(0, group[part], z - centre[labels[part]])
    sizes = torch.bincount(group, minlength=2 * classes)
    means = (sums / sizes.clamp(min=1)[:, None]).view(2, classes, -1) + centre
    complexities = None if energies_reason(evidence) else class_complexities(evidence)
    reason = single_reason(evidence) or evidence.moments.range_reason or ""
    return ClassSummary(evidence.class_names, means, sizes.view(2, classes), evidence.moments.variances(1), complexities, reason)

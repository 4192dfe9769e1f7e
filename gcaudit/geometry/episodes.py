"""How much a mean accuracy over episodes owes to each image of the pool.

Episodes drawn from a pool of images make an incomplete U-statistic of the pool: more of them bring the mean closer to that of all episodes of this pool, and
not closer to that of other images. By the infinitesimal jackknife, with E episodes that draw n_way classes with n_shot support and q query images each,

    psi_k = (1/E) sum over episodes of [k in the support] (a - a_classes) + [k among the queries] (right_k - a_c)/(n_way q)

is the influence of image k of class c: a is the accuracy of the episode, a_c that of class c in all episodes, a_classes the mean of a_c over the episode's
classes, and psi is centred within each class. With n_c images of which n_shot are support, an episode sees other supports than its pool's twin with an
image left out would: the factor (n_c - 1)/(n_c - n_shot) makes it the jackknife.

With few episodes an image psi_k is mostly noise of the draw. So it is computed for each half of the episodes; the sum of products of both halves is free of
that noise. What the draw itself adds to the error is the variance over episodes divided by E.

References: Hoeffding, "A class of statistics with asymptotically normal distribution", Annals of Mathematical Statistics 1948; Wager, Hastie, Efron,
"Confidence intervals for random forests: the jackknife and the infinitesimal jackknife", JMLR 2014 (noise of the draw).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

HALVES = 2


@final
class EpisodeInfluence:
    """Collects what episodes say of images; `update` with chunks of episodes, then `compute`."""

    def __init__(self, labels: Tensor, classes: int) -> None:
        """Start with nothing.

        Args:
            labels: (N,) int64 of the pool.
            classes: K.
        """
        self._labels = labels
        self._counts = torch.bincount(labels, minlength=classes).to(torch.float64)
        self._episodes = torch.zeros(HALVES, dtype=torch.float64)
        self._right = torch.zeros(HALVES, len(labels), dtype=torch.float64)
        self._asked = torch.zeros(HALVES, len(labels), dtype=torch.float64)
        self._supports: list[Tensor] = []
        self._ways: list[Tensor] = []
        self._accuracies: list[Tensor] = []

    def update(self, numbers: Tensor, support: Tensor, query: Tensor, present: Tensor, correct: Tensor) -> None:
        """Add episodes.

        Args:
            numbers: (B,) int64 of the episodes; even and odd ones make the halves.
            support: (B, n_way, n_shot) int64 rows of the pool.
            query: (B, n_way, Q) int64 rows.
            present: (B, n_way, Q) bool, which queries are real.
            correct: (B, n_way, Q) bool, which of them are answered rightly.
        """
        sizes = present.sum(2).to(torch.float64)
        weight = present / (support.shape[1] * sizes)[:, :, None]
        for half in range(HALVES):
            mine = numbers % HALVES == half
            self._episodes[half] += int(mine.sum())
            rows = query[mine].flatten()
            self._right[half].index_add_(0, rows, (weight * correct)[mine].flatten())
            self._asked[half].index_add_(0, rows, weight[mine].flatten())
        self._supports.append(support.to(torch.int32))
        self._ways.append(self._labels[support[:, :, 0]].to(torch.int32))
        self._accuracies.append(correct.sum(2) / sizes)

    def compute(self) -> Tensor | None:
        """Return the influences.

        Returns:
            (2, N) float64 of both halves, the sum of whose products is the variance that the images bring; None with fewer than 2 episodes.
        """
        if not bool((self._episodes > 0).all()):
            return None
        supports, ways, accuracies = (torch.cat(parts) for parts in (self._supports, self._ways, self._accuracies))
        labels, shots = self._labels, supports.shape[2]
        flat = ways.flatten().to(torch.int64)
        asked = torch.bincount(flat, minlength=len(self._counts)).clamp(min=1)
        typical = torch.zeros_like(self._counts).index_add_(0, flat, accuracies.flatten()) / asked
        surplus = accuracies.mean(1) - typical[ways.to(torch.int64)].mean(1)
        found = self._right - self._asked * typical[labels]
        for half in range(HALVES):
            rows = supports[half::HALVES].flatten().to(torch.int64)
            found[half].index_add_(0, rows, surplus[half::HALVES].repeat_interleave(supports[0].numel()))
        found = found / self._episodes[:, None]
        centre = torch.zeros(HALVES, len(self._counts), dtype=torch.float64).index_add_(1, labels, found) / self._counts
        left = (self._counts - shots).clamp(min=1)
        scale = (self._counts / (self._counts - 1).clamp(min=1)).sqrt() * (self._counts - 1) / left
        return (found - centre[:, labels]) * scale[labels]

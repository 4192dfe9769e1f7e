"""Class means and variances of a stream of embeddings."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

_SMALLEST = 1e3 * torch.finfo(torch.float64).tiny


@final
class ClassMoments:
    """Counts, means and sums of squared deviations per class, in float64.

    Each batch is reduced about its own class means and then merged with the pairwise update of Chan et al., so nothing is
    ever subtracted that is large beside the result: with float64 embeddings a common offset of 1e4 leaves the variances alone.
    `merge` is associative up to rounding, so shards can be reduced in any tree.

    Reference: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
    COMPSTAT 1982.

    Attributes:
        counts: (K,) int64 images of each class.
        means: (K, D) float64 class means; 0 for empty classes.
        squares: (K,) float64 sums of squared distances to the class mean.

    Example:
        >>> moments = ClassMoments(1, 1)
        >>> moments.update(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]))
        >>> moments.means.item(), moments.variances().item()
        (2.0, 1.0)
    """

    def __init__(self, classes: int, dim: int, device: torch.device | str = "cpu") -> None:
        """Start empty.

        Args:
            classes: K.
            dim: D.
            device: where the state lives.
        """
        self.counts = torch.zeros(classes, dtype=torch.int64, device=device)
        self.means = torch.zeros(classes, dim, dtype=torch.float64, device=device)
        self.squares = torch.zeros(classes, dtype=torch.float64, device=device)

    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            embeddings: (N, D), any floating type.
            labels: (N,) int64 in 0..K-1.
        """
        z = embeddings.detach().to(self.means)
        labels = labels.to(self.means.device)
        if not len(z):
            return
        order = torch.argsort(labels, stable=True)
        z, labels = z[order], labels[order]
        # groups are numbered without asking how many there are, which would make the host wait for the device
        first = torch.ones_like(labels, dtype=torch.bool)
        first[1:] = labels[1:] != labels[:-1]
        local = torch.cumsum(first, 0) - 1
        slots = min(len(z), len(self.counts))
        counts = torch.zeros(slots, dtype=torch.int64, device=z.device).index_add_(0, local, torch.ones_like(labels))
        present = torch.zeros(slots, dtype=torch.int64, device=z.device).index_copy_(0, local, labels)
        rows = counts.clamp(min=1)[:, None].to(z.dtype)
        means = z.new_zeros(slots, z.shape[1]).index_add_(0, local, z) / rows
        deviations = z - means[local]
        correction = torch.zeros_like(means).index_add_(0, local, deviations) / rows
        means += correction
        squares = (deviations - correction[local]).square().sum(1)
        self._absorb(present, counts, means, z.new_zeros(slots).index_add_(0, local, squares))

    def merge(self, other: ClassMoments) -> None:
        """Add the images behind another ClassMoments of the same shape.

        Args:
            other: moments of disjoint images; left as it is.
        """
        present = torch.nonzero(other.counts).flatten()
        parts = (other.counts[present], other.means[present], other.squares[present])
        counts, means, squares = (part.to(self.means.device) for part in parts)
        self._absorb(present.to(self.means.device), counts, means, squares)

    def _absorb(self, present: Tensor, counts: Tensor, means: Tensor, squares: Tensor) -> None:
        """Add groups; each class occurs once among those with a count, empty groups may name any."""
        old = self.counts[present].to(torch.float64)
        new = counts.to(torch.float64)
        total = (old + new).clamp(min=1)
        shift = means - self.means[present]
        squares = squares + shift.square().sum(1) * (old * new / total)
        shift *= (new / total)[:, None]
        # nothing below asks for memory, so that the state is never half updated
        self.means.index_add_(0, present, shift)
        self.squares.index_add_(0, present, squares)
        self.counts.index_add_(0, present, counts)

    def cpu(self) -> ClassMoments:
        """Return the same moments on the CPU."""
        found = ClassMoments(*self.means.shape)
        found.merge(self)
        return found

    @property
    def all_equal(self) -> bool:
        """Whether all embeddings are the same point."""
        return bool((self.squares <= 0).all()) and bool((self.means == self.means[0]).all())

    @property
    def range_reason(self) -> str | None:
        """Why the embeddings cannot be squared: they are too large, or too small; None when they can."""
        total = float(self.squares.sum() + (self.counts * self.means.square().sum(1)).sum())
        if not math.isfinite(total):
            return "the squares of the embeddings are beyond the range of 64-bit floating point"
        if total < _SMALLEST and not self.all_equal:
            return "the squares of the embeddings are below the range of 64-bit floating point"
        return None

    def variances(self, ddof: int = 0) -> Tensor:
        """Return the class variances v_c (ddof=0) or u_c (ddof=1).

        Args:
            ddof: what is subtracted from n_c in the denominator.

        Returns:
            (K,) float64; NaN where n_c <= ddof.
        """
        denominator = (self.counts - ddof).to(torch.float64)
        return torch.where(denominator > 0, self.squares / denominator, torch.nan)

"""Class means and variances of a stream of embeddings."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor


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
        present, local = torch.unique(labels, return_inverse=True)
        counts = torch.bincount(local, minlength=len(present))
        rows = counts[:, None].to(z.dtype)
        means = torch.zeros(len(present), z.shape[1], dtype=z.dtype, device=z.device).index_add_(0, local, z) / rows
        deviations = z - means[local]
        correction = torch.zeros_like(means).index_add_(0, local, deviations) / rows
        means += correction
        squares = (deviations - correction[local]).square().sum(1)
        sums = torch.zeros(len(present), dtype=z.dtype, device=z.device).index_add_(0, local, squares)
        self._absorb(present, counts, means, sums)

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
        old = self.counts[present].to(torch.float64)
        new = counts.to(torch.float64)
        total = old + new
        shift = means - self.means[present]
        self.means[present] += shift * (new / total)[:, None]
        self.squares[present] += squares + shift.square().sum(1) * (old * new / total)
        self.counts[present] += counts

    @property
    def all_equal(self) -> bool:
        """Whether all embeddings are the same point."""
        return bool((self.squares <= 0).all()) and bool((self.means == self.means[0]).all())

    def variances(self, ddof: int = 0) -> Tensor:
        """Return the class variances v_c (ddof=0) or u_c (ddof=1).

        Args:
            ddof: what is subtracted from n_c in the denominator.

        Returns:
            (K,) float64; NaN where n_c <= ddof.
        """
        denominator = (self.counts - ddof).to(torch.float64)
        return torch.where(denominator > 0, self.squares / denominator, torch.nan)

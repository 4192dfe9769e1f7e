"""One decomposition of the embeddings, shared by all scores that are made of singular values.

X: (N, D) embeddings; Y: (N, K) one-hot labels; mu_c: class means. A score that does not depend on the order of the images within
a class and is built from X, Y and linear algebra sees the images only through X^T X, X^T Y and Y^T Y. A small table has exactly
these inner products:

    a row sqrt(n_c) mu_c for each class, which carries the label sqrt(n_c) e_c, and below
    the rows of W, which carry no label: W^T W = sum_i (x_i - mu_y)(x_i - mu_y)^T, W triangular.

It has at most K + D rows. Subtracting the mean of all images from the mu_c makes it the table of the centred embeddings. Hence
one pass over the images, and then a thin singular value decomposition of at most K + D rows for the raw, and one for the centred
embeddings, when asked for.

W comes from a QR factorisation, block by block: W of the rows so far and the next rows give the next W. Nothing is ever squared,
so a small singular value s_k has the relative error eps * s_1 / s_k, where X^T X would give eps * (s_1 / s_k)^2; and deviations
from class means are small before they are used, so an offset that all images share costs nothing. D > N is no special case.

What cannot be told from rounding is taken for 0: singular values up to max(N, D) * eps * s_1 (the usual cut of a numerical rank),
plus sqrt(N) * eps * |mu|, the rounding of the means of embeddings that lie far from the origin.

Reference: Demmel, Grigori, Hoemmen, Langou, "Communication-optimal parallel and sequential QR and LU factorizations", SIAM
Journal on Scientific Computing 2012 (QR in blocks).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from gcaudit.geometry.moments import ClassMoments
from gcaudit.geometry.rows import Rows, chunks

_KEPT = 8192
_EPS = torch.finfo(torch.float64).eps


@final
@dataclass(frozen=True)
class Decomposition:
    """The thin singular value decomposition X = U diag(values) directions^T, cut at the numerical rank r.

    Attributes:
        values: (r,) float64 singular values, largest first, all positive.
        directions: (D, r) float64 right singular vectors, in columns.
        targets: (r, K) float64 U^T Y: the one-hot labels along the left singular vectors.
        residuals: (K,) float64 squared distance of each column of Y to the columns of X; not a difference of large numbers.
        embeddings: (N, D) rows before `centre` is subtracted.
        centre: (D,) float64 what is subtracted from them to make X.
    """

    values: Tensor
    directions: Tensor
    targets: Tensor
    residuals: Tensor
    embeddings: Rows
    centre: Tensor

    @property
    def rank(self) -> int:
        """r, the number of singular values that can be told from 0."""
        return len(self.values)

    def left(self) -> Iterator[tuple[slice, Tensor]]:
        """Go through U, which has a row an image; it is kept for the next time where images are few.

        Yields:
            Which rows, and these rows of U, (B, r) float64.
        """
        return iter(self._blocks) if self.embeddings.shape[0] <= _KEPT else self._project()

    @cached_property
    def _blocks(self) -> tuple[tuple[slice, Tensor], ...]:
        return tuple(self._project())

    def _project(self) -> Iterator[tuple[slice, Tensor]]:
        scaled = self.directions / self.values
        for rows, x in chunks(self.embeddings):
            yield rows, (x - self.centre) @ scaled


@final
@dataclass(frozen=True)
class Spectrum:
    """The embeddings, compressed to a table with the same inner products, and its singular values.

    Principal components of an image are `(x - spectrum.centre) @ spectrum.directions`; the variance of the k-th, divided by N, is
    `spectrum.values[k] ** 2 / N`.

    Attributes:
        embeddings: (N, D) as they were given.
        counts: (K,) float64 n_c.
        centre: (D,) float64 mean of all images.
        offsets: (K, D) float64 class means less `centre`, more exact than the difference of the two.
        within: (R, D) float64 W, R <= min(N, D), with W^T W the sum over images of (x - mu_y)(x - mu_y)^T.
        rounding: a singular value of this size may be rounding of the class means alone.
    """

    embeddings: Rows
    counts: Tensor
    centre: Tensor
    offsets: Tensor
    within: Tensor
    rounding: float

    @cached_property
    def raw(self) -> Decomposition:
        """Of the embeddings as they are."""
        return self._decompose(torch.zeros_like(self.centre))

    @cached_property
    def centred(self) -> Decomposition:
        """Of the embeddings less the mean of all images."""
        return self._decompose(self.centre)

    @property
    def values(self) -> Tensor:
        """(r,) singular values of the centred embeddings, largest first."""
        return self.centred.values

    @property
    def directions(self) -> Tensor:
        """(D, r) principal directions, in columns: right singular vectors of the centred embeddings."""
        return self.centred.directions

    def _decompose(self, centre: Tensor) -> Decomposition:
        roots = self.counts.sqrt()
        table = torch.cat((roots[:, None] * (self.offsets + (self.centre - centre)), self.within))
        left, values, right = torch.linalg.svd(table, full_matrices=False)
        cut = max(self.embeddings.shape) * _EPS * float(values[0]) + self.rounding
        rank = int((values > cut).sum())
        left, classes = left[:, :rank], len(roots)
        rest = -left @ left[:classes].T
        rest.diagonal().add_(1)
        targets, residuals = left[:classes].T * roots, self.counts * rest.square().sum(0)
        return Decomposition(values[:rank].clone(), right[:rank].T.contiguous(), targets, residuals, self.embeddings, centre)


def triangle(blocks: Iterable[Tensor]) -> Tensor:
    """Return the triangular factor R of the QR factorisation of stacked rows, which may come in blocks.

    Args:
        blocks: at least one (B, D) float64.

    Returns:
        (min(sum of B, D), D) float64 R with R^T R = the sum over rows of x x^T.
    """
    factor: Tensor | None = None
    for block in blocks:
        stacked = block if factor is None else torch.cat((factor, block))
        factor = torch.linalg.qr(stacked, mode="r").R
    assert factor is not None
    return factor


def decompose(embeddings: Rows, labels: Tensor, moments: ClassMoments) -> Spectrum:
    """Compress embeddings in one pass.

    Args:
        embeddings: (N, D) finite numbers.
        labels: (N,) int64 in 0..K-1.
        moments: of the embeddings.

    Returns:
        The compression; it decomposes itself when asked.
    """
    counts, means = moments.counts.to(torch.float64), moments.means
    sums = torch.zeros_like(means)

    def deviations() -> Iterator[Tensor]:
        for rows, x in chunks(embeddings):
            z = x - means[labels[rows]]
            sums.index_add_(0, labels[rows], z)
            yield z

    within = triangle(deviations())
    # class means are rounded to their own size; the deviations still sum to what that took from them
    middle = means.mean(0)
    offsets = means - middle + sums / counts.clamp(min=1)[:, None]
    shift = (counts @ offsets) / counts.sum()
    return Spectrum(embeddings, counts, middle + shift, offsets - shift, within, rounding_of_means(moments))


def rounding_of_means(moments: ClassMoments) -> float:
    """Return the singular value that rounding of the class means can make."""
    return math.sqrt(int(moments.counts.sum())) * _EPS * float(moments.means.norm(dim=1).max())

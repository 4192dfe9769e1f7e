"""Distances between class means without the bias that the noise of the means puts on them, and how sure each is.

With z_k the n images of class i, m_i their mean, D = m_i - m_j, S_i the covariance within the class and u_i its trace,

    squared_ij = |D|^2 - u_i/n_i - u_j/n_j
    along_ij   = D'S_iD - (what the noise of D adds to it)
    noise_ij   = 4 along_ij/n_i + 4 along_ji/n_j + 2 tr S_i^2/(n_i(n_i - 1)) + 2 tr S_j^2/(n_j(n_j - 1)) + 4 tr S_iS_j/(n_i n_j)

`squared` and `along` are U-statistics: unbiased at any number of images and for any distribution. Averaging (z_1 - z_2)'(z_3 - m_j) (z_1 - z_2)'(z_4 -
m_j)/2 over four different images of class i gives, with b_k = (z_k - m_i)'D, s_k = |z_k - m_i|^2 and F the sum of all (z_k - m_i)'(z_l - m_i) squared,

    along_ij = sum b^2/(n - 1) - 2 sum b s/((n - 1)(n - 2)) + (2 sum s^2 - (sum s)^2/n - F (n - 1)/n)/((n - 1)(n - 2)(n - 3)) - tr S_iS_j/n_j

and tr S_i^2 is estimated likewise. `noise` is the variance of `squared`. In it along_ij is taken in proportion to squared_ij within each class i, which is
much less noisy than pair by pair. Traces of products are taken from a class-balanced part of the images where there are many.

References: Hoeffding, "A class of statistics with asymptotically normal distribution", Annals of Mathematical Statistics 1948; Himeno, Yamada,
"Estimations for some functions of covariance matrix in high dimension under non-normality and its applications", Journal of Multivariate Analysis 2014.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gcaudit.geometry.counter import balanced_order, derive_seed
from gcaudit.geometry.moments import ClassMoments
from gcaudit.geometry.reciprocals import reciprocal
from gcaudit.geometry.rows import Rows, chunks

_BLOCK = 512
_FEWEST, _MOST, _PER_CLASS, _LEAST_PER_CLASS = 2048, 8192, 8, 2
_UNSURE = 2.0
_LEAST = 0.2


@final
@dataclass(frozen=True)
class ClassPairs:
    """What is known of each pair of classes; diagonals mean nothing.

    Lengths are in a unit that keeps their fourth powers in range.

    Attributes:
        unit: of lengths, a power of 2.
        counts: (K,) float64 n_c, at least 2.
        means: (K, D) float64 class means less their mean.
        unbiased: (K,) float64 u_c.
        plain: (K, K) float64 squared distances of the means as they are.
        squared: (K, K) float64 squared distances without bias; may be negative.
        noise: (K, K) float64 variance of `squared`.
        along: (K, K) float64 variance of class i along D, times |D|^2, without bias; may be negative.
        along_slope: (K,) float64 >= 0, `along` over `squared` of class i's pairs taken together.
        product_noise: variance of the inner products of the centred class means, free of the noise's own mean, summed over all K^2.
        rows: (M,) int64 images by class, all or a class-balanced part, of which inner products were taken.
    """

    unit: float
    counts: Tensor
    means: Tensor
    unbiased: Tensor
    plain: Tensor
    squared: Tensor
    noise: Tensor
    along: Tensor
    along_slope: Tensor
    product_noise: float
    rows: Tensor

    def unsure_share(self) -> float:
        """Return which share of the mean of 1/d^2 comes of pairs that are within two standard errors of coinciding."""
        off = off_diagonal(len(self.counts))
        inverse = reciprocal(self.squared, self.noise)[off]
        unsure = (self.squared < _UNSURE * self.noise.sqrt())[off]
        return float(inverse[unsure].sum() / inverse.sum())

    def unsure(self) -> int:
        """Count the pairs that are within two standard errors of coinciding."""
        return int((self.squared < _UNSURE * self.noise.sqrt())[off_diagonal(len(self.counts))].sum()) // 2


def off_diagonal(classes: int) -> Tensor:
    """Return (K, K) bool, true for pairs of two classes."""
    return ~torch.eye(classes, dtype=torch.bool)


def mean_over_pairs(values: Tensor) -> Tensor:
    """Average a (K, K) matrix over ordered pairs i != j.

    Args:
        values: (K, K); the diagonal may hold anything.

    Returns:
        Scalar.
    """
    classes = len(values)
    keep = off_diagonal(classes).to(values.device)
    return torch.where(keep, values, torch.zeros_like(values)).sum() / (classes * (classes - 1))


def squared_distances(means: Tensor) -> Tensor:
    """Return d_ij^2, by differences rather than by expanding the square, which would cancel.

    Args:
        means: (K, D) float64 class means.

    Returns:
        (K, K) float64, differentiable; the diagonal is 0.
    """
    centred = means - means.mean(0)
    distances = torch.cdist(centred, centred, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.square()


def debiased(squared: Tensor, unbiased: Tensor, counts: Tensor) -> Tensor:
    """Take u_i/n_i + u_j/n_j off squared distances.

    Args:
        squared: (K, K).
        unbiased: (K,) u_c.
        counts: (K,) n_c.

    Returns:
        (K, K), differentiable.
    """
    share = unbiased / counts
    return squared - share[:, None] - share[None, :]


def measure_pairs(embeddings: Rows, labels: Tensor, moments: ClassMoments, fingerprint: str) -> ClassPairs:
    """Look at all pairs of classes; it takes a pass over the embeddings and the inner products of some of them.

    Args:
        embeddings: (N, D).
        labels: (N,) int64.
        moments: of these; every class has at least 2 images.
        fingerprint: of the data, which images are taken for traces depends on it alone.

    Returns:
        The pairs.
    """
    counts = moments.counts.to(torch.float64)
    classes = len(counts)
    plain = squared_distances(moments.means)
    unit = _unit(float(torch.maximum(plain.max(), moments.variances().max())))
    plain = plain / unit / unit
    means = (moments.means - moments.means.mean(0)) / unit
    total = moments.squares / unit / unit
    unbiased = total / (counts - 1)
    squares, cubes = torch.zeros(2, classes, classes, dtype=torch.float64)
    fourth, moved = torch.zeros(2, classes, dtype=torch.float64)
    for rows, embedded in chunks(embeddings):
        own = labels[rows]
        z = (embedded - moments.means[own]) / unit
        lengths = z.square().sum(1)
        products = z @ means.T
        along = along_pairs(products, own)
        onto = products.square()
        moved.index_add_(0, own, 2 * (1 - 1 / classes) * onto.sum(1) + 2 * onto.gather(1, own[:, None])[:, 0])
        squares.index_add_(0, own, along.square())
        cubes.index_add_(0, own, along * lengths[:, None])
        fourth.index_add_(0, own, lengths.square())
    order = _taken(labels, classes, fingerprint)
    z = torch.cat([part for _, part in chunks(embeddings, order)]) / unit
    traces = _traces(z, labels[order], classes)
    along = squares / (counts - 1)[:, None] + _of_means(traces.diagonal(), cubes, fourth, total, counts) - traces / counts
    squared = debiased(plain, unbiased, counts)
    off = off_diagonal(classes)
    held = torch.where(off, squared.clamp(min=0), 0.0)
    sums = held.sum(1)
    slope = torch.where(sums > 0, torch.where(off, along, 0.0).sum(1) / sums, 0.0).clamp(min=0)
    within = traces.diagonal()
    typical = (traces.sum(1) - within) / max(1, classes - 1)
    spread = 2 * torch.maximum(within, _LEAST * typical) / (counts * (counts - 1))
    noise = spread[:, None] + spread + 4 * traces / (counts[:, None] * counts)
    part = 4 * slope[:, None] * held / counts[:, None]
    noise = noise + part + part.T
    # of second order: in the sum over images it is there twice
    crossed = traces / (counts[:, None] * counts)
    second = float(crossed.sum() - crossed.trace() + spread.sum())
    product_noise = max(second, float((moved / (counts * (counts - 1))).sum()) - second)
    return ClassPairs(unit, counts, means, unbiased, plain, squared, noise, along, slope, product_noise, order)


def _unit(square: float) -> float:
    """Return a power of 2 near the root."""
    return 2.0 ** round(math.log2(square) / 2) if square > 0 else 1.0


def along_pairs(products: Tensor, own: Tensor) -> Tensor:
    """Take the differences of images along the lines to all other class means.

    Args:
        products: (n, K) inner products of each image, less the mean of its class, with the class means.
        own: (n,) int64 the images' classes.

    Returns:
        (n, K): b_k = (z_k - m_i)'(m_i - m_j) of an image of class i for all j.
    """
    return products.gather(1, own[:, None]) - products


def _of_means(traces: Tensor, cubes: Tensor, fourth: Tensor, total: Tensor, n: Tensor) -> Tensor:
    """Return (K, K): what the images of class i add to `along` by being in their own mean, with the sign that takes it off."""
    skew = torch.where(n > 2, 2 / ((n - 1) * (n - 2).clamp(min=1)), torch.zeros_like(n))
    m = n.clamp(min=4)
    inner = (m - 1) / (m - 2) * (traces * m * (m - 2) * (m - 3) / (m - 1) - (total / (m - 1)).square() + m * fourth / (m - 1))
    even = (2 * fourth - total.square() / m - inner * (m - 1) / m) / ((m - 1) * (m - 2) * (m - 3))
    return torch.where(n > 3, even, -traces / n)[:, None] - skew[:, None] * cubes


def _taken(labels: Tensor, classes: int, fingerprint: str) -> Tensor:
    """Return rows of images by class: all of them, or a class-balanced part."""
    order = torch.arange(len(labels))
    most = max(min(_MOST, max(_FEWEST, _PER_CLASS * classes)), _LEAST_PER_CLASS * classes)
    if len(labels) > most:
        order = balanced_order(labels, order, derive_seed(0, "pairs", fingerprint))[:most]
    return order[torch.argsort(labels[order], stable=True)]


def _traces(z: Tensor, own: Tensor, classes: int) -> Tensor:
    """Return (K, K) unbiased tr S_iS_j of images by class."""
    n = torch.bincount(own, minlength=classes).to(torch.float64)
    # their own means, twice since the first is rounded in units of the offset
    for _ in range(2):
        z = z - (torch.zeros(classes, z.shape[1], dtype=torch.float64).index_add_(0, own, z) / n.clamp(min=1)[:, None])[own]
    sums = torch.zeros(classes, classes, dtype=torch.float64)
    for start in range(0, len(own), _BLOCK):
        rows = slice(start, start + _BLOCK)
        by_class = torch.zeros(classes, len(own[rows]), dtype=torch.float64).index_add_(0, own, (z @ z[rows].T).square_())
        sums.index_add_(0, own[rows], by_class.T)
    lengths = z.square().sum(1)
    total, fourth = torch.zeros(2, classes, dtype=torch.float64).index_add_(1, own, torch.stack((lengths, lengths.square())))
    degrees = (n - 1).clamp(min=1)
    traces = sums / (degrees[:, None] * degrees)
    m = n.clamp(min=4)
    inner = (m - 2) / (m - 1) * sums.diagonal() + (total / (m - 1)).square() - m * fourth / (m - 1)
    others = (traces.sum(1) - traces.diagonal()) / max(1, classes - 1)
    within = torch.where(n > 3, (m - 1) / (m * (m - 2) * (m - 3)) * inner, others)
    return torch.where(off_diagonal(classes), traces, within.diag())

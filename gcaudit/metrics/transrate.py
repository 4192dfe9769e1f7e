"""TransRate: the coding rate of the embeddings, less that of the embeddings of each class.

    R(Z) = 1/2 ln det(I + Z^T Z / (n e)),  Z of n rows,  e = 1e-4
    TransRate = R(X) - sum_c (n_c/N) R(X_c)

X is centred at the mean of all images and so are the rows X_c of class c, which are not centred again. The weights n_c/N are
those of the paper; a widely used code averages the K rates with equal weight, which is another number when classes have different
sizes (`balanced=True` here). The distortion e is absolute, so that TransRate depends on the scale of the embeddings.

A determinant of order D or n_c, whichever is smaller, is found for each class. It comes from the QR factorisation of A over I,
A = Z / sqrt(n e): its triangular factor T has T^T T = I + A^T A, and products of large embeddings are never added to 1.

The standard error is that of the jackknife, each image left out in turn, without factorising again: the determinant without an
image is 1 - h times the whole, h = z (n e I + Z^T Z)^-1 z its leverage. That the centre moves too is added to first order. (The
derivative by the weight of an image, h/2, would see nothing where D is not small beside n_c: h is then near 1 wherever the image
lies.) The jackknife errs on the side of too large: by a factor of 1.5 to 2 in simulations with D near or above n_c.

References: Huang, Wei, Rong, Yang, Huang, "Frustratingly easy transferability estimation", ICML 2022; Efron, Stein, "The
jackknife estimate of variance", Annals of Statistics 1981.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor

from gcaudit.geometry import Estimate, Evidence, centred_influence, chunks, labels_reason, missing, normal_estimate, triangle

_DISTORTION = 1e-4
_DIGITS = 1e9
_EPS = torch.finfo(torch.float64).eps


def trans_rate(evidence: Evidence, balanced: bool = False) -> Estimate:
    """Measure TransRate, an estimate of the information that the embeddings hold of the labels.

    R(X) - sum_c (n_c/N) R(X_c), e = 1e-4. Invariant under rotating and shifting the embeddings, not under scaling them.

    Args:
        evidence: at least two classes.
        balanced: average the rates of classes with weight 1/K in place of n_c/N.

    Returns:
        The estimate, in nats an image.
    """
    images, classes = evidence.images, evidence.classes
    reason = labels_reason(evidence)
    if reason:
        return missing(reason, images)
    table, counts = evidence.spectrum, evidence.moments.counts.tolist()
    members = torch.split(torch.argsort(evidence.labels, stable=True), counts)
    weights = torch.full_like(table.counts, 1 / classes) if balanced else table.counts / images
    ratios = table.values.square() / (images * _DISTORTION)
    score = 0.5 * ratios.log1p().sum()
    gradient = torch.empty(images, dtype=torch.float64)
    pull = torch.zeros_like(table.centre)
    for c, rows in enumerate(members):
        rate, rest, by_mean = _few(evidence, rows) if len(rows) <= len(pull) else _many(evidence, rows, table.offsets[c])
        score -= weights[c] * rate
        gradient[rows] = 0.5 * weights[c] * images * rest.log()
        # every image moves the mean that the class is centred at
        pull += weights[c] * by_mean
    if float(ratios.log1p().sum()) <= _DIGITS * _EPS * min(evidence.embeddings.shape):
        return missing("the embeddings are too small beside the distortion 1e-4: the score cannot be told from rounding", images)
    # an image left out takes its pull on the centre with it
    kept, linear = images / (images - 1), table.values * (pull @ table.directions)
    for part, left in table.centred.left():
        squares = left.square()
        rest = (1 - kept * squares.sum(1)).clamp(min=_EPS) + kept * squares @ (1 / (1 + ratios))
        gradient[part] += left @ linear - 0.5 * images * rest.log()
    influence = centred_influence(gradient, evidence.labels, classes)
    return normal_estimate(score, influence, images, "a class with a single image has no variance: no standard error")


def _few(evidence: Evidence, members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Treat a class of n <= D images, by a determinant of order n.

    Args:
        evidence: as measured.
        members: (n,) rows Z of the class.

    Returns:
        R(Z); (n,) 1 - h of its images; (D,) (e I + Z^T Z/n)^-1 m for the mean m of Z: the centre moves R(Z) by minus this.
    """
    count = len(members)
    scale = (count * _DISTORTION) ** 0.5
    scaled = (evidence.embeddings[members].to(torch.float64) - evidence.spectrum.centre) / scale
    eye = torch.eye(count, dtype=torch.float64)
    factor = triangle([torch.cat((scaled.T, eye))])
    inverse = torch.linalg.solve_triangular(factor.T, eye, upper=False)
    by_mean = scaled.T @ (inverse.T @ inverse.sum(1)) / scale
    return factor.diagonal().abs().log().sum(), inverse.square().sum(0), by_mean


def _many(evidence: Evidence, members: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Treat a class of n > D images, by a determinant of order D; otherwise as `_few`."""
    count, dim = len(members), len(mean)
    scale = (count * _DISTORTION) ** 0.5

    def scaled() -> Iterator[tuple[slice, Tensor]]:
        for part, x in chunks(evidence.embeddings, members):
            yield part, (x - evidence.spectrum.centre) / scale

    eye = torch.eye(dim, dtype=torch.float64)
    factor = triangle(chain((z for _, z in scaled()), [eye]))
    inverse = torch.linalg.solve_triangular(factor.T, eye, upper=False)
    leverages = torch.empty(count, dtype=torch.float64)
    for part, z in scaled():
        leverages[part] = (z @ inverse.T).square().sum(1)
    return factor.diagonal().abs().log().sum(), (1 - leverages).clamp(min=_EPS), inverse.T @ (inverse @ mean) / _DISTORTION

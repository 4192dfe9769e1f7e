"""The three parts of NCTI: how near a linear discriminant analysis of the embeddings comes to neural collapse.

Embeddings are projected on their first min(64, D, N) principal components. With s = max(exp(-v), 1e-10), v the sum of the first
32 variances (divided by N - 1), a discriminant analysis is fitted, and all covariances are divided by N:

    s at its floor    the covariance within classes as it is; directions whose spread is less than 1e-4 of that of their
                      coordinates are left out
    otherwise         shrunk, (1 - s) Sw + s tr(Sw)/d I, and so the total

    seli   nuclear norm of the (N, K-1) images in discriminant coordinates, centred: grows as the classes come apart, and
           as sqrt(N)
    ncc    mean over images of the probability of the true class
    vc     ln of the sum over classes of the nuclear norm of the class's probabilities, an (n_c, K) matrix: small where
           all images of a class have the same answer

NCTI itself is minmax(seli) + minmax(ncc) - minmax(vc) over a list of models. It has no value for one model, and changes when
another joins the list; so we report the parts. They depend on the scale of the embeddings through s alone, and not at all where
v is above 23.1.

What was open: the covariance of the first case was divided by N - K in older versions of the library behind the published code,
which makes seli larger by sqrt(N/(N - K)); it is N here, as in newer ones and in the second case. Fewer than 64 dimensions or
images stop the published code; here they are all taken. Components whose variance within classes is rounding are left out.

Reference: Wang, Luo, Zheng, Huang, Baktashmotlagh, "How far pre-trained models are from neural collapse on the target dataset
informs their transferability", ICCV 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gcaudit.geometry import Estimate, Evidence, centred_influence, chunks, labels_reason, missing, normal_estimate

_COMPONENTS = 64
_SUMMED = 32
_FLOOR = 1e-10
_TOLERANCE = 1e-4
_SATURATED = 1e-12
_ROWS = 4096
_EPS = torch.finfo(torch.float64).eps
_SINGLE = "a class with a single image has no variance: no standard error"


@final
@dataclass(frozen=True)
class _Components:
    """Principal components; components without variance are there, so that their number is min(64, D, N).

    Attributes:
        basis: (D, d) directions, 0 where there is no variance.
        values: (d,) singular values of the centred embeddings.
        within: (R, d) rows with the scatter within classes.
        means: (K, d) class means; their mean over images is 0.
        log_priors: (K,) ln n_c/N.
        noise: a column of `within` of this norm may be rounding.
    """

    basis: Tensor
    values: Tensor
    within: Tensor
    means: Tensor
    log_priors: Tensor
    noise: float


@final
@dataclass(frozen=True)
class _Discriminant:
    """A fitted discriminant analysis.

    Attributes:
        axes: (d, at most K-1) discriminant coordinates of components.
        directions: (d, K) and
        constants: (K,) of the logarithms of class probabilities, up to a constant of each image.
        plain: nothing was shrunk and no direction that matters left out.
    """

    axes: Tensor
    directions: Tensor
    constants: Tensor
    plain: bool


def _components(evidence: Evidence) -> _Components:
    spectrum = evidence.spectrum
    images, dim = evidence.embeddings.shape
    basis = torch.zeros(dim, min(_COMPONENTS, dim, images), dtype=torch.float64)
    values = torch.zeros(basis.shape[1], dtype=torch.float64)
    rank = min(len(spectrum.values), len(values))
    basis[:, :rank], values[:rank] = spectrum.directions[:, :rank], spectrum.values[:rank]
    log_priors = (spectrum.counts / images).log()
    noise = images * _EPS * float(values[0]) + spectrum.rounding
    return _Components(basis, values, spectrum.within @ basis, spectrum.offsets @ basis, log_priors, noise)


def _whitened(parts: _Components, images: int) -> _Discriminant | None:
    """Fit with the covariance as it is, by singular values of standardised rows; None where no variance serves."""
    spread = parts.within.norm(dim=0)
    some = spread > parts.noise
    rows = torch.where(some, parts.within / spread, 0.0)
    spread = torch.where(some, spread / math.sqrt(images), 1.0)
    _, sizes, right = torch.linalg.svd(rows, full_matrices=False)
    rank = int((sizes > _TOLERANCE).sum())
    if not rank:
        return None
    white = (right[:rank] / spread).T / sizes[:rank]
    classes = len(parts.means)
    roots = (parts.log_priors.exp() * images / (classes - 1)).sqrt()
    _, apart, turn = torch.linalg.svd(roots[:, None] * (parts.means @ white), full_matrices=False)
    count = int((apart > _TOLERANCE * apart[0]).sum())
    if not count:
        return None
    axes = white @ turn[:count].T
    means = parts.means @ axes
    plain = rank == int((parts.values > 0).sum()) and count == min(classes - 1, rank)
    return _Discriminant(axes, axes @ means.T, parts.log_priors - 0.5 * means.square().sum(1), plain)


def _shrunk(parts: _Components, images: int, shrinkage: float) -> _Discriminant | None:
    """Fit with shrunk covariances, by the generalised eigenproblem of between and within; None where classes have no variance."""
    if float(parts.within.norm()) <= parts.noise:
        return None
    unit = float(parts.values[0]) / math.sqrt(images)
    inner = (parts.within / unit).T @ (parts.within / unit) / images
    total = torch.diag((parts.values / unit).square() / images)
    for matrix in (inner, total):
        trace = matrix.trace()
        matrix.mul_(1 - shrinkage).diagonal().add_(shrinkage * trace / len(matrix))
    factor = torch.linalg.cholesky(inner)
    half = torch.linalg.solve_triangular(factor, total - inner, upper=False)
    vectors = torch.linalg.eigh(torch.linalg.solve_triangular(factor, half.T, upper=False)).eigenvectors.flip(1)
    axes = torch.linalg.solve_triangular(factor.T, vectors[:, : len(parts.means) - 1], upper=True) / unit
    directions = torch.cholesky_solve((parts.means / unit).T.contiguous(), factor) / unit
    return _Discriminant(axes, directions, parts.log_priors - 0.5 * (parts.means.T * directions).sum(0), plain=False)


def _fit(evidence: Evidence) -> tuple[_Components, _Discriminant] | str:
    """Return the components and the discriminant analysis, or why there is none."""
    reason = labels_reason(evidence)
    if reason:
        return reason
    images, parts = evidence.images, _components(evidence)
    between = float((evidence.spectrum.counts.sqrt()[:, None] * parts.means).norm())
    if between <= 4 * parts.noise:
        return "the class means are equal"
    variance = float(parts.values[:_SUMMED].square().sum()) / (images - 1)
    shrinkage = max(math.exp(-variance), _FLOOR)
    found = _whitened(parts, images) if shrinkage == _FLOOR else _shrunk(parts, images, shrinkage)
    return (parts, found) if found else "there is no variance within classes, or none where the class means differ"


def ncti_seli(evidence: Evidence) -> Estimate:
    """Measure NCTI's first part, the nuclear norm of the embeddings in discriminant coordinates.

    With no shrinkage it is sqrt(N) * sum_k sqrt(1 + b_k), b_k the K - 1 ratios of the scatter between and within classes. Divide
    by sqrt(N) to compare different numbers of images. Invariant under rotation and shift, and under scale where nothing is
    shrunk.

    Args:
        evidence: at least two classes.

    Returns:
        The estimate, without unit. The standard error takes the principal components as given; there is none where the covariance
        is shrunk.
    """
    fitted = _fit(evidence)
    if isinstance(fitted, str):
        return missing(fitted, evidence.images)
    parts, fit = fitted
    lengths = torch.linalg.svdvals(parts.values[:, None] * fit.axes)
    if not fit.plain:
        reason = "no standard error where the covariance is shrunk or directions are left out"
        return normal_estimate(lengths.sum(), None, evidence.images, reason)
    # axes have variance 1 within classes and t in all, so an image of weight dw moves t by ((x a)^2 - t ((x - mu) a)^2) dw
    axes, means = parts.basis @ fit.axes, parts.means @ fit.axes
    totals = (parts.values[:, None] * fit.axes).square().sum(0) / evidence.images
    gradient = torch.empty(evidence.images, dtype=torch.float64)
    for rows, x in chunks(evidence.embeddings):
        z = (x - evidence.spectrum.centre) @ axes
        moved = z.square() - totals * (z - means[evidence.labels[rows]]).square()
        gradient[rows] = (moved / totals.sqrt()).sum(1) * math.sqrt(evidence.images) / 2
    influence = centred_influence(gradient, evidence.labels, evidence.classes)
    return normal_estimate(lengths.sum(), influence, evidence.images, _SINGLE)


def ncti_ncc(evidence: Evidence) -> Estimate:
    """Measure NCTI's second part, the mean probability of the true class under a discriminant analysis.

    Images count equally, and are judged by the analysis that was fitted to them. Invariant under rotation and shift, and under
    scale where nothing is shrunk.

    Args:
        evidence: at least two classes.

    Returns:
        The estimate, between 0 and 1; None with a reason where it is 1 to rounding. The standard error is that of the mean *given
        the fit*.
    """
    fitted = _fit(evidence)
    if isinstance(fitted, str):
        return missing(fitted, evidence.images)
    parts, fit = fitted
    directions = parts.basis @ fit.directions
    own = torch.empty(evidence.images, dtype=torch.float64)
    for rows, x in chunks(evidence.embeddings):
        posterior = torch.softmax((x - evidence.spectrum.centre) @ directions + fit.constants, 1)
        own[rows] = posterior.gather(1, evidence.labels[rows, None])[:, 0]
    if float((1 - own).mean()) <= _SATURATED:
        return missing("every probability of a true class is 1 to rounding, which ranks no model", evidence.images)
    influence = centred_influence(own, evidence.labels, evidence.classes)
    return normal_estimate(own.mean(), influence, evidence.images, _SINGLE)


def ncti_vc(evidence: Evidence) -> Estimate:
    """Measure NCTI's third part, the logarithm of the nuclear norms of the classes' probabilities.

    ln sum_c |P_c|_*, P_c the (n_c, K) probabilities of the images of class c. Where every image of a class has the same answer p,
    the norm is sqrt(n_c) |p|. Holds the probabilities of one class at a time. Invariant under rotation and shift, and under scale
    where nothing is shrunk.

    Args:
        evidence: at least two classes.

    Returns:
        The estimate, without unit. The standard error holds the noise of images *given the fit*.
    """
    fitted = _fit(evidence)
    if isinstance(fitted, str):
        return missing(fitted, evidence.images)
    parts, fit = fitted
    directions = parts.basis @ fit.directions
    total = 0.0
    shares = torch.empty(evidence.images, dtype=torch.float64)
    order = torch.argsort(evidence.labels, stable=True)
    for rows in torch.split(order, evidence.moments.counts.tolist()):
        blocks = [
            (evidence.embeddings[part].to(torch.float64) - evidence.spectrum.centre) @ directions
            for part in torch.split(rows, _ROWS)
        ]
        left, sizes, _ = torch.linalg.svd(torch.softmax(torch.cat(blocks) + fit.constants, 1), full_matrices=False)
        total += float(sizes.sum())
        # weights w make P^T W P of P^T P, and the trace of its root moves by half of this
        shares[rows] = left.square() @ sizes
    influence = centred_influence(shares * evidence.images / (2 * total), evidence.labels, evidence.classes)
    return normal_estimate(math.log(total), influence, evidence.images, _SINGLE)

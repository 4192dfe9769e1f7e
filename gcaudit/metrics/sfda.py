"""SFDA: how sure a discriminant analysis is of the labels, on embeddings mixed towards other classes where it is unsure.

    Sw = sum_c (n_c/N) cov_c (divided by n_c)            variation within classes
    e  = max(exp(-5 lambda), 1e-10), lambda nearly the largest eigenvalue of Sw
    Sw' = (1 - e) Sw + e tr(Sw)/D I
    p_c(x) = softmax over c of x Sw'^-1 mu_c - mu_c Sw'^-1 mu_c / 2 + ln(n_c/N)
    q = the softmax of p (of the probabilities) at the image's own class
    x <- q x + (1 - q) (mean of the other classes' means)

and once more with the same e on the mixed images. SFDA is the mean over images of p_y, without logarithm; images count equally.
It is invariant under shifts; e makes it depend on the scale of the embeddings (lambda has the unit of an embedding squared),
though not where lambda > 4.6, where e stays at its floor.

The published code solves the eigenproblem of the total against Sw' and keeps all D eigenvectors V, scaled to V^T Sw' V = I. Then
V V^T is the inverse of Sw', so a triangular factor of Sw' serves, and the total is never needed. The factor comes from the QR
factorisation of the deviations from class means over a multiple of I, without squaring them: next to a large direction, e at its
floor is too small a part of Sw' to keep its digits there. A later copy elsewhere gives Sw'^-1 Sb, which is not symmetric, to a
solver for symmetric matrices; its values are not SFDA.

The published lambda is not the eigenvalue but what six power steps from the row sums of Sw give, x^T Sw y of the last two unit
vectors. We keep that: the eigenvalue would move the score (in its sixth digit on our test data), and it would be no nearer to
anything, e being a rule of thumb. The price is that a rotation of the embeddings moves the score a little too, as long as e is
above its floor. Where the row sums vanish (coordinates of every image with the same sum, as after a layer normalisation) the
published code divides 0 by 0; there we take the eigenvalue.

Where embeddings have as many dimensions as there are images, any labels can be separated without error and the score is 1
whatever the model: such a value is no measurement and is not reported.

Reference: Shao, Zhao, Ge, Zhang, Yang, Wang, Shan, Luo, "Not all models are equal: predicting model transferability in a
self-challenging Fisher space", ECCV 2022.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from gcaudit.geometry import Estimate, Evidence, centred_influence, chunks, labels_reason, missing, normal_estimate, triangle

_FLOOR = 1e-10
_DOUBLE_STEPS = 3
_VANISHING = 1e-8
_SATURATED = 1e-12
_ROUNDING = 4 * torch.finfo(torch.float64).eps


def _reason(evidence: Evidence) -> str | None:
    reason = labels_reason(evidence)
    images, dim = evidence.embeddings.shape
    if reason is None and dim >= images - 1:
        reason = f"{dim} dimensions separate {images} images whatever their labels: SFDA is 1 for any model"
    return reason


def _power(scatter: Tensor) -> float:
    """Return lambda: three double power steps from the row sums; the eigenvalue where these vanish."""
    x = scatter.sum(1)
    if float(x.norm()) <= _VANISHING * float(scatter.trace()):
        return float(torch.linalg.eigvalsh(scatter)[-1])
    y = x
    for _ in range(_DOUBLE_STEPS):
        y = scatter @ (x / x.norm())
        y = y / y.norm()
        x = scatter @ y
        x = x / x.norm()
    return float(x @ scatter @ y)


class _Discriminant:
    """Class probabilities under a shrunk covariance that all classes share.

    Attributes:
        means: (K, D) of the classes, in the coordinates of the images.
        directions: (D, K) Sw'^-1 mu_c.
        constants: (K,) what is added to x Sw'^-1 mu_c.
    """

    def __init__(self, within: Tensor, shrinkage: float, means: Tensor, counts: Tensor) -> None:
        """Fit: `within` is triangular, within^T within / N is Sw."""
        images, dim = counts.sum(), within.shape[1]
        ridge = (shrinkage / dim) ** 0.5 * within.norm() * torch.eye(dim, dtype=torch.float64)
        factor = triangle([torch.cat(((1 - shrinkage) ** 0.5 * within, ridge))]) / images.sqrt()
        half = torch.linalg.solve_triangular(factor.T, means.T, upper=False)
        self.means = means
        self.directions = torch.linalg.solve_triangular(factor, half, upper=True)
        self.constants = (counts / images).log() - 0.5 * half.square().sum(0)

    def probabilities(self, x: Tensor) -> Tensor:
        """(B, K) of (B, D) images."""
        return torch.softmax(x @ self.directions + self.constants, 1)


class _Mixture:
    """Images less their mean, mixed towards the means of the other classes; made again in each pass over the embeddings."""

    def __init__(self, evidence: Evidence, unit: float, first: _Discriminant) -> None:
        self._evidence = evidence
        self._unit = unit
        self._others = (first.means.sum(0) - first.means) / (evidence.classes - 1)
        self._keep = torch.empty(evidence.images, dtype=torch.float64)
        sums = torch.zeros_like(first.means)
        for rows, z in self._plain():
            labels = evidence.labels[rows]
            self._keep[rows] = torch.softmax(first.probabilities(z), 1).gather(1, labels[:, None])[:, 0]
            sums.index_add_(0, labels, self._mix(rows, z))
        self.means = sums / evidence.spectrum.counts[:, None]

    def _plain(self) -> Iterator[tuple[slice, Tensor]]:
        for rows, x in chunks(self._evidence.embeddings):
            yield rows, (x - self._evidence.spectrum.centre) / self._unit

    def _mix(self, rows: slice, z: Tensor) -> Tensor:
        others = self._others[self._evidence.labels[rows]]
        return others + self._keep[rows, None] * (z - others)

    def within(self) -> Tensor:
        """(D, D) triangular factor of the deviations of the mixed images from their class means."""
        labels = self._evidence.labels
        return triangle(self._mix(rows, z) - self.means[labels[rows]] for rows, z in self._plain())

    def own_probabilities(self, second: _Discriminant) -> Tensor:
        """(N,) probability of each mixed image's own class."""
        found = torch.empty(self._evidence.images, dtype=torch.float64)
        for rows, plain in self._plain():
            posterior = second.probabilities(self._mix(rows, plain))
            found[rows] = posterior.gather(1, self._evidence.labels[rows, None])[:, 0]
        return found


def sfda(evidence: Evidence) -> Estimate:
    """Measure SFDA, the mean probability of the true class under a self-challenging discriminant analysis.

    The discriminant is fitted to the images that it judges, so the score is too high where dimensions are many beside images.
    Invariant under shift, and under rotation and scale where lambda > 4.6.

    Args:
        evidence: at least two classes, and fewer dimensions than images less one.

    Returns:
        The estimate, between 0 and 1. The standard error is that of the mean of p_y *given the two fits*: it does not hold the
        noise of means and covariances. None with a reason where the score is 1 to rounding.
    """
    reason = _reason(evidence)
    if reason:
        return missing(reason, evidence.images)
    spectrum = evidence.spectrum
    unit = float(spectrum.within.norm()) / math.sqrt(evidence.images)
    if unit <= _ROUNDING * float((spectrum.centre + spectrum.offsets).norm(dim=1).max()):
        return missing("the embeddings of each class are equal: their covariance cannot be inverted", evidence.images)
    # only e knows the scale: with a trace of 1 nothing else overflows
    within = spectrum.within / unit
    scatter = within.T @ within / evidence.images
    shrinkage = max(math.exp(-5 * _power(scatter) * unit * unit), _FLOOR)
    mixture = _Mixture(evidence, unit, _Discriminant(within, shrinkage, spectrum.offsets / unit, spectrum.counts))
    second = _Discriminant(mixture.within(), shrinkage, mixture.means, spectrum.counts)
    own = mixture.own_probabilities(second)
    value = own.mean()
    if float((1 - own).mean()) <= _SATURATED:
        return missing("SFDA is 1 to rounding: the images are separated without error, which ranks no model", evidence.images)
    influence = centred_influence(own, evidence.labels, evidence.classes)
    return normal_estimate(value, influence, evidence.images, "a class with a single image has no variance: no standard error")

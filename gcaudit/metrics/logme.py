"""LogME: how well a Bayesian linear model of the embeddings explains the labels.

For each class c the one-hot labels y (N numbers 0 or 1) are modelled as y = X m + noise with m ~ N(0, I/alpha) and noise ~ N(0,
I/beta). LogME is the logarithm of the evidence p(y | X, alpha, beta) at its maximum over alpha and beta, per image, averaged over
the K classes with equal weight. Embeddings are taken as they are, neither centred nor with an intercept: that is the published
definition.

With X = U diag(s) V^T of rank r, x = U^T y, t = alpha/beta and q(t) = (|y|^2 - |x|^2)/t + sum_k x_k^2/(s_k^2 + t), the best alpha
at a given t is N/q, and the logarithm of the evidence becomes

    F(t) = -N/2 (1 + ln 2 pi + ln(t q/N)) - 1/2 sum_k ln(1 + s_k^2/t)

The stationary points of F are the fixed points of MacKay's iteration for alpha and beta. Published codes iterate from alpha =
beta = 1, stop early, and some add small numbers to denominators. Here F is maximised over ln t: on a grid finer than the unit on
which F bends, and then by bisection of its slope. That finds the largest of several maxima at any scale of
the embeddings. Widely copied code leaves out (D - N)/2 ln alpha where D > N, since it sums ln(alpha + beta s_k^2) over N of its D
terms; written as above, a direction without data contributes ln(1 + 0).

Where the embeddings tell nothing of y, F is largest at t = infinity: the limit, the evidence of pure noise, is the value. Where
they fit y without error with fewer independent directions than images, F has no bound, and there is no value. With as many
directions as images the evidence is finite although every y is fitted; its maximum may then be at t = 0.

References: You, Liu, Wang, Long, "LogME: practical assessment of pre-trained models for transfer learning", ICML 2021; MacKay,
"Bayesian interpolation", Neural Computation 1992; Efron, Stein, "The jackknife estimate of variance", Annals of Statistics 1981.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gcaudit.geometry import Estimate, Evidence, centred_influence, labels_reason, missing, normal_estimate

_STEP = 0.5
_LARGEST = 1e8
_INFINITE = 1e20
_BISECTIONS = 60
_EPS = torch.finfo(torch.float64).eps


@final
@dataclass(frozen=True)
class _Models:
    """F of the K classes; singular values are in units of the largest, so that t has no unit.

    Attributes:
        squares: (r, 1) s_k^2.
        targets: (r, K) x_k^2.
        residuals: (K,) |y|^2 - |x|^2.
        images: N.
    """

    squares: Tensor
    targets: Tensor
    residuals: Tensor
    images: int

    def quotient(self, t: Tensor) -> Tensor:
        """Return q(t), (K,), for t of shape (K,) or (1,); t may be 0 where the residual is."""
        rest = torch.where(self.residuals > 0, self.residuals / t, torch.zeros_like(self.residuals))
        return rest + (self.targets / (self.squares + t)).sum(0)

    def score(self, t: Tensor) -> Tensor:
        """Return F(t)/N less its constant, (K,)."""
        free = 1 - len(self.squares) / self.images
        powers = free * t.log() if free > 0 else torch.zeros_like(t)
        return -0.5 * ((self.quotient(t) / self.images).log() + powers + (self.squares + t).log().sum(0) / self.images)

    def rises(self, t: Tensor) -> Tensor:
        """Return whether F grows with t, (K,) bool: gamma q > N |m|^2, with the gamma and m of MacKay."""
        shares = self.squares / (self.squares + t)
        norms = (self.targets * shares / (self.squares + t)).sum(0)
        return shares.sum(0) * self.quotient(t) > self.images * norms

    def best(self) -> tuple[Tensor, Tensor]:
        """Return t at the maximum, 0 and infinity included, and F/N less its constant there: both (K,)."""
        energies = (self.targets / self.squares).sum(0)
        knees = (self.residuals / energies)[(self.residuals > 0) & (energies > 0)]
        smallest = min([float(self.squares.min()), *knees.tolist()]) * 1e-4
        grid = torch.arange(math.log(smallest), math.log(_LARGEST) + _STEP, _STEP, dtype=torch.float64)
        found = torch.stack([self.score(point.exp().expand(len(self.residuals))) for point in grid]).argmax(0)
        middle = grid[found]
        rises = self.rises(middle.exp())
        low, high = torch.where(rises, middle, middle - _STEP), torch.where(rises, middle + _STEP, middle)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            rises = self.rises(middle.exp())
            low, high = torch.where(rises, middle, low), torch.where(rises, high, middle)
        t = ((low + high) / 2).exp()
        value = self.score(t)
        noise = -0.5 * ((self.targets.sum(0) + self.residuals) / self.images).log()
        t, value = torch.where(noise >= value, _INFINITE, t), torch.maximum(noise, value)
        if len(self.squares) < self.images:
            return t, value
        exact = self.score(torch.zeros_like(t))
        return torch.where(exact >= value, 0.0, t), torch.maximum(exact, value)


def logme(evidence: Evidence) -> Estimate:
    """Measure LogME, the maximised log evidence of a Bayesian linear model of the labels, per image.

    Mean over classes of max F/N as defined at the head of this file, of either sign; 0 means nothing special. The standard error
    is that of the jackknife: since alpha and beta maximise F, leaving an image out takes away the log predictive
    density of its label given all others, 1/2 ln(beta (1 - h)) - beta/2 e^2/(1 - h) for its leverage h and residual e. It errs
    on the side of too large.

    Args:
        evidence: at least two classes.

    Returns:
        The estimate, in nats an image. Invariant under scaling and rotating the embeddings, not under shifting them.
    """
    images = evidence.images
    reason = labels_reason(evidence)
    if reason:
        return missing(reason, images)
    raw = evidence.spectrum.raw
    relative = (raw.values / raw.values[0])[:, None]
    residuals = raw.residuals
    if raw.rank == images:
        residuals = torch.zeros_like(residuals)
    else:
        # the singular vectors found are those of embeddings that differ by rounding, which moves a perfect fit X m as |m| is large
        size = evidence.spectrum.counts.sqrt() + (raw.targets / relative).norm(dim=0)
        perfect = residuals.sqrt() <= max(evidence.embeddings.shape) * _EPS * size
        if bool(perfect.any()):
            name = evidence.class_names[int(perfect.nonzero()[0])]
            return missing(f"the embeddings fit class {name!r} without error: its evidence has no bound", images)
    models = _Models(relative.square(), raw.targets.square(), residuals, images)
    t, value = models.best()
    score = float(value.mean()) - 0.5 * (1 + math.log(2 * math.pi))
    if bool((t >= _INFINITE).all()):
        return normal_estimate(score, None, images, "the embeddings tell nothing of the labels: no standard error at the limit")
    influence = centred_influence(_predictive(evidence, models, t), evidence.labels, evidence.classes)
    return normal_estimate(score, influence, images, "a class with a single image has no variance: no standard error")


def _predictive(evidence: Evidence, models: _Models, t: Tensor) -> Tensor:
    """Return the log predictive density of the labels of each image given all others, (N,), up to a constant.

    With u the row of U, k = (1 - h)/t and c = e/t for leverage h and residual e it is 1/2 ln(alpha k) - alpha c^2 / (2 k), which
    stands where t is 0.
    """
    raw = evidence.spectrum.raw
    inverse, alphas = 1 / (models.squares + t), models.images / models.quotient(t)
    whole = raw.rank == models.images
    found = torch.empty(models.images, dtype=torch.float64)
    for rows, left in raw.left():
        k, c = left.square() @ inverse, left @ (raw.targets * inverse)
        if not whole:
            outside = -(left @ raw.targets)
            outside.scatter_add_(1, evidence.labels[rows, None], torch.ones_like(outside))
            k += (1 - left.square().sum(1)).clamp(min=0)[:, None] / t
            c += outside / t
        found[rows] = 0.5 * (k.log() - alphas * c.square() / k).mean(1)
    return found

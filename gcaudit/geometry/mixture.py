"""A mixture of Gaussians with full covariances, fitted by expectation maximisation.

The model, its start and its stop are those of scikit-learn's `GaussianMixture`, and so are its results, to rounding: k-means without restarts, 1e-6
added to every variance, stop when the mean log-likelihood changes by less than 1e-3 or after 100 rounds. It is here for its cost. A component that
holds m images in d dimensions, m < d, has a covariance of rank m at most, next to those 1e-6: with the singular vectors V (r, d) and variances of its
weighted deviations,

    (x - mu)^T C^-1 (x - mu) = sum_k (V (x - mu))_k^2 / (variance_k + 1e-6) + (|x - mu|^2 - |V (x - mu)|^2) / 1e-6

which takes r d steps an image in place of d^2. Where images are as many as components times d, the two are the same.

Reference: Dempster, Laird, Rubin, "Maximum likelihood from incomplete data via the EM algorithm", Journal of the Royal Statistical Society B 1977.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

_FLOOR = 1e-6
_CHANGE = 1e-3
_ROUNDS = 100
# a share below this changes no digit of a mean or variance
_SHARE = 1e-20
_EPS = torch.finfo(torch.float64).eps


class SingularCovarianceError(ValueError):
    """1e-6 is lost beside the variances of a component that does not span the space."""


@final
@dataclass(frozen=True)
class _Component:
    """One Gaussian: log weight, mean (d,), directions (r, d) with orthonormal rows, and their variances (r,)."""

    log_weight: float
    mean: Tensor
    directions: Tensor
    variances: Tensor

    def log_density(self, z: Tensor, squares: Tensor) -> Tensor:
        """Return the weighted log density of rows.

        Args:
            z: (N, d) float64.
            squares: (N,) their squared lengths.

        Returns:
            (N,) ln(weight * density).
        """
        dims = z.shape[1]
        along = (z @ self.directions.T - self.directions @ self.mean).square_()
        spread = self.variances + _FLOOR
        logarithms = dims * math.log(2 * math.pi) + float(spread.log().sum())
        distance = along @ (1 / spread)
        if len(spread) < dims:
            logarithms += (dims - len(spread)) * math.log(_FLOOR)
            rest = squares - 2 * (z @ self.mean) + self.mean @ self.mean - along.sum(1)
            distance += rest.clamp_(min=0) / _FLOOR
        return self.log_weight - (distance + logarithms) / 2


def _component(z: Tensor, shares: Tensor) -> _Component:
    """Fit one Gaussian.

    Args:
        z: (N, d) float64.
        shares: (N,) probabilities that it made the images.

    Returns:
        The Gaussian of largest likelihood, but for the floor.
    """
    total = float(shares.sum()) + 10 * _EPS
    mean = (shares @ z) / total
    rows = torch.nonzero(shares > _SHARE * total).flatten()
    deviations = (z[rows] - mean) * (shares[rows] / total).sqrt()[:, None]
    if len(rows) < z.shape[1]:
        _, values, directions = torch.linalg.svd(deviations, full_matrices=False)
        variances = values.square()
        if len(variances) and float(variances[0]) * len(mean) * _EPS > _FLOOR:
            raise SingularCovarianceError
    else:
        variances, vectors = torch.linalg.eigh(deviations.T @ deviations)
        directions = vectors.T
        if float(variances[-1]) * len(mean) * _EPS > float(variances[0].clamp(min=0)) + _FLOOR:
            raise SingularCovarianceError
        variances = variances.clamp(min=0)
    return _Component(math.log(total / len(z)), mean, directions, variances)


def _expect(z: Tensor, squares: Tensor, mixture: list[_Component]) -> tuple[float, Tensor]:
    """Return the mean log-likelihood, and the (N, M) probabilities of the components for each image."""
    joint = torch.stack([component.log_density(z, squares) for component in mixture], 1)
    likelihood = torch.logsumexp(joint, 1)
    return float(likelihood.mean()), (joint - likelihood[:, None]).exp()


def mixture_probabilities(z: Tensor, components: int, seed: int) -> Tensor:
    """Fit a mixture and say which component each image is of.

    Args:
        z: (N, d) float64 near the origin.
        components: M, at most N.
        seed: of the k-means start.

    Returns:
        (N, M) float64 probabilities; rows sum to 1.

    Raises:
        SingularCovarianceError: the scale of the images is too large for a component of few of them.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # fewer different images than components leave some without any
        warnings.simplefilter("ignore", ConvergenceWarning)
        start = torch.from_numpy(KMeans(components, n_init=1, random_state=seed).fit(z.numpy()).labels_).long()
    shares = torch.nn.functional.one_hot(start, components).to(torch.float64)
    squares = z.square().sum(1)
    likelihood = -math.inf
    for _ in range(_ROUNDS):
        mixture = [_component(z, part) for part in shares.T.contiguous()]
        previous = likelihood
        likelihood, shares = _expect(z, squares, mixture)
        if abs(likelihood - previous) < _CHANGE:
            break
    # the last step of the reference is one more maximisation
    return _expect(z, squares, [_component(z, part) for part in shares.T.contiguous()])[1]

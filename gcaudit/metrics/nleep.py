"""N-LEEP: LEEP with the components of a mixture of Gaussians in place of the classes of a head.

Embeddings are projected on the first principal components that hold more than 80% of the variance, a mixture of 5 K Gaussians with full covariances is
fitted to them without labels, and the probabilities of its components for each image go into LEEP. Published codes differ: K or 5 K components, with
and without a seed, and a family of them takes the mean probability without the logarithm, which is not LEEP. Here: 5 K, the logarithm, float64, and
the k-means start at the seed 123, as the seeded one of the published codes.

The mixture has local optima, so the value depends on that seed, and there is no standard error: it would not hold what another start gives. At most
5000 images are taken. The mixture adds 1e-6 to variances, so embeddings of very small scale give another value.

Reference: Li, Jia, Sang, Zhu, Green, Wang, Gong, "Ranking neural checkpoints", CVPR 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcaudit.geometry import (
    Estimate,
    Evidence,
    SingularCovarianceError,
    balanced_subset,
    labels_reason,
    missing,
    mixture_probabilities,
    normal_estimate,
)
from gcaudit.metrics.leep import leep_of

_IMAGES = 5000
_SHARE = 0.8
_COMPONENTS = 5
_SEED = 123


def mixture_leep(z: Tensor, labels: Tensor, classes: int, components: int, seed: int) -> float:
    """Fit a mixture and evaluate LEEP on its components.

    Args:
        z: (N, d) float64.
        labels: (N,) int64.
        classes: K.
        components: of the mixture, at most N.
        seed: of the k-means start.

    Returns:
        LEEP in nats.

    Raises:
        SingularCovarianceError: the mixture has no likelihood.
    """
    probabilities = mixture_probabilities(z, components, seed)
    value, _ = leep_of(lambda rows: probabilities[rows], labels, classes, components)
    return float(value)


def main_components(evidence: Evidence, rows: Tensor, share: float) -> Tensor:
    """Project images on the first principal components that hold more than a share of the variance.

    Args:
        evidence: whose embeddings differ.
        rows: (n,) int64.
        share: between 0 and 1.

    Returns:
        (n, d) float64.
    """
    spectrum = evidence.spectrum
    held = spectrum.values.square().cumsum(0)
    dims = int((held <= share * held[-1]).sum()) + 1
    return (evidence.embeddings[rows].to(torch.float64) - spectrum.centre) @ spectrum.directions[:, :dims]


def n_leep(evidence: Evidence) -> Estimate:
    """Measure N-LEEP.

    Of more than 5000 images a class-balanced 5000 are taken; n says how many.

    Args:
        evidence: at least two classes, and at least 5 images a class on average.

    Returns:
        The estimate in nats, at most 0; higher is better. Invariant under shift and rotation up to the start of the mixture.
    """
    reason = labels_reason(evidence)
    if reason:
        return missing(reason, evidence.images)
    rows = balanced_subset(evidence, "n_leep", _IMAGES)
    components = _COMPONENTS * evidence.classes
    if len(rows) < components:
        return missing(f"a mixture of {components} Gaussians needs as many images, found {len(rows)}", len(rows))
    z = main_components(evidence, rows, _SHARE)
    try:
        value = mixture_leep(z, evidence.labels[rows], evidence.classes, components, _SEED)
    except SingularCovarianceError:
        return missing("the mixture could not be fitted: a component has a singular covariance", len(rows))
    return normal_estimate(value, None, len(rows), "no standard error: the mixture has local optima and depends on its start")

"""Flatness of the loss where the network stands, on images of the source.

    slope = |grad L|^2,      sharpness = tr(H) / P,      L = mean cross-entropy of the head, H its Hessian over the P parameters

Gradient descent prefers small slopes, and the structure of a network's first layer makes of a small slope over the parameters a small one over the pixels, which is how
the paper's authors explain that training keeps GC low. Neither is invariant: a ReLU network that is rescaled between layers computes the same and has another slope and sharpness, so they compare
checkpoints of one training family only. BatchNorms are in eval mode, and their scales and shifts count as parameters.

References: Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines", 1989; Dherin, Munn, Rosca,
Barrett, "Why neural networks find simple solutions", NeurIPS 2022; Dinh, Pascanu, Bengio, Bengio, "Sharp minima can generalize for deep nets", ICML 2017
(that rescaling changes them).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from gcaudit.geometry import Estimate, Evidence, missing


def loss_slope(evidence: Evidence) -> Estimate:
    """Measure the slope of the head's loss over the parameters, for the distribution that images were drawn from.

    The squared norm of a mean over images is too large by tr(Cov)/N, which is most of it where training has ended: products of different batches are taken
    instead, which have no bias (see `gcaudit.geometry.curvature`). So the value may fall below 0 where the slope is small.

    Args:
        evidence: with flatness: at most 256 images, class-balanced, in 8 batches.

    Returns:
        The estimate, in squared nats per squared parameter unit; `plug_in` is that of the images at hand, `terms` the loss and the number of parameters.
    """
    return _part(evidence, "slope")


def loss_sharpness(evidence: Evidence) -> Estimate:
    """Measure the mean curvature of the head's loss over the parameters, tr(H)/P, by Hutchinson's random signs.

    Args:
        evidence: with flatness: at most 256 images, class-balanced, in 8 batches with 2 vectors each.

    Returns:
        The estimate, in nats per squared parameter unit; its standard error holds the noise of images and of vectors. `terms` are the loss and the number of
        parameters.
    """
    return _part(evidence, "sharpness")


def _part(evidence: Evidence, name: Literal["slope", "sharpness"]) -> Estimate:
    found = evidence.flatness
    if found is None:
        return missing(evidence.flatness_reason, evidence.images)
    estimate: Estimate = found.slope if name == "slope" else found.sharpness
    return replace(estimate, details={**estimate.details, "terms": {"loss": found.loss, "parameters": float(found.parameters)}})

"""Standard errors of functions of weighted images, by the infinitesimal jackknife.

A score T of N images is also a function T(w) of weights w_i, with T = T(1/N, ..., 1/N). Shifting weight onto image i of class c, and away from
the others of its class, moves T by

    psi_i = (1/N) (dT/dw_i - mean over class c of dT/dw) * sqrt(n_c / (n_c - 1))

to first order, and Var(T) is the sum of psi^2: images are independent draws from their class, the sizes of classes are fixed. The factor
n_c/(n_c - 1) is for the estimated mean. It is the delta method of `delta.py` for functions of more than class means and variances.

What it holds is the noise of sampling images, not the bias of a score whose dimension is not small beside the number of images.

Reference: Efron, "The jackknife, the bootstrap and other resampling plans", SIAM 1982, chapter 6.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def centred_influence(gradient: Tensor, labels: Tensor, classes: int) -> Tensor | None:
    """Turn derivatives by weight into influences.

    Args:
        gradient: (N,) float64 dT/dw_i at w_i = 1/N; a constant added to all images of a class changes nothing.
        labels: (N,) int64 in 0..K-1.
        classes: K.

    Returns:
        (N,) float64 influences whose norm is the standard error; None where a class has a single image.
    """
    counts = torch.bincount(labels, minlength=classes).to(torch.float64)
    if bool((counts < 2).any()):
        return None
    means = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, gradient) / counts
    return (gradient - means[labels]) * (counts / (counts - 1)).sqrt()[labels] / len(labels)


def weighted_estimate(function: Callable[[Tensor], Tensor], labels: Tensor, classes: int) -> tuple[Tensor, Tensor | None]:
    """Evaluate a function of the images' weights, and the influence of each image on it.

    Args:
        function: from (N,) float64 weights that sum to 1 to a differentiable scalar.
        labels: (N,) int64 in 0..K-1.
        classes: K.

    Returns:
        The value at equal weights, and (N,) influences; None where a class has a single image.
    """
    with torch.enable_grad():
        weights = torch.full((len(labels),), 1 / len(labels), dtype=torch.float64, requires_grad=True)
        value = function(weights)
        (gradient,) = torch.autograd.grad(value, weights)
    return value.detach(), centred_influence(gradient, labels, classes)

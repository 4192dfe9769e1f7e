"""PACTran: a PAC-Bayesian bound on the error of a linear model of the embeddings, with a Gaussian prior.

With x_n the embeddings less their mean, a weight W (K, D) and a bias b (K), p_n = softmax(W x_n + b), and lambda = 1,

    F  = min over W, b of 1/N sum_n -ln p_n[y_n] + |W|^2/(2 lambda N)
    h  = sum_n (|x_n|^2 + 1) sum_c p_nc (1 - p_nc) + K D/(lambda N)       at the minimum: the trace of a diagonal Hessian
    PACTran = F + (K D/(2 lambda N)) s^2 ln(h lambda N/(K D) + 1e-10)      with s^2 = 10/D

lambda = 1 with s^2 = 10/D is of the published grid (lambda, D s^2) in (10, 1000), (10, 100), (1, 100), (1, 10), (0.1, 10), (0.1, 1); the published study
takes the best of it for each task, which needs the answer. The value depends on the scale of the embedding: lambda is the variance of the weights.

The published code stops its minimiser after 100 steps from a random start, which on 300 images of 16 dimensions leaves up to 3e-6 in F and a
relative 1e-4 in the value; the problem is convex, and here it is solved until no entry of the gradient is above 1e-9, so the start does not matter. Its
penalty makes it strongly convex, so a gradient g of the weights proves that F is within lambda N |g|^2 / 2 of the minimum; where that does not prove
1e-7 of the value (embeddings of a very large scale), there is none.

Reference: Ding, Chen, Levinboim, Changpinyo, Soricut, "PACTran: PAC-Bayesian metrics for estimating the transferability of pretrained models to
classification tasks", ECCV 2022.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gcaudit.geometry import Estimate, Evidence, balanced_subset, labels_reason, missing, normal_estimate

_IMAGES = 20000
_LAMBDA = 1.0
_PRIOR = 10.0
_STEPS = 20000
_GRADIENT = 1e-9
_ACCURACY = 1e-7


def minimise(x: Tensor, labels: Tensor, classes: int, strength: float) -> tuple[float, Tensor, float]:
    """Fit the penalised multinomial logistic regression with a free bias.

    Args:
        x: (N, D) float64.
        labels: (N,) int64.
        classes: K.
        strength: lambda.

    Returns:
        F, the (N, K) probabilities at the minimum, and a bound on what F lacks of it.
    """
    from scipy.optimize import minimize

    count, dims = x.shape
    own = torch.arange(count), labels

    def objective(flat: Any) -> tuple[float, Any]:
        weights = torch.as_tensor(flat).reshape(classes, dims + 1)
        scores = torch.log_softmax(torch.addmm(weights[:, -1], x, weights[:, :-1].T), 1)
        value = -scores[own].mean() + weights[:, :-1].square().sum() / (2 * strength * count)
        residuals = scores.exp()
        residuals[own] -= 1
        residuals /= count
        gradient = torch.cat((residuals.T @ x + weights[:, :-1] / (strength * count), residuals.sum(0)[:, None]), 1)
        return float(value), gradient.flatten().numpy()

    start = torch.zeros(classes * (dims + 1), dtype=torch.float64).numpy()
    options: Any = {"maxiter": _STEPS, "maxfun": 2 * _STEPS, "ftol": 0.0, "gtol": _GRADIENT, "maxcor": 30}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    weights = torch.as_tensor(found.x).reshape(classes, dims + 1)
    probabilities = torch.softmax(torch.addmm(weights[:, -1], x, weights[:, :-1].T), 1)
    slope = torch.as_tensor(found.jac).reshape(classes, dims + 1)[:, :-1]
    return float(found.fun), probabilities, float(slope.square().sum()) * strength * count / 2


def bound(x: Tensor, labels: Tensor, classes: int, dims: int, *, strength: float, prior: float) -> tuple[float, float, float]:
    """Evaluate F and PACTran.

    Args:
        x: (N, r) float64 centred embeddings, in any orthonormal basis of the space that they span.
        labels: (N,) int64.
        classes: K.
        dims: D.
        strength: lambda.
        prior: D s^2.

    Returns:
        F, PACTran, and a bound on the error of F.
    """
    least, probabilities, error = minimise(x, labels, classes, strength)
    count, size = len(x), classes * dims
    curvature = (probabilities * (1 - probabilities)).sum(1)
    trace = float((curvature * (x.square().sum(1) + 1)).sum()) + size / (strength * count)
    inverse = trace * strength * count / size + 1e-10
    return least, least + size / (2 * strength * count) * prior / dims * math.log(inverse), error


def pactran_gaussian(evidence: Evidence) -> Estimate:
    """Measure PACTran with a Gaussian prior, lambda = 1 and s^2 = 10/D.

    Of more than 20,000 images a class-balanced 20,000 are taken; n says how many, and it is the N of the definition.

    Args:
        evidence: at least two classes.

    Returns:
        The estimate in nats; lower is better. Invariant under rotation and shift, not under scale. Compare at equal N.
    """
    reason = labels_reason(evidence)
    if reason:
        return missing(reason, evidence.images)
    chosen = balanced_subset(evidence, "pactran_gaussian", _IMAGES)
    spectrum = evidence.spectrum
    x = (evidence.embeddings[chosen].to(torch.float64) - spectrum.centre) @ spectrum.directions
    _, value, error = bound(
        x - x.mean(0), evidence.labels[chosen], evidence.classes, evidence.embeddings.shape[1], strength=_LAMBDA, prior=_PRIOR
    )
    if not error <= _ACCURACY * abs(value):
        return missing(
            "the penalised regression could not be solved: the scale of the embeddings is too large for its penalty", len(chosen)
        )
    return normal_estimate(value, None, len(chosen), "no standard error: the fitted model depends on all images")

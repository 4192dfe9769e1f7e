"""The paper's inequalities on the model at hand: what they bound, by what, and how tight they are.

Each value is the right side of an inequality, or what it takes; `tightness` is the left side over the right one, so that 1 is an equality and 0.01 a
bound a hundred times too large. Neither side is better for transfer.

References: Munn, Dherin, Gonzalvo, NeurIPS 2024 (*the paper*), propositions 4.1 to 4.3; Hoeffding, "Probability inequalities for sums of bounded random
variables", JASA 1963; Galanti, Gyorgy, Hutter, "On the role of neural collapse in transfer learning", ICLR 2022, proposition 5.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from gcaudit.geometry import (
    Estimate,
    Evidence,
    derive_seed,
    energies_reason,
    energy_count,
    energy_details,
    missing,
    positive_estimate,
    random_order_keys,
)
from gcaudit.metrics.collapse import cdnv, geometric_collapse
from gcaudit.metrics.complexity import gc, poincare_lower_bound
from gcaudit.metrics.ridge import ProbeSettings

DELTA = 0.05
"""Chance that the deviation of an empirical GC is larger than its bound."""
_ROUNDS, _QUERIES = 50, 2000


def cdnv_over_collapse(evidence: Evidence) -> Estimate:
    """Measure CDNV over geometric collapse, which the paper takes for the Poincare constant.

    Proposition 4.1 says CDNV <= kappa times the geometric collapse where all classes satisfy a Poincare inequality with constant kappa: by v_c <= kappa
    GC_c for each class, and as GC_i + GC_j is at most K times the mean of GC_c. So kappa is at least this ratio, and `poincare_lower_bound` is a
    larger, hence better bound from below: the ratio spreads GC over all pairs and loses up to a factor K/2 by it.

    Args:
        evidence: at least two classes with at least two images each, with energies.

    Returns:
        The estimate, in squared pixel units; invariant under scale, rotation and shift of the embedding.
    """
    above, below = cdnv(evidence), geometric_collapse(evidence)
    count = energy_count(evidence)
    for side in (below, above):
        if side.value is None:
            return missing(side.reason or "it could not be measured", count)
    assert above.value is not None
    assert below.value is not None
    if not below.value > 0:
        return missing("the geometric collapse is not positive", count)
    value = above.value / below.value
    influence = None
    if above.influence is not None and below.influence is not None:
        influence = (above.influence - value * below.influence) / below.value
    reason = above.reason or below.reason
    return positive_estimate(
        value, influence, evidence.labels, count, reason=reason, energies=evidence.energies, **energy_details(evidence)
    )


def gc_deviation(evidence: Evidence) -> Estimate:
    """Bound how far the empirical GC is from that of the distribution, as proposition 4.2 does.

    For energies in [0, G], drawn independently, n_c of each of K classes, Hoeffding's inequality for the mean of class means says that with a chance of at
    least 1 - delta

        |empirical GC - GC| <= G sqrt(ln(2/delta) / 2 * (1/K^2) sum_c 1/n_c),

    which is the paper's L^2 sqrt(ln(2/delta)/(2m)) for m images in equal classes, with G for L^2: an energy, the squared Frobenius norm, has to stay below G,
    where a Lipschitz constant bounds the spectral norm alone and says G <= min(D, pixels) L^2. G is a supremum over all images that there might be.
    What is taken is the largest energy seen, which is at most G: the value is a lower estimate of the bound, not a bound. The bound that is certain has
    D L^2 for G, L from `lipschitz_bound`; it is so large that it says nothing. A `sketch` adds the noise of
    its random vectors to every energy; `--gc exact` does not.

    Args:
        evidence: with energies.

    Returns:
        The right side at delta = 0.05, in the unit of GC. `terms` are the range, delta, the half width of the empirical 95% interval and, where layers
        allow, the right side `by_lipschitz`; `tightness` is the half width over the value.
    """
    reason = energies_reason(evidence)
    if reason:
        return missing(reason)
    assert evidence.energies is not None
    counts = evidence.energy_counts().to(torch.float64)
    largest = float(evidence.energies.max())
    value = largest * math.sqrt(math.log(2 / DELTA) / 2 * float((1 / counts).sum()) / len(counts) ** 2)
    if not math.isfinite(value):
        return missing("the value is beyond the range of 64-bit floating point", energy_count(evidence))
    terms = {"range": largest, "delta": DELTA}
    certain = math.inf if evidence.lipschitz is None else _most_energy(evidence) * (value / largest if largest > 0 else math.inf)
    if math.isfinite(certain):
        terms["by_lipschitz"] = certain
    interval = gc(evidence).ci95
    details = dict(energy_details(evidence))
    if interval is not None and value > 0:
        terms["half_width"] = (interval[1] - interval[0]) / 2
        details["tightness"] = terms["half_width"] / value
    return Estimate(value, n=energy_count(evidence), details={**details, "terms": terms})


def _most_energy(evidence: Evidence) -> float:
    """Return D L^2, which no energy exceeds."""
    assert evidence.lipschitz is not None
    return float(evidence.embeddings.shape[1]) * evidence.lipschitz * evidence.lipschitz


def lipschitz_bound(evidence: Evidence) -> Estimate:
    """Bound the embedding's Lipschitz constant over all images, layer by layer.

        |f(x) - f(y)| <= L |x - y|,      so |J(x)| <= L (spectral norm)  and  g(x) <= D L^2

    Spectral norms of layers are multiplied along a chain and added where branches are added (see `gcaudit.encoders.lipschitz` for convolutions). Attention
    and gates that multiply two maps have no such constant, and make it null with the layer's name. The bound is certain, and by orders of magnitude
    too large: it takes the worst input of every layer at once.

    Args:
        evidence: with the constant.

    Returns:
        L, in embedding units per pixel unit; no estimate, so without interval. `terms` has `energy_at_most`, D L^2. `tightness` is sqrt(largest energy / D), which L
        is at least, over L; with a `sketch` the largest energy is a noisy one.
    """
    if evidence.lipschitz is None:
        return missing(evidence.lipschitz_reason, evidence.images)
    details: dict[str, object] = {}
    if math.isfinite(most := _most_energy(evidence)):
        details["terms"] = {"energy_at_most": most}
        if evidence.energies is not None and most > 0:
            details["tightness"] = math.sqrt(float(evidence.energies.max()) / most)
    return Estimate(evidence.lipschitz, n=evidence.images, details=details)


def ncm_error_bound(evidence: Evidence, settings: ProbeSettings) -> Estimate:
    """Bound the error of the nearest-mean rule with means of n images a class, as proposition 4.3 does.

    An image z = mu_c + e of class c goes to class j only where |e - a| >= |e - d - b|, with a and b the errors of the two means and d = mu_j - mu_c. Then
    |d| <= 2|e| + |a| + |b|, and by Markov's inequality on the square, with E|e|^2 = v_c, E|a|^2 = v_c/n, E|b|^2 = v_j/n,

        P(c -> j) <= E (2|e| + |a| + |b|)^2 / d^2 <= (8 v_c + 4 (v_c + v_j)/n) / d^2.

    Summed over j and averaged over c this is

        error(n) <= 8 (K - 1) (1 + 1/n) CDNV <= 8 (K - 1) (1 + 1/n) kappa * geometric collapse.

    It assumes that images are drawn independently and that kappa is a Poincare constant of all classes; nothing on the form of the classes. Galanti, Gyorgy
    and Hutter's proposition 5, which the paper builds on, is of the same form; the constant here is that of the lines above, whatever theirs is, and
    what spherical classes would gain is not taken. As no kappa is known, the estimate of the least that is possible stands for it
    (`poincare_lower_bound`): the value is a lower estimate of the right side.

    Args:
        evidence: with energies; classes of more than n images each, or of n images and others held out (`--source-test`).
        settings: whose `n_shot` are the numbers n.

    Returns:
        The right side at the first n, in errors an image, which may exceed 1 and then says nothing; `details["curve"]` has one for each n. `terms` are
        the error seen on images that the means are not of, its standard error over the draws of means, the middle expression (by CDNV) and kappa;
        `tightness` is that error over the value.
    """
    collapse, kappa, variation = geometric_collapse(evidence), poincare_lower_bound(evidence), cdnv(evidence)
    for side in (collapse, kappa, variation):
        if side.value is None:
            return missing(side.reason or "it could not be measured", evidence.images)
    assert collapse.value is not None
    assert kappa.value is not None
    assert variation.value is not None
    curve = []
    for shot in settings.n_shot:
        factor = 8 * (evidence.classes - 1) * (1 + 1 / shot)
        value = factor * kappa.value * collapse.value
        terms = {"by_cdnv": factor * variation.value, "kappa": kappa.value}
        details = {"n_way": evidence.classes, "n_shot": shot, "terms": terms}
        spare = 0 if evidence.held_out is None else 1
        if bool((evidence.moments.counts < shot + 1 - spare).any()):
            curve.append(
                Estimate(value, n=evidence.images, reason=f"a class has too few images for means of {shot}", details=details)
            )
            continue
        errors = few_shot_errors(evidence, shot, settings.seed)
        terms |= {} if evidence.held_out is None else {"held_out_images": float(len(evidence.held_out.labels))}
        terms |= {"error": float(errors.mean()), "error_stderr": float(errors.std() / len(errors) ** 0.5)}
        details["tightness"] = terms["error"] / value
        curve.append(Estimate(value, n=evidence.images, details=details))
    return curve[0] if len(curve) == 1 else replace(curve[0], details={**curve[0].details, "curve": tuple(curve)})


def few_shot_errors(evidence: Evidence, shot: int, seed: int = 0, rounds: int = _ROUNDS) -> Tensor:
    """Draw the error of the nearest-mean rule, on images that the means are not of.

    Args:
        evidence: classes of more than `shot` images each, or of so many and others held out.
        shot: images a class behind each mean.
        seed: of the draws.
        rounds: how many.

    Returns:
        (rounds,) float64 errors, class-balanced, each over at most 2000 images; ties are wrong.
    """
    labels, classes = evidence.labels, evidence.classes
    index = torch.arange(evidence.images)
    found = []
    for number in range(rounds):
        keys = random_order_keys(derive_seed(seed, "nearest-mean error", str(number)), index)
        order = index[torch.argsort(keys)]
        order = order[torch.argsort(labels[order], stable=True)]
        starts = torch.searchsorted(labels[order].contiguous(), torch.arange(classes))
        place = torch.arange(len(order)) - starts[labels[order]]
        support, rest = order[place < shot], order[place >= shot]
        rows, truth, queries = evidence.embeddings, labels, rest[torch.argsort(keys[rest])][:_QUERIES]
        if (held := evidence.held_out) is not None:
            rows, truth = held.embeddings, held.labels
            queries = torch.argsort(random_order_keys(derive_seed(seed, "held-out", str(number)), torch.arange(len(truth))))[
                :_QUERIES
            ]
        means = evidence.embeddings[support].double().view(classes, shot, -1).mean(1)  # they are in the order of their classes
        answers = truth[queries]
        distances = torch.cdist(rows[queries].double(), means)
        own = distances.gather(1, answers[:, None])
        nearer = distances.scatter(1, answers[:, None], math.inf).min(1).values <= own[:, 0]
        wrong = torch.zeros(classes, dtype=torch.float64).index_add_(0, answers, nearer.double())
        seen = torch.bincount(answers, minlength=classes)
        found.append((wrong[seen > 0] / seen[seen > 0]).mean())
    return torch.stack(found)

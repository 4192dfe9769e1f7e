"""How often the nearest class mean is the wanted one, for the distribution's means.

Means of n images are noisy, and a rule that uses them is wrong more often than with the distribution's: by 3 points with 10 images a class for a ResNet-20 on
CIFAR-10, by 14 for an embedding of 1280 dimensions. Two corrections are made. A noisy mean is further from everything, so u_j/n_j is taken off each squared
distance (and u_c/(n_c - 1) off that to an image's own class, whose mean is that of the others). And what the noise costs is seen by adding more of it: with
a(1) the share by means of all images, a(2) and a(4) those by means of halves and quarters of each class, looked up for the images outside of them,

    r = (a(2) - a(4)) / (a(1) - a(2)),   x = (2 - r)/(4r - 2),   share = a(1) + (1 + 2x) (a(1) - a(2))

which is the value at 0 of the curve (p + q s)/(1 + x s) through the three, the rational extrapolant of SIMEX. r is held between 1.25 and 2, where the curve
is the straight line. The standard error has what the images answer, what the means contribute (the density of images on the border between classes), and
what the error of r does to x, where quarters have at least 4 images: with fewer the error is large enough without it, by up to a fifth. The interval is value
-+ t standard errors; where fewer than 5 answers are right, or wrong, it holds Wilson's too.

References: Cook, Stefanski, "Simulation-extrapolation estimation in parametric measurement error models", JASA 1994; Efron, Tibshirani, "Improvements on
cross-validation: the .632+ bootstrap method", JASA 1997 (learning curves).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gcaudit.geometry.counter import derive_seed, random_order_keys
from gcaudit.geometry.estimate import Estimate, missing
from gcaudit.geometry.evidence import Evidence
from gcaudit.geometry.interval import share_estimate
from gcaudit.geometry.proportion import wilson
from gcaudit.geometry.rows import chunks

_PARTS = 4
_FEWEST = 3
_STEEPEST, _STRAIGHT = 1.25, 2.0
_ANY_REACH = 0.5 / math.sqrt(12)  # the standard deviation of a number that is anywhere from 1 to 1.5, as 1 + 2x is
_FEW_OF_A_KIND = 5
_FAR = 8.0
_WORK = 2**29
_ROUNDS = 8
_HALVES = tuple((a, b) for a in range(_PARTS) for b in range(a))


@final
@dataclass(frozen=True)
class _Answers:
    """Of each image, by means of all images.

    Attributes:
        right: (N,) bool.
        plain: (N,) bool, without taking the noise of means off distances.
        margins: (N,) squared distance to the nearest other mean less that to the wanted one.
        rivals: (N,) int64 the nearest other class.
    """

    right: Tensor
    plain: Tensor
    margins: Tensor
    rivals: Tensor


def nearest_mean_share(evidence: Evidence, wanted: Tensor, plug_in: float | None = None) -> Estimate:
    """Measure how often the nearest class mean of the distribution is the wanted one, averaged over classes of equal weight.

    Args:
        evidence: at least two classes with at least two images each, not all embeddings equal.
        wanted: (N,) int64 classes; -1 is never right.
        plug_in: the share by means of the images at hand, kept in the details; None takes that of leaving each image out.

    Returns:
        The estimate, between 0 and 1; None where a class has 2 images.
    """
    labels, classes = evidence.labels, evidence.classes
    counts = evidence.moments.counts.to(torch.float64)
    answers = _leave_one_out(evidence, wanted)

    def balanced(values: Tensor) -> Tensor:
        return torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, values.to(torch.float64)) / counts

    plug_in = float(balanced(answers.plain).mean()) if plug_in is None else plug_in
    if int(counts.min()) < _FEWEST:
        name = evidence.class_names[int(torch.argmin(counts))]
        reason = f"class {name!r} has {int(counts.min())} images: what the noise of class means costs needs {_FEWEST}"
        return missing(reason, evidence.images, plug_in=plug_in)
    halves, quarters = _by_parts(evidence, wanted)
    right = answers.right.to(torch.float64)
    # means of all but one image lie between a(1) and a(2) as their noise does
    ahead = float((1 / (counts - 1)).mean()) / 2
    ahead = ahead / (1 - ahead)
    whole, half = (float(balanced(values).mean()) for values in (right, halves))
    # a rule that does better with fewer images has only been lucky: by no more than the error of the share
    lucky = float(((balanced(right) * (1 - balanced(right))) / (counts - 1)).sum().sqrt()) / classes
    fall = max((whole - half) * (1 + ahead), -lucky)
    scale = (1 / (counts * (counts - 1)).sqrt())[labels]

    def answered(values: Tensor) -> Tensor:
        return scale * (values - balanced(values)[labels]) / classes

    influence = scale * _through_means(evidence, wanted, answers)
    ratio = _STRAIGHT
    if quarters is not None and fall > 0:
        ratio = min(_STRAIGHT, max(_STEEPEST, (half - float(balanced(quarters).mean())) / fall))
        if int(counts.min()) >= _PARTS * _PARTS:
            turn = answered(ratio * (1 + ahead) * (right - halves) - (halves - quarters)) * 12 / (4 * ratio - 2) ** 2
            influence += turn * min(1.0, _ANY_REACH * fall / max(float(turn.norm()), torch.finfo(torch.float64).tiny))
    reach = 1 + 2 * (_STRAIGHT - ratio) / (4 * ratio - 2)
    weight = (1 + reach) * (1 + ahead)
    value = whole + (whole - half) * ahead + reach * fall
    influence += answered(weight * right + (1 - weight) * halves)
    inside = min(1.0, max(0.0, value))
    spread = float(influence.square().sum())
    simple = classes**2 / float((1 / counts).sum())
    least = None
    if min(inside, 1 - inside) * simple < _FEW_OF_A_KIND:
        least = wilson(inside, inside * (1 - inside) / spread if 0 < inside < 1 and spread > 0 else simple)
    return share_estimate(value, influence, labels, evidence.images, least, plug_in=plug_in)


def _leave_one_out(evidence: Evidence, wanted: Tensor) -> _Answers:
    counts = evidence.moments.counts.to(torch.float64)
    centre = evidence.moments.means.mean(0)
    means = evidence.moments.means - centre
    unbiased = evidence.moments.variances(1)
    right, plain = torch.empty(2, len(wanted), dtype=torch.bool)
    margins, rivals = torch.empty(len(wanted), dtype=torch.float64), torch.empty_like(wanted)
    for rows, embeddings in chunks(evidence.embeddings):
        own = evidence.labels[rows, None]
        distances = torch.cdist(embeddings - centre, means, compute_mode="donot_use_mm_for_euclid_dist").square()
        left_out = distances.gather(1, own) * (counts / (counts - 1)).square()[own]
        plain[rows] = _compare(distances.scatter_(1, own, left_out), wanted[rows])[0]
        distances -= (unbiased / counts).expand_as(distances).scatter(1, own, (unbiased / (counts - 1))[own])
        right[rows], margins[rows], rivals[rows] = _compare(distances, wanted[rows])
    return _Answers(right, plain, margins, rivals)


def _compare(distances: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return whether the wanted class is strictly nearest, by how much, and which other is."""
    place = wanted.clamp(min=0)[:, None]
    mine = distances.gather(1, place)[:, 0]
    nearest, rival = distances.scatter(1, place, torch.inf).min(1)
    return (mine < nearest) & (wanted >= 0), nearest - mine, rival


def _parts(evidence: Evidence, round_: int) -> Tensor:
    """Deal the images of each class to quarters, in an order and from a quarter on that depend on the data's fingerprint alone."""
    seed = derive_seed(0, "quarters", evidence.fingerprint, str(round_))
    labels = evidence.labels
    order = torch.argsort(random_order_keys(seed, torch.arange(len(labels))), stable=True)
    order = order[torch.argsort(labels[order], stable=True)]
    counts = evidence.moments.counts
    rank = torch.empty_like(labels)
    rank[order] = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
    first = random_order_keys(derive_seed(seed, "first"), torch.arange(len(counts)))
    return (rank + first[labels]) % _PARTS


def _by_parts(evidence: Evidence, wanted: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return for each image how often means of halves, and of quarters, that it is not in are right; None where a class has no quarters."""
    images, dim = evidence.embeddings.shape
    classes = evidence.classes
    rounds = max(1, min(_ROUNDS, _WORK // (images * dim * classes)))
    parts = torch.stack([_parts(evidence, number) for number in range(rounds)])
    groups = parts * classes + evidence.labels
    centre = evidence.moments.means.mean(0)
    sums = torch.zeros(rounds, _PARTS * classes, dim, dtype=torch.float64)
    for rows, embeddings in chunks(evidence.embeddings):
        for number in range(rounds):
            sums[number].index_add_(0, groups[number, rows], embeddings - centre)
    sizes = torch.stack([torch.bincount(group, minlength=_PARTS * classes) for group in groups]).view(rounds, _PARTS, classes)
    sums = sums.view(rounds, _PARTS, classes, dim)
    noise = evidence.moments.variances(1)
    right = torch.zeros(2, images, dtype=torch.float64)
    asked = torch.zeros(2, images, dtype=torch.float64)
    sides = (_HALVES, tuple((part,) for part in range(_PARTS)) if int(evidence.moments.counts.min()) >= _PARTS else ())
    for rows, embeddings in chunks(evidence.embeddings):
        for number in range(rounds):
            products = ((embeddings - centre) @ sums[number].view(-1, dim).T).view(-1, _PARTS, classes)
            for side, members in enumerate(sides):
                for group in members:
                    chosen = list(group)
                    size = sizes[number, chosen].sum(0).to(torch.float64)
                    lengths = (sums[number, chosen].sum(0) / size[:, None]).square().sum(1)
                    distances = lengths - noise / size - 2 * products[:, chosen].sum(1) / size
                    out = ~torch.isin(parts[number, rows], torch.tensor(chosen))
                    right[side, rows] += (_compare(distances, wanted[rows])[0] & out).to(torch.float64)
                    asked[side, rows] += out.to(torch.float64)
    return right[0] / asked[0], right[1] / asked[1] if sides[1] else None


def _through_means(evidence: Evidence, wanted: Tensor, answers: _Answers) -> Tensor:
    """Return by how much each image moves the share through the mean of its class, (N,), but for 1/n_c."""
    counts = evidence.moments.counts.to(torch.float64)
    labels, margins = evidence.labels, answers.margins
    spread = float(margins.std())
    rising = margins.sort().values
    quartiles = float(rising[3 * len(rising) // 4] - rising[len(rising) // 4])
    width = 1.06 * min(spread, quartiles / 1.34 or spread) * len(margins) ** -0.2
    if not 0 < width < math.inf:
        return torch.zeros_like(margins)
    density = (-(margins / width).square() / 2).exp() / (width * math.sqrt(2 * math.pi)) / (len(counts) * counts[labels])
    density = torch.where((wanted >= 0) & (margins.abs() < _FAR * width), density, 0.0)
    means, place = evidence.moments.means, wanted.clamp(min=0)
    gradient = torch.zeros_like(means)
    for rows, embeddings in chunks(evidence.embeddings):
        weight = 2 * density[rows, None]
        gradient.index_add_(0, place[rows], weight * (embeddings - means[place[rows]]))
        gradient.index_add_(0, answers.rivals[rows], -weight * (embeddings - means[answers.rivals[rows]]))
    found = torch.empty_like(margins)
    for rows, embeddings in chunks(evidence.embeddings):
        own = labels[rows]
        found[rows] = ((embeddings - means[own]) * gradient[own]).sum(1)
    return found

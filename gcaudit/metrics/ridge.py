"""The few-shot ridge probe.

An episode draws n_way classes, and n_shot support and n_query query images of each. Ridge regression on one-hot targets is fitted to
the support: embeddings centred by the support mean, targets centred, intercept unpenalised,

    penalty = ridge * ||Z||_F^2 / S      (Z: the centred support matrix with S = n_way * n_shot rows)

so that `ridge` has no unit and the probe is invariant under scaling, rotating and shifting the embedding. A query goes to the class
of largest prediction. In the dual, with G = Z Z^T and centred targets Y,

    prediction(q) = (q - mean)^T Z^T (G + penalty I)^-1 Y + mean target

which is an S x S solve, whatever D is. Episodes are drawn by hashing (seed, episode, class, image): two models see the same ones,
and so do different n_shot, whose supports are nested and whose queries are the same.

References: Bertinetto, Henriques, Torr, Vedaldi, "Meta-learning with differentiable closed-form solvers", ICLR 2019 (the ridge probe);
Munn, Dherin, Gonzalvo, NeurIPS 2024, section 5 (its use as transfer accuracy).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from gcaudit.errors import DataError, RequestError
from gcaudit.geometry import (
    NORMAL_95,
    EpisodeInfluence,
    Estimate,
    Evidence,
    Rows,
    chunks,
    derive_seed,
    image_variance,
    missing,
    random_order_keys,
    student_95,
)

_BYTES = 8 * 2**20
_GRAM_ROWS = 8192
_GRAM_GAIN = 4
"""A product of one large matrix with itself does so many times more work a second than small ones of gathered rows."""
_CANCELLED = 1e-6
"""Centred inner products below this share of the uncentred ones have lost too many digits."""
_ABSENT = torch.iinfo(torch.int64).max


@final
@dataclass(frozen=True)
class ProbeSettings:
    """How episodes are drawn and fitted.

    Attributes:
        n_way: classes an episode.
        n_shot: support images a class; several make a curve.
        n_query: query images a class; None takes all that are left.
        episodes: how many episodes.
        ridge: penalty relative to the mean squared norm of the centred support.
        seed: of the draw.
    """

    n_way: int = 5
    n_shot: tuple[int, ...] = (5,)
    n_query: int | None = 15
    episodes: int = 1000
    ridge: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            RequestError: a number is out of range.
        """
        if self.n_way < 2:
            raise RequestError(f"expected --n-way of at least 2, found {self.n_way}; an episode tells classes apart")
        if not self.n_shot or min(self.n_shot) < 1 or len(set(self.n_shot)) != len(self.n_shot):
            raise RequestError(f"expected --n-shot of distinct numbers >= 1, such as 1,5,20; found {self.n_shot}")
        if self.n_query is not None and self.n_query < 1:
            raise RequestError(f"expected --n-query of at least 1 or 'all', found {self.n_query}")
        if self.episodes < 1:
            raise RequestError(f"expected --episodes of at least 1, found {self.episodes}")
        if not 0 < self.ridge < float("inf"):
            raise RequestError(f"expected --ridge above 0, found {self.ridge}; 1.0 is the default")

    def check(self, counts: Tensor, class_names: tuple[str, ...]) -> list[str]:
        """Check that a data set is large enough for the episodes.

        Args:
            counts: (K,) images of each class.
            class_names: K names.

        Returns:
            Warnings: classes that give fewer than n_query queries.

        Raises:
            DataError: fewer than n_way classes, or a class too short for n_shot + 1.
        """
        if len(counts) < self.n_way:
            raise DataError(
                f"expected at least {self.n_way} target classes for --n-way {self.n_way}, found {len(counts)}; "
                f"pass --n-way {max(2, len(counts))} or more classes"
            )
        need = max(self.n_shot)
        shortest = int(torch.argmin(counts))
        if int(counts[shortest]) < need + 1:
            raise DataError(
                f"expected at least {need + 1} images a class for --n-shot {need} and one query, found "
                f"{int(counts[shortest])} in class {class_names[shortest]!r}; lower --n-shot or leave that class out"
            )
        if self.n_query is not None and int(counts[shortest]) < need + self.n_query:
            short = int((counts < need + self.n_query).sum())
            name, size = class_names[shortest], int(counts[shortest])
            line = f"{short} classes have fewer than n_shot + n_query = {need + self.n_query} images (the smallest, {name!r}, has {size})"
            return [f"{line}: fewer queries are taken from them"]
        return []


@final
@dataclass(frozen=True)
class Episodes:
    """A chunk of drawn episodes, as rows into the pool of images.

    Attributes:
        support: (B, n_way, n_shot) int64 rows.
        query: (B, n_way, Q) int64 rows; entries that are absent hold some row.
        present: (B, n_way, Q) bool, which queries are real.
    """

    support: Tensor
    query: Tensor
    present: Tensor


def draw_episodes(members: Tensor, counts: Tensor, numbers: Tensor, *, settings: ProbeSettings, n_shot: int, seed: int) -> Episodes:
    """Draw episodes by number; each is a pure function of (seed, its number).

    Args:
        members: (K, n_max) int64 rows of each class's images, padded with anything.
        counts: (K,) int64 n_c.
        numbers: (B,) int64 episode numbers.
        settings: of the probe.
        n_shot: support images a class.
        seed: derived from the user's seed and the data's fingerprint.

    Returns:
        The episodes. The support is the head of each class's random order, the queries are its tail.
    """
    classes, longest = members.shape
    keys = random_order_keys(derive_seed(seed, "classes"), numbers[:, None], torch.arange(classes))
    ways = torch.topk(keys, settings.n_way, dim=1, largest=False, sorted=True).indices
    place = torch.arange(longest)
    keys = random_order_keys(derive_seed(seed, "images"), numbers[:, None, None], ways[:, :, None], place)
    size = counts[ways]
    present = place < size[:, :, None]
    head = torch.topk(torch.where(present, keys, _ABSENT), n_shot, dim=2, largest=False, sorted=True).indices
    wanted = size - n_shot if settings.n_query is None else torch.clamp(size - n_shot, max=settings.n_query)
    tail = torch.topk(torch.where(present, keys, -1), int(wanted.max()), dim=2, sorted=True).indices
    rows = members[ways]
    return Episodes(rows.gather(2, head), rows.gather(2, tail), torch.arange(tail.shape[2]) < wanted[:, :, None])


def _answer(products: Tensor, queries: Tensor, episodes: Episodes, ridge: float, floor: Tensor | float) -> tuple[Tensor, Tensor]:
    """Fit episodes and answer their queries from inner products.

    Args:
        products: (B, S, S) of the support embeddings, about any origin that the queries share.
        queries: (B, n_way * Q, S) of queries and support.
        episodes: B episodes.
        ridge: the relative penalty.
        floor: traces of the centred products up to this are rounding.

    Returns:
        (B, n_way, Q) bool, which queries are real and answered rightly, and (B,) bool, whether the support was told apart from a single point.
    """
    batch, ways, shots = episodes.support.shape
    size = ways * shots
    middle = products.mean(2)
    centred = products - middle[:, :, None] - middle[:, None, :] + middle.mean(1)[:, None, None]
    trace = centred.diagonal(dim1=1, dim2=2).sum(1)
    usable = trace > floor
    penalty = torch.where(usable, ridge * trace / size, torch.ones_like(trace))
    centred.diagonal(dim1=1, dim2=2).add_(penalty[:, None])
    targets = torch.eye(ways, dtype=products.dtype).repeat_interleave(shots, 0) - 1 / ways
    targets = targets.expand(batch, size, ways)
    factors, failed = torch.linalg.cholesky_ex(centred)
    weights = torch.linalg.solve(centred, targets) if bool(failed.any()) else torch.cholesky_solve(targets, factors)
    # weights of a class sum to 0 but for rounding, which a small penalty magnifies: queries must be centred in both ways
    queries = queries - queries.mean(2, keepdim=True) - (middle - middle.mean(1, keepdim=True))[:, None, :]
    predicted = (queries @ weights).argmax(2).reshape(episodes.query.shape)
    return (predicted == torch.arange(ways)[None, :, None]) & episodes.present, usable


def accuracies_of(correct: Tensor, usable: Tensor, episodes: Episodes) -> Tensor:
    """Average answers over the queries of each class, then over classes.

    Args:
        correct: (B, n_way, Q) bool.
        usable: (B,) bool.
        episodes: B episodes.

    Returns:
        (B,) float64 class-balanced accuracy; NaN where all support embeddings are identical.
    """
    found = (correct.sum(2) / episodes.present.sum(2).to(torch.float64)).mean(1)
    return torch.where(usable, found, torch.nan)


def _take(pool: Rows, rows: Tensor) -> Tensor:
    found = pool.index_select(0, rows.flatten()) if isinstance(pool, Tensor) else pool[rows.flatten()]
    return found.to(torch.float64)


def ridge_answers(pool: Rows, episodes: Episodes, ridge: float, resolution: float = 0.0) -> tuple[Tensor, Tensor]:
    """Fit episodes and answer their queries from the embeddings.

    Args:
        pool: (N, D) embeddings.
        episodes: rows into the pool.
        ridge: the relative penalty.
        resolution: distances up to this size are rounding.

    Returns:
        (B, n_way, Q) bool, which queries are real and answered rightly, and (B,) bool, false where all support embeddings are identical.
    """
    batch, ways, shots = episodes.support.shape
    size = ways * shots
    support = _take(pool, episodes.support).view(batch, size, -1)
    mean = support.mean(1, keepdim=True)
    support = support - mean
    query = _take(pool, episodes.query).view(batch, -1, support.shape[2]) - mean
    return _answer(support @ support.mT, query @ support.mT, episodes, ridge, size * resolution**2)


def gram_answers(gram: Tensor, pool: Rows, episodes: Episodes, ridge: float, resolution: float = 0.0) -> tuple[Tensor, Tensor]:
    """Fit episodes and answer their queries from the inner products of the whole pool.

    Centring inner products cancels where a support is tight beside its distance from the origin; such episodes, if any, are done again from
    the embeddings.

    Args:
        gram: (N, N) float64 inner products of the pool about its centre.
        pool: (N, D) embeddings.
        episodes: rows into the pool.
        ridge: the relative penalty.
        resolution: distances up to this size are rounding.

    Returns:
        What `ridge_answers` returns.
    """
    batch = len(episodes.support)
    support, query = episodes.support.reshape(batch, -1), episodes.query.reshape(batch, -1)
    flat = gram.flatten()

    def inner(rows: Tensor) -> Tensor:
        # index_select takes single numbers out of a large matrix several times faster than indexing does
        places = rows[:, :, None] * len(gram) + support[:, None, :]
        return flat.index_select(0, places.flatten()).view(places.shape)

    products, queries = inner(support), inner(query)
    floor = (_CANCELLED * products.diagonal(dim1=1, dim2=2).sum(1)).clamp(min=support.shape[1] * resolution**2)
    correct, usable = _answer(products, queries, episodes, ridge, floor)
    if not bool(usable.all()):
        again = (~usable).nonzero().flatten()
        tight = Episodes(episodes.support[again], episodes.query[again], episodes.present[again])
        correct[again], usable[again] = ridge_answers(pool, tight, ridge, resolution)
    return correct, usable


def _gram(pool: Rows, centre: Tensor) -> Tensor:
    centred = torch.cat([rows - centre for _, rows in chunks(pool)])
    return centred @ centred.T


@final
@dataclass(frozen=True)
class EpisodeScores:
    """What came of all episodes at one n_shot.

    Attributes:
        accuracies: (episodes,) float64; NaN where all support embeddings are identical.
        influence: (2, N) of the images on their mean, see `EpisodeInfluence`; None for fewer than 2 episodes.
    """

    accuracies: Tensor
    influence: Tensor | None


def score_episodes(evidence: Evidence, settings: ProbeSettings) -> list[EpisodeScores]:
    """Score all episodes at each n_shot.

    All inner products of the pool are taken once where that is less work than taking those of each episode, and fits; the numbers are the
    same either way.

    Args:
        evidence: the target's embeddings.
        settings: of the probe.

    Returns:
        The scores at each n_shot.
    """
    counts, pool = evidence.moments.counts, evidence.embeddings
    by_class = torch.split(torch.argsort(evidence.labels, stable=True), counts.tolist())
    members = torch.nn.utils.rnn.pad_sequence(list(by_class), batch_first=True)
    centre = evidence.moments.means.mean(0)
    resolution = 64 * torch.finfo(torch.float64).eps * float(centre.norm() + (evidence.moments.means - centre).norm(dim=1).max())
    seed = derive_seed(settings.seed, "episodes", evidence.fingerprint)
    longest = members.shape[1]
    rows = {}
    for shot in settings.n_shot:
        queries = longest - shot if settings.n_query is None else min(settings.n_query, longest - shot)
        rows[shot] = settings.n_way * shot, settings.n_way * (shot + queries)
    work = settings.episodes * sum(support * both for support, both in rows.values())
    gram = _gram(pool, centre) if pool.shape[0] <= min(_GRAM_ROWS, (_GRAM_GAIN * work) ** 0.5) else None
    found = []
    for shot, (support, both) in rows.items():
        each = support * both if gram is not None else both * pool.shape[1]
        chunk = max(1, min(1024, _BYTES // (8 * max(each, settings.n_way * longest * 4))))
        parts, images = [], EpisodeInfluence(evidence.labels, len(counts))
        for start in range(0, settings.episodes, chunk):
            numbers = torch.arange(start, min(start + chunk, settings.episodes))
            episodes = draw_episodes(members, counts, numbers, settings=settings, n_shot=shot, seed=seed)
            if gram is None:
                correct, usable = ridge_answers(pool, episodes, settings.ridge, resolution)
            else:
                correct, usable = gram_answers(gram, pool, episodes, settings.ridge, resolution)
            images.update(numbers, episodes.support, episodes.query, episodes.present, correct)
            parts.append(accuracies_of(correct, usable, episodes))
        found.append(EpisodeScores(torch.cat(parts), images.compute()))
    return found


def _summarise(scores: EpisodeScores, evidence: Evidence, settings: ProbeSettings, n_shot: int) -> Estimate:
    accuracies = scores.accuracies
    details: dict[str, Any] = {
        "n_way": settings.n_way,
        "n_shot": n_shot,
        "n_query": settings.n_query or "all",
        "episodes": settings.episodes,
    }
    details |= {"ridge": settings.ridge, "interval": "for the images' distribution; pool_ci95 is given the pool of images"}
    failed = int(accuracies.isnan().sum())
    if failed:
        reason = f"all support embeddings are identical in {failed} of {settings.episodes} episodes"
        return missing(reason, settings.episodes, **details)
    value = float(accuracies.mean())
    if scores.influence is None:
        return Estimate(value, n=1, reason="one episode has no standard error", details=details)
    episodes = (accuracies - value) / (settings.episodes * (settings.episodes - 1)) ** 0.5
    stderr = float(episodes.norm())
    pool = Estimate(value, stderr, _within(value, NORMAL_95 * stderr), settings.episodes, None, {}, episodes)
    images = scores.influence
    error = (image_variance(*images) + stderr**2) ** 0.5
    details["student"] = student_95(images.mean(0), evidence.labels, evidence.classes)
    return Estimate(value, error, _within(value, details["student"] * error), evidence.images, None, details, images, pool)


def _within(value: float, half: float) -> tuple[float, float]:
    return max(0.0, value - half), min(1.0, value + half)


def probe_accuracy(evidence: Evidence, settings: ProbeSettings) -> Estimate:
    """Measure the accuracy of the few-shot ridge probe, averaged over episodes.

    The interval is for the distribution of the images, classes held fixed; `given_pool` has the one given the pool of images, which shrinks with the number of
    episodes, not of images.

    Args:
        evidence: the target's embeddings.
        settings: of the probe.

    Returns:
        The estimate at the first n_shot; with several, `details["curve"]` holds an estimate for each. None with a reason when
        there are too few classes or images, or the support embeddings of an episode are identical.
    """
    try:
        settings.check(evidence.moments.counts, evidence.class_names)
    except DataError as error:
        return missing(str(error), evidence.images)
    if reason := evidence.moments.range_reason:
        return missing(reason, evidence.images)
    scores = score_episodes(evidence, settings)
    curve = [_summarise(found, evidence, settings, shot) for found, shot in zip(scores, settings.n_shot, strict=True)]
    if len(curve) == 1:
        return curve[0]
    first = curve[0]
    details = {**first.details, "curve": tuple(curve)}
    return replace(first, details=details)

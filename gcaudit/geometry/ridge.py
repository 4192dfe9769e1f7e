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

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from gcaudit.errors import DataError, RequestError
from gcaudit.geometry.counter import derive_seed, random_order_keys
from gcaudit.geometry.estimate import NORMAL_95, Estimate, missing
from gcaudit.geometry.evidence import Evidence

_BYTES = 256 * 2**20
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
    order = torch.argsort(torch.where(place < size[:, :, None], keys, _ABSENT), dim=2, stable=True)
    rows = members[ways[:, :, None], order]
    wanted = size - n_shot if settings.n_query is None else torch.clamp(size - n_shot, max=settings.n_query)
    back = torch.arange(int(wanted.max()))
    tail = torch.clamp(size[:, :, None] - 1 - back, min=0)
    return Episodes(rows[:, :, :n_shot], rows.gather(2, tail), back < wanted[:, :, None])


def ridge_accuracies(pool: Tensor, episodes: Episodes, ridge: float, resolution: float = 0.0) -> Tensor:
    """Fit and score episodes.

    Args:
        pool: (N, D) float64 embeddings.
        episodes: rows into the pool.
        ridge: the relative penalty.
        resolution: distances up to this size are rounding.

    Returns:
        (B,) float64 class-balanced accuracy on the queries; NaN where all support embeddings are identical.
    """
    batch, ways, shots = episodes.support.shape
    size = ways * shots
    support = pool[episodes.support.reshape(batch, size)]
    mean = support.mean(1, keepdim=True)
    support = support - mean
    gram = support @ support.mT
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)
    targets = torch.eye(ways, dtype=pool.dtype).repeat_interleave(shots, 0) - 1 / ways
    usable = trace > size * resolution**2
    penalty = torch.where(usable, ridge * trace / size, torch.ones_like(trace))
    system = gram + penalty[:, None, None] * torch.eye(size, dtype=pool.dtype)
    weights = torch.linalg.solve(system, targets.expand(batch, size, ways))
    query = pool[episodes.query.reshape(batch, -1)] - mean
    predicted = (query @ support.mT @ weights).argmax(2).reshape(episodes.query.shape)
    correct = (predicted == torch.arange(ways)[None, :, None]) & episodes.present
    accuracy = (correct.sum(2) / episodes.present.sum(2).to(torch.float64)).mean(1)
    return torch.where(usable, accuracy, torch.nan)


def episode_accuracies(evidence: Evidence, settings: ProbeSettings, n_shot: int) -> Tensor:
    """Score all episodes at one n_shot.

    Args:
        evidence: the target's embeddings.
        settings: of the probe.
        n_shot: support images a class.

    Returns:
        (episodes,) float64; see `ridge_accuracies`.
    """
    counts = evidence.moments.counts
    by_class = torch.split(torch.argsort(evidence.labels, stable=True), counts.tolist())
    members = torch.nn.utils.rnn.pad_sequence(list(by_class), batch_first=True)
    centre = evidence.moments.means.mean(0)
    pool = evidence.embeddings.to(torch.float64) - centre
    resolution = 64 * torch.finfo(torch.float64).eps * float(centre.norm() + pool.norm(dim=1).max())
    seed = derive_seed(settings.seed, "episodes", evidence.fingerprint)
    queries = members.shape[1] - n_shot if settings.n_query is None else min(settings.n_query, members.shape[1] - n_shot)
    rows = settings.n_way * (n_shot + queries)
    chunk = max(1, min(256, _BYTES // (8 * max(rows * pool.shape[1], settings.n_way * members.shape[1] * 4))))
    found = []
    for start in range(0, settings.episodes, chunk):
        numbers = torch.arange(start, min(start + chunk, settings.episodes))
        episodes = draw_episodes(members, counts, numbers, settings=settings, n_shot=n_shot, seed=seed)
        found.append(ridge_accuracies(pool, episodes, settings.ridge, resolution))
    return torch.cat(found)


def _summarise(accuracies: Tensor, settings: ProbeSettings, n_shot: int) -> Estimate:
    details: dict[str, Any] = {
        "n_way": settings.n_way,
        "n_shot": n_shot,
        "n_query": settings.n_query or "all",
        "episodes": settings.episodes,
    }
    details |= {"ridge": settings.ridge, "interval": "over episodes, given the pool of images"}
    failed = int(accuracies.isnan().sum())
    if failed:
        reason = f"all support embeddings are identical in {failed} of {settings.episodes} episodes"
        return missing(reason, settings.episodes, **details)
    value = float(accuracies.mean())
    if settings.episodes < 2:
        return Estimate(value, n=1, reason="one episode has no standard error", details=details)
    influence = (accuracies - value) / (settings.episodes * (settings.episodes - 1)) ** 0.5
    stderr = float(influence.norm())
    interval = (max(0.0, value - NORMAL_95 * stderr), min(1.0, value + NORMAL_95 * stderr))
    return Estimate(value, stderr, interval, settings.episodes, None, details, influence)


def probe_accuracy(evidence: Evidence, settings: ProbeSettings) -> Estimate:
    """Measure the accuracy of the few-shot ridge probe, averaged over episodes.

    The interval is *given the pool of images*: it shrinks with the number of episodes, not of images.

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
    curve = [_summarise(episode_accuracies(evidence, settings, shot), settings, shot) for shot in settings.n_shot]
    if len(curve) == 1:
        return curve[0]
    first = curve[0]
    details = {**first.details, "curve": tuple(curve)}
    return Estimate(first.value, first.stderr, first.ci95, first.n, first.reason, details, first.influence)

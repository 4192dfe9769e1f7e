import itertools

import numpy as np
import pytest
import torch

from gcaudit.geometry.episodes import EpisodeInfluence
from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.ridge import ProbeSettings, probe_accuracy


def gaussians(rng, per_class, classes=8, dim=12, spread=2.2, seed=4):
    centres = np.random.default_rng(seed).normal(size=(classes, dim))
    y = np.repeat(np.arange(classes), per_class)
    return evidence_of(centres[y] + spread * rng.normal(size=(len(y), dim)), y)


def test_influences_of_all_episodes_are_those_of_the_u_statistic():
    """A kernel of one support image of each of two classes, with all of their other images as queries."""
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    rng = np.random.default_rng(0)
    quality, ease = rng.random(6), rng.random(6)
    episodes = list(itertools.product(range(3), range(3, 6)))
    collected = EpisodeInfluence(labels, 2)
    support = torch.tensor([[[a], [b]] for a, b in episodes])
    query = torch.tensor([[[r for r in range(3) if r != a], [r for r in range(3, 6) if r != b]] for a, b in episodes])
    correct = torch.tensor(quality[support.flatten(1)].mean(1)[:, None, None] + 0 * query.numpy() > 0.5) & torch.tensor(
        ease[query.numpy()] > 0.3
    )
    for half in (0, 1):  # all episodes in both halves
        collected.update(2 * torch.arange(9) + half, support, query, torch.ones_like(query, dtype=torch.bool), correct)
    # the halves are taken by place: put one after the other
    found = EpisodeInfluence(labels, 2)
    order = torch.arange(9).repeat_interleave(2)
    found.update(torch.arange(18), support[order], query[order], torch.ones_like(query[order], dtype=torch.bool), correct[order])
    first, second = found.compute()
    assert torch.allclose(first, second)
    accuracy = correct.double().mean((1, 2)).numpy()
    by_class = correct.double().mean((0, 2)).numpy()
    expected = np.zeros(6)
    for episode, (a, b) in enumerate(episodes):
        for row in (a, b):
            expected[row] += (accuracy[episode] - by_class.mean()) / 9
        for way in range(2):
            for place in range(2):
                expected[query[episode, way, place]] += (correct[episode, way, place].item() - by_class[way]) / 4 / 9
    for rows in (slice(0, 3), slice(3, 6)):
        expected[rows] -= expected[rows].mean()
    assert first.numpy() == pytest.approx(expected * (3 / 2) ** 0.5 * 2 / 2, abs=1e-12)


@pytest.mark.parametrize("per_class", [20, 60])
def test_the_error_is_that_of_other_images(per_class):
    rng = np.random.default_rng(per_class)
    settings = ProbeSettings(episodes=300)
    found = [probe_accuracy(gaussians(rng, per_class), settings) for _ in range(80)]
    spread = np.std([each.value for each in found])
    assert np.mean([each.stderr for each in found]) == pytest.approx(spread, rel=0.25)
    assert np.mean([each.given_pool.stderr for each in found]) < 0.6 * spread


def test_models_of_equal_accuracy_are_rarely_told_apart():
    rng = np.random.default_rng(1)
    settings = ProbeSettings(episodes=300)
    apart, given_pool = 0, 0
    for _ in range(80):
        a, b = (probe_accuracy(gaussians(rng, 30), settings) for _ in range(2))
        images, episodes = a.influence - b.influence, a.given_pool.influence - b.given_pool.influence
        error = (max(0.0, float((images[0] * images[1]).sum())) + float(episodes.square().sum())) ** 0.5
        apart += abs(a.value - b.value) > 1.96 * error
        given_pool += abs(a.value - b.value) > 1.96 * float(episodes.norm())
    assert apart <= 9
    assert given_pool > 2 * apart + 8


def test_one_episode_has_no_influence():
    collected = EpisodeInfluence(torch.tensor([0, 0, 1, 1]), 2)
    rows = torch.tensor([[[0], [2]]])
    collected.update(
        torch.tensor([0]), rows, rows + 1, torch.ones_like(rows, dtype=torch.bool), torch.ones_like(rows, dtype=torch.bool)
    )
    assert collected.compute() is None

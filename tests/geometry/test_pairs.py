import itertools

import numpy as np
import pytest
import torch
from cases import clouds

from gcaudit.geometry import pairs as module
from gcaudit.metrics.measuring import evidence_of


def skewed(per_class=(6, 5, 4), dim=3, seed=0):
    """Classes that are neither round nor symmetric."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(per_class)), per_class)
    return rng.gamma(1.5, size=(len(y), dim)) * (1 + np.arange(dim)) + 2 * y[:, None] ** [1, 0, 2], y


def found_of(z, y):
    """The pairs, lengths in the unit of the embeddings."""
    found = evidence_of(z, y).pairs
    return found, found.unit**2, found.unit**4


def test_along_is_the_mean_over_four_different_images():
    z, y = skewed()
    found, _, area = found_of(z, y)
    groups = [z[y == c] for c in range(3)]
    for i, j in itertools.permutations(range(3), 2):
        total = [
            ((a - b) @ (c - e)) * ((a - b) @ (d - f)) / 2
            for a, b, c, d in itertools.permutations(groups[i], 4)
            for e, f in itertools.permutations(groups[j], 2)
        ]
        assert found.along[i, j].item() * area == pytest.approx(np.mean(total), rel=1e-10)


def test_squared_is_the_mean_over_different_images():
    z, y = skewed()
    found, area, _ = found_of(z, y)
    groups = [z[y == c] for c in range(3)]
    for i, j in itertools.permutations(range(3), 2):
        total = [
            (a - e) @ (b - f) for a, b in itertools.permutations(groups[i], 2) for e, f in itertools.permutations(groups[j], 2)
        ]
        assert found.squared[i, j].item() * area == pytest.approx(np.mean(total), rel=1e-10)


@pytest.mark.parametrize(("scale", "close"), [([1.0] * 5, 0.12), ([3.0, 1.0, 1.0, 0.5, 0.5], None)])
def test_noise_is_the_variance_of_squared(scale, close):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [8, 12, 20])
    centres = np.array([[0.0] * 5, [2.0, 1, 0, 0, 0], [0.0, 0, 3, 0, 1]])
    squared, noise = [], []
    for _ in range(1500):
        found, area, fourth = found_of(centres[y] + scale * rng.normal(size=(40, 5)), y)
        squared.append(found.squared.numpy() * area)
        noise.append(found.noise.numpy() * fourth)
    off = ~np.eye(3, dtype=bool)
    noise, squares = np.mean(noise, 0)[off], np.var(squared, 0)[off]
    if close is None:  # one variance for all pairs of a class: right on the whole only
        assert noise.mean() == pytest.approx(squares.mean(), rel=0.1)
    else:
        assert noise == pytest.approx(squares, rel=close)
    truth = ((centres[:, None] - centres) ** 2).sum(2)
    assert np.mean(squared, 0)[off] == pytest.approx(truth[off], rel=0.05)


def test_the_unit_keeps_fourth_powers_in_range():
    z, y = clouds(per_class=(9, 9, 9))
    plain, moved = evidence_of(z, y).pairs, evidence_of(2.0**200 * z, y).pairs
    assert moved.unit == 2.0**200 * plain.unit
    for name in ("squared", "noise", "along"):
        assert torch.allclose(getattr(moved, name), getattr(plain, name), rtol=1e-12), name


def test_chunks_and_blocks_do_not_matter(monkeypatch):
    z, y = clouds(per_class=(40, 30, 20))
    whole = evidence_of(z, y).pairs
    monkeypatch.setattr("gcaudit.geometry.rows._ROWS", 7)
    monkeypatch.setattr(module, "_BLOCK", 5)
    parts = evidence_of(z, y).pairs
    for name in ("squared", "noise", "along"):
        assert torch.allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9), name


def test_traces_of_some_of_the_images_are_close_to_those_of_all(monkeypatch):
    z, y = clouds(per_class=(600, 600, 600), dim=6)
    whole = evidence_of(z, y).pairs
    monkeypatch.setattr(module, "_FEWEST", 600)
    part = evidence_of(z, y).pairs
    assert torch.equal(part.squared, whole.squared)
    off = ~torch.eye(3, dtype=torch.bool)
    assert torch.allclose(part.noise[off], whole.noise[off], rtol=0.02)


def test_pairs_that_cannot_be_told_apart_are_counted():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 10)
    z = rng.normal(size=(30, 4)) + np.array([[0.0] * 4, [0.0] * 4, [30.0] * 4])[y]
    found = evidence_of(z, y).pairs
    assert found.unsure() == 1
    assert found.unsure_share() > 0.9


def test_two_images_a_class_are_enough_for_numbers():
    found = evidence_of([[-1.0], [1.0], [9.0], [11.0]], [0, 0, 1, 1]).pairs
    assert found.squared[0, 1].item() * found.unit**2 == 98.0
    assert found.noise[0, 1].item() > 0

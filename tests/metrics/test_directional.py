import numpy as np
import pytest
import reference
import torch
from cases import clouds

from gcaudit.metrics.directional import _of_two_images, directional_cdnv
from gcaudit.metrics.measuring import evidence_of


def slow_directional_cdnv(z, y):
    groups = reference.by_class(z, y)
    total = 0.0
    for i, j in reference.ordered_pairs(len(groups)):
        way = groups[j].mean(0) - groups[i].mean(0)
        distance = np.linalg.norm(way)
        total += (groups[i] @ (way / distance)).var() / distance**2
    return total / len(groups) / (len(groups) - 1)


def test_plug_in_equals_its_definition(monkeypatch):
    z, y = clouds(per_class=(40, 60, 50, 30), spread=2.0)
    truth = slow_directional_cdnv(z, y)

    def plug_in(embeddings):
        return directional_cdnv(evidence_of(embeddings, y)).details["plug_in"]

    assert plug_in(z) == pytest.approx(truth, rel=1e-12)
    assert plug_in(z + 1e4) == pytest.approx(truth, rel=1e-8)
    assert plug_in(torch.tensor(z, dtype=torch.float32)) == pytest.approx(truth, rel=1e-5)
    whole = directional_cdnv(evidence_of(z, y))
    monkeypatch.setattr("gcaudit.geometry.rows._ROWS", 11)
    parts = directional_cdnv(evidence_of(z, y))
    assert (parts.value, parts.stderr) == pytest.approx((whole.value, whole.stderr), rel=1e-9)


def test_by_hand():
    evidence = evidence_of([[-1.0, -9.0], [1.0, 9.0], [9.0, 0.0], [11.0, 0.0]], [0, 0, 1, 1])
    assert directional_cdnv(evidence).details["plug_in"] == pytest.approx(0.01, rel=1e-14)


def test_standard_error_is_that_of_the_jackknife():
    z, y = clouds(per_class=(40, 60, 50, 30), dim=3, spread=2.0)
    total = 0.0
    for c in range(4):
        rows = np.flatnonzero(y == c)
        values = np.array([directional_cdnv(evidence_of(np.delete(z, row, 0), np.delete(y, row))).value for row in rows])
        total += (len(rows) - 1) / len(rows) * ((values - values.mean()) ** 2).sum()
    assert directional_cdnv(evidence_of(z, y)).stderr == pytest.approx(np.sqrt(total), rel=0.12)


@pytest.mark.parametrize("per_class", [(10,) * 5, (6, 8, 12, 20, 40)])
def test_values_are_those_of_the_population_and_intervals_hold_them(per_class):
    rng = np.random.default_rng(0)
    scale = np.array([3.0, 2.0, *[1.0] * 18])
    centres = np.random.default_rng(5).normal(size=(5, 20)) * 1.5
    y = np.repeat(np.arange(5), per_class)
    truth = 0.0
    for i, j in reference.ordered_pairs(5):
        way = centres[i] - centres[j]
        truth += (way**2 * scale**2).sum() / (way**2).sum() ** 2 / 20
    found = [directional_cdnv(evidence_of(centres[y] + scale * rng.normal(size=(len(y), 20)), y)) for _ in range(150)]
    plain = np.mean([each.details["plug_in"] for each in found])
    assert abs(plain / truth - 1) > 0.1
    assert abs(np.mean([each.value for each in found]) / truth - 1) < 0.08
    assert np.mean([each.ci95[0] <= truth <= each.ci95[1] for each in found]) >= 0.88


def test_terms_of_two_images_are_their_sum_of_squares(monkeypatch):
    z, y = clouds(per_class=(4, 6, 5), dim=3, spread=2.0)
    evidence = evidence_of(z, y)
    pairs, counts = evidence.pairs, np.array([4, 6, 5])
    rng = np.random.default_rng(2)
    by_along, both = rng.random((2, 3, 3)) * (1 - np.eye(3))
    both = -(both + both.T)
    means = np.array([z[y == c].mean(0) for c in range(3)]) / pairs.unit
    deviations = z / pairs.unit - means[y]

    def weight(row, towards):
        own = y[row]
        return by_along[own, towards] * (deviations[row] @ (means[own] - means[towards])) / (counts[own] - 1)

    def moves(mover, moved):
        """By how much of its deviation an image moves the gradient of a class."""
        if y[mover] == moved:
            return 2 * sum(weight(mover, other) for other in range(3))
        return -2 * weight(mover, moved)

    def term(one, two):
        i, j = y[one], y[two]
        through_means = 2 * both[i].sum() / counts[i] if i == j else -2 * both[i, j] / counts[j]
        return deviations[one] @ deviations[two] * (moves(two, i) + moves(one, j) + through_means)

    total = 0.0
    for one in range(15):
        for c in range(3):
            terms = np.array([term(one, two) for two in np.flatnonzero(y == c) if two != one])
            total += len(terms) * terms.var(ddof=1) / counts[y[one]] / (counts[y[one]] - 1) / 2
    found = _of_two_images(evidence, torch.tensor(by_along), torch.tensor(both))
    assert found == pytest.approx(total, rel=1e-9)
    monkeypatch.setattr("gcaudit.metrics.directional._BLOCK", 4)
    assert _of_two_images(evidence, torch.tensor(by_along), torch.tensor(both)) == pytest.approx(total, rel=1e-9)

"""Mixtures of source classes: against slow float64 twins, and on data whose answer is known."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from gcaudit.geometry.summary import ClassSummary, summarise_classes
from gcaudit.metrics.granularity import granularity
from gcaudit.metrics.measuring import evidence_of, measure
from gcaudit.metrics.new_classes import gc_over_least_distance
from gcaudit.metrics.table import find_metric


def summary(means, per_class=40, spread=0.3, seed=0, first=0, energies=True, **evidence):
    rng = np.random.default_rng(seed)
    means = np.asarray(means, dtype=float)
    y = np.repeat(np.arange(len(means)), per_class)
    z = means[y] + spread * rng.normal(size=(len(y), means.shape[1]))
    g = rng.gamma(4.0, size=len(y)) * (1 + y) if energies else None
    return z, y, summarise_classes(evidence_of(z, y + first, energies=g, **evidence)), g


def test_a_summary_is_means_of_halves():
    z, y, found, g = summary(np.random.default_rng(1).normal(size=(3, 4)) + 100, per_class=7)
    assert found.counts.tolist() == [[4, 4, 4], [3, 3, 3]]
    whole = np.stack([z[y == c].mean(0) for c in range(3)])
    np.testing.assert_allclose(found.whole.numpy(), whole, rtol=1e-12)
    np.testing.assert_allclose(found.variances.numpy(), [z[y == c].var(0, ddof=1).sum() for c in range(3)], rtol=1e-10)
    np.testing.assert_allclose(found.complexities.numpy(), [g[y == c].mean() for c in range(3)], rtol=1e-12)
    for c in range(3):  # four rows of the seven have the first half's mean
        means = [z[y == c][list(rows)].mean(0) for rows in combinations(range(7), 4)]
        assert any(np.allclose(found.means[0, c].numpy(), mean, rtol=1e-12) for mean in means)
    assert not torch.equal(found.means[0], found.means[1])


def slow_residuals(source, target):
    """By scipy's general solver, and projections by least squares."""
    corners = source.whole.numpy()
    far = ((target.whole.numpy() - corners.mean(0)) ** 2).sum(1) - (target.variances / target.counts.sum(0)).numpy()
    far -= sum((source.variances / source.counts.sum(0)).tolist()) / len(source.names) ** 2
    found = []
    for t in range(len(target.names)):
        a = target.whole[t].numpy()
        w = minimize(
            lambda w, a=a: ((a - w @ corners) ** 2).sum(),
            np.full(len(corners), 1 / len(corners)),
            bounds=[(0, 1)] * len(corners),
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            method="SLSQP",
            options={"maxiter": 1000, "ftol": 1e-15},
        ).x
        used = np.flatnonzero(w > 1e-4)
        edges = (corners[used[1:]] - corners[used[0]]).T
        added = 0.0
        for weight, side, c in [(1.0, target, t), *((w[j], source, j) for j in range(len(w)))]:
            n, m = side.counts[:, c].tolist()
            error = weight * np.sqrt(n * m) / (n + m) * (side.means[0, c] - side.means[1, c]).numpy()
            inside = edges @ np.linalg.lstsq(edges, error, rcond=None)[0] if edges.size else 0
            added += ((error - inside) ** 2).sum()
        found.append((((a - w @ corners) ** 2).sum() - added) / far[t])
    return np.array(found)


@pytest.mark.parametrize("seed", range(4))
def test_residuals_are_those_of_a_slow_solver(seed):
    rng = np.random.default_rng(seed)
    _, _, source, _ = summary(rng.normal(size=(5, 6)), seed=seed)
    _, _, target, _ = summary(rng.normal(size=(3, 6)), seed=seed + 50, first=10)
    found = granularity(source, target)
    slow = slow_residuals(source, target)
    np.testing.assert_allclose(list(found.details["residual_per_class"].values()), slow, rtol=1e-3, atol=1e-4)
    assert found.value == pytest.approx(float(slow.mean()), rel=1e-3, abs=1e-4)
    assert found.details["terms"]["largest"] == pytest.approx(slow.max(), rel=1e-3, abs=1e-4)
    assert list(found.details["residual_per_class"]) == ["10", "11", "12"]
    assert found.n == 5 * 40 + 3 * 40


def test_mixtures_are_found_and_what_is_orthogonal_is_not():
    corners = np.eye(6)[:4] * 5
    weights = np.array([[0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.7, 0]])
    source = summary(corners, per_class=400)[2]
    inside = granularity(source, summary(weights[[0, 2]] @ corners, per_class=400, seed=1, first=10)[2])
    assert inside.value == pytest.approx(0, abs=0.01)
    assert inside.details["terms"]["p"] <= 0.1
    named_weights = {name: weight for name, weight in inside.details["mixture_per_class"]["10"].items() if weight > 0.02}
    assert named_weights == {"0": pytest.approx(0.5, abs=0.03), "1": pytest.approx(0.5, abs=0.03)}
    outside = granularity(source, summary(corners.mean(0) + 5 * np.eye(6)[4:], per_class=400, seed=2, first=10)[2])
    assert outside.value == pytest.approx(1, abs=0.02)
    assert outside.details["terms"]["p"] > 0.3
    middle = granularity(source, summary(weights[:2] @ corners, per_class=400, seed=4, first=10)[2])
    assert middle.reason == "1 target classes (11) cannot be told from the mean of the source's by these images"
    assert list(middle.details["residual_per_class"]) == ["10"]


def test_many_classes_of_few_dimensions_take_nothing_off():
    """Points within the hull of 300 corners in 10 dimensions: whatever the noise of means is, nothing of it is outside."""
    rng = np.random.default_rng(0)
    corners = rng.normal(size=(300, 10))
    corners *= 5 / np.linalg.norm(corners, axis=1, keepdims=True)
    inside = rng.normal(size=(4, 10))
    inside *= 2 / np.linalg.norm(inside, axis=1, keepdims=True)
    found = granularity(summary(corners, per_class=6)[2], summary(inside, per_class=20, seed=1, first=1000)[2])
    assert abs(found.value) < 0.02


def test_the_noise_of_means_has_their_variance():
    """The draws' mean square is u_c/n_c, with halves of equal and of unequal size."""
    for per_class in (2, 7):
        squares = [
            summary(np.zeros((3, 4)), per_class=per_class, spread=1.0, seed=seed)[2].noise.square().sum(1) for seed in range(300)
        ]
        assert float(torch.stack(squares).mean()) == pytest.approx(4 / per_class, rel=0.1)


def test_few_images_add_nothing_on_average():
    """The residual of a class within the hull stays about 0 with 6 images a class, where the plain one is far above."""
    corners = np.eye(5) * 6
    weights = np.array([[0.6, 0.4, 0, 0, 0]])
    found, plain = [], []
    for seed in range(60):
        source = summary(corners, per_class=200, spread=1.0, seed=seed)[2]
        target = summary(weights @ corners, per_class=6, spread=1.0, seed=seed + 1000, first=10)[2]
        found.append(granularity(source, target).value)
        gap = target.whole[0] - torch.from_numpy(weights[0]) @ source.whole
        plain.append(float(gap.square().sum() / (target.whole[0] - source.whole.mean(0)).square().sum()))
    assert abs(np.mean(found)) < 0.3 * np.mean(plain)


def test_scale_rotation_and_shift_change_nothing():
    rng = np.random.default_rng(0)
    means, others = rng.normal(size=(4, 5)), rng.normal(size=(3, 5))
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    plain = [summary(means), summary(others, seed=1, first=10)]
    moved = [
        summarise_classes(evidence_of(7 * z @ turn + 100, y + first, energies=g))
        for (z, y, _, g), first in zip(plain, (0, 10), strict=True)
    ]
    before, after = granularity(plain[0][2], plain[1][2]), granularity(*moved)
    assert after.value == pytest.approx(before.value, rel=1e-4)
    scaled = gc_over_least_distance(*moved)
    assert scaled.value == pytest.approx(gc_over_least_distance(plain[0][2], plain[1][2]).value / 49, rel=1e-8)


def test_gc_over_the_least_distance_is_its_terms():
    rng = np.random.default_rng(3)
    z, y, source, g = summary(rng.normal(size=(3, 5)) * 4)
    zt, yt, target, gt = summary(rng.normal(size=(2, 5)) * 4, seed=9, first=10)
    found = gc_over_least_distance(source, target)
    terms = found.details["terms"]
    groups = [z[y == c] for c in range(3)] + [zt[yt == c] for c in range(2)]
    least = min(
        ((a.mean(0) - b.mean(0)) ** 2).sum() - a.var(0, ddof=1).sum() / len(a) - b.var(0, ddof=1).sum() / len(b)
        for i, a in enumerate(groups)
        for b in groups[:i]
    )
    each = [g[y == c].mean() for c in range(3)], [gt[yt == c].mean() for c in range(2)]
    assert terms["least_squared_distance"] == pytest.approx(least, rel=1e-10)
    assert (terms["gc_source"], terms["gc_target"]) == (pytest.approx(np.mean(each[0])), pytest.approx(np.mean(each[1])))
    assert terms["gc_both"] == pytest.approx(np.mean([*each[0], *each[1]]))
    assert terms["source_classes"] == 3
    assert found.value == pytest.approx(terms["gc_both"] / least, rel=1e-10)


def named(found, names):
    return ClassSummary(names, found.means, found.counts, found.variances, found.complexities)


def test_a_class_in_both_is_not_paired_with_itself():
    means = np.eye(4) * 5
    source, target = (
        named(summary(means[rows], seed=seed)[2], names)
        for rows, seed, names in (
            ([0, 1], 0, ("cat", "dog")),
            ([1, 2], 1, ("dog", "cow")),
        )
    )
    found = gc_over_least_distance(source, target)
    assert found.details["terms"]["shared_classes"] == 1
    assert found.details["terms"]["least_squared_distance"] == pytest.approx(50, rel=0.1)
    numbers = gc_over_least_distance(named(source, ("0", "1")), named(target, ("1", "2")))
    assert "shared_classes" not in numbers.details["terms"]
    assert numbers.details["terms"]["least_squared_distance"] < 1


def test_what_cannot_be_measured_is_told():
    means = np.eye(4) * 5
    source, target = summary(means[:2])[2], summary(means[2:], seed=1, first=10)[2]
    short = summary(means[2:], per_class=1, first=10)[2]
    assert granularity(source, short).reason == "class '10' has 1 image: the variance within a class needs 2"
    assert gc_over_least_distance(source, short).reason == "class '10' has 1 image: the variance within a class needs 2"
    huge = summary(means[2:] * 1e200, seed=1, first=10)[2]
    for measure_both in (granularity, gc_over_least_distance):
        assert measure_both(source, huge).reason == "the squares of the embeddings are beyond the range of 64-bit floating point"
    assert granularity(summary(means[:1])[2], target).reason == "mixtures of source classes need at least 2 classes, found 1"
    cold = summary(means[2:], seed=1, first=10, energies=False)[2]
    found = gc_over_least_distance(source, cold)
    assert found.reason == "the Jacobian was not measured on the target; score with --target-gc"
    assert set(found.details["terms"]) == {"source_classes", "gc_source", "least_squared_distance"}
    same = gc_over_least_distance(source, summary(means[:2], seed=5, spread=3.0, first=10)[2])
    assert same.reason is None or "cannot be told apart by these images" in same.reason
    equal = gc_over_least_distance(source, named(source, ("a", "b")))
    assert "cannot be told apart by these images" in equal.reason
    one = named(summary(means[:1])[2], ("cat",))
    assert gc_over_least_distance(one, one).reason == "there is no pair of different classes"
    spelt = [named(source, ("golden retriever", "b")), named(source, ("golden_retriever", "c"))]
    assert gc_over_least_distance(*spelt).details["terms"]["shared_classes"] == 1
    alone = measure(np.eye(3), [0, 0, 1], metrics=["granularity", "gc_over_least_distance"])
    assert {one.reason for one in alone.values()} == {"it sets a target beside a source; score both"}
    assert find_metric("granularity").across

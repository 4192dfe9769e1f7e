import math
from importlib import import_module

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr, weightedtau

from gcaudit.geometry.agreement import agreement

module = import_module("gcaudit.geometry.agreement")  # the face of the room has the function by this name
NAMES = ("weighted_tau", "spearman", "pearson")
SCIPY = (weightedtau, spearmanr, pearsonr)


def case(seed=0, models=20, levels=None):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, models))
    y += 0.8 * x
    return (x, y) if levels is None else (np.digitize(x, levels).astype(float), np.digitize(y, levels).astype(float))


def values(found):
    return [getattr(found, name).value for name in NAMES]


def slow_weighted_tau(x, y):
    """Vigna's definition, pair by pair, averaged over both rankings."""

    def by(first, second):
        order = sorted(range(len(x)), key=lambda i: (first[i], second[i]), reverse=True)
        rank = {model: place for place, model in enumerate(order)}
        total = {"xy": 0.0, "xx": 0.0, "yy": 0.0}
        for i in range(len(x)):
            for j in range(i):
                weight = 1 / (rank[i] + 1) + 1 / (rank[j] + 1)
                a, b = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
                total = {"xy": total["xy"] + weight * a * b, "xx": total["xx"] + weight * a * a, "yy": total["yy"] + weight * b * b}
        return total["xy"] / math.sqrt(total["xx"] * total["yy"])

    return (by(x, y) + by(y, x)) / 2


@pytest.mark.parametrize("levels", [None, [-1, 0, 1], [0]], ids=["no ties", "ties", "two levels"])
@pytest.mark.parametrize("models", [3, 4, 11, 40])
def test_values_are_those_of_scipy(models, levels):
    for seed in range(20):
        x, y = case(seed, models, levels)
        if len(set(x)) == 1 or len(set(y)) == 1:
            continue
        found = agreement(x.tolist(), y.tolist(), "higher", draws=2)
        assert values(found) == pytest.approx([f(x, y).statistic for f in SCIPY], rel=1e-12, abs=1e-14)
        assert found.weighted_tau.value == pytest.approx(slow_weighted_tau(x, y), rel=1e-12, abs=1e-14)
        assert found.weighted_tau.n == models


@pytest.mark.parametrize("levels", [None, [-1, 0, 1], [0.8]], ids=["no ties", "ties", "two levels"])
@pytest.mark.parametrize("models", [3, 12])
def test_every_draw_is_the_coefficient_of_its_copies(models, levels, monkeypatch):
    seen = []
    draw = module._draw_counts
    monkeypatch.setattr(module, "_draw_counts", lambda *a: seen.append(draw(*a)) or seen[-1])
    x, y = next(pair for seed in range(100) if all(map(np.ptp, pair := case(seed, models, levels))))
    found = agreement(x.tolist(), y.tolist(), "higher", seed=3, draws=200)
    order = np.lexsort((-y, -x))
    rows = [np.repeat(order, counts) for counts in seen[0].to(torch.int64).numpy()]
    proper = [rows_ for rows_ in rows if np.ptp(x[rows_]) and np.ptp(y[rows_])]
    for name, f in zip(NAMES, SCIPY, strict=True):
        truth = np.array([f(x[chosen], y[chosen]).statistic for chosen in proper])
        entry = getattr(found, name)
        assert entry.details == {"draws": 200, "skipped": 200 - len(proper)}
        if np.ptp(truth) < 1e-12:
            assert (entry.stderr, entry.ci95) == (None, None)
            assert entry.reason == f"no interval: all draws of the bootstrap over {models} models agree with one another"
            continue
        assert entry.stderr == pytest.approx(truth.std(ddof=1), rel=1e-10)
        assert entry.ci95 == pytest.approx(np.quantile(truth, [0.025, 0.975]), rel=1e-10, abs=1e-12)
    assert models > 3 or len(proper) < 200


def test_models_are_drawn_with_replacement_and_alike():
    counts = module._draw_counts(10, 20_000, 0)
    assert (counts.sum(1) == 10).all()
    assert counts.mean(0) == pytest.approx(np.ones(10), abs=0.03)  # 4 standard errors of a variance of 0.9
    assert counts.var(0) == pytest.approx(np.full(10, 0.9), abs=0.06)
    assert np.cov(counts[:, :2].T.numpy())[0, 1] == pytest.approx(-0.1, abs=0.03)


def test_swaps_among_the_best_weigh_most():
    models = list(range(10))
    best, worst = [*range(8), 9, 8], [1, 0, *range(2, 10)]
    assert agreement(models, best, "higher").weighted_tau.value < agreement(models, worst, "higher").weighted_tau.value
    assert agreement(models, best, "higher").spearman.value == agreement(models, worst, "higher").spearman.value


def test_direction_makes_plus_mean_that_it_predicts_well():
    x, y = case()
    higher, lower, none = (agreement(x.tolist(), y.tolist(), direction) for direction in ("higher", "lower", "none"))
    assert none == higher
    assert agreement((-x).tolist(), y.tolist(), "lower") == higher
    assert lower.spearman.value == pytest.approx(-higher.spearman.value, rel=1e-14)
    assert values(lower) == pytest.approx([f(-x, y).statistic for f in SCIPY], rel=1e-12)
    assert values(agreement([3, 2, 1], [0.1, 0.2, 0.3], "lower")) == pytest.approx([1, 1, 1], rel=1e-14)


def test_the_order_of_models_changes_nothing():
    x, y = case(levels=[-1, 0, 1])
    first = agreement(x.tolist(), y.tolist(), "higher")
    shuffled = np.random.default_rng(0).permutation(len(x))
    second = agreement(x[shuffled].tolist(), y[shuffled].tolist(), "higher")
    assert first == second


def test_the_seed_changes_the_interval_alone():
    x, y = (side.tolist() for side in case())
    first, again, other = (agreement(x, y, "higher", seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert values(first) == values(other)
    assert first.spearman.stderr != other.spearman.stderr
    assert first.spearman.stderr == pytest.approx(other.spearman.stderr, rel=0.15)


@pytest.mark.parametrize(("scale", "shift"), [(2.0**-900, 0), (2.0**900, 0), (1, 2.0**24)])
def test_scales_and_offsets(scale, shift):
    x, y = (np.round(side * 2**20) / 2**20 for side in case())
    plain, moved = agreement(x.tolist(), y.tolist(), "higher"), agreement((x * scale + shift).tolist(), y.tolist(), "higher")
    assert values(moved) == pytest.approx(values(plain), rel=1e-9)
    assert moved.pearson.stderr == pytest.approx(plain.pearson.stderr, rel=1e-8)


def test_one_score_far_beyond_the_others():
    x, y = case()
    x[0] = 1e300
    found = agreement(x.tolist(), y.tolist(), "higher")
    inner = np.delete(np.arange(len(x)), 0)
    # draws without that model have Pearson's r of the others, which its size must not have rounded away
    alone = agreement(x[inner].tolist(), y[inner].tolist(), "higher")
    assert found.pearson.details["skipped"] == 0
    assert found.pearson.ci95[1] > alone.pearson.value


def test_constant_decimals_are_no_draw():
    # every draw of 0.1 alone is skipped by all three, though its mean is rounded
    found = agreement([0.1] * 9 + [0.3], case(models=10)[1].tolist(), "higher", draws=500)
    skipped = {getattr(found, name).details["skipped"] for name in NAMES}
    assert len(skipped) == 1
    assert 500 * 0.9**10 * 0.8 < skipped.pop() < 500 * 0.9**10 * 1.2


def test_interval_holds_the_truth_of_a_normal_pair():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        x = rng.normal(size=60)
        y = 0.6 * x + 0.8 * rng.normal(size=60)
        low, high = agreement(x.tolist(), y.tolist(), "higher", draws=200).pearson.ci95
        inside += low <= 0.6 <= high
    assert 175 <= inside <= 198


@pytest.mark.parametrize(
    ("scores", "accuracies", "reason"),
    [
        ([], [], "a correlation needs at least 3 models, found 0"),
        ([1, 2], [1, 2], "a correlation needs at least 3 models, found 2"),
        ([1, 1, 1], [1, 2, 3], "all 3 scores are equal: they order nothing"),
        ([1, 2, 3], [0.1, 0.1, 0.1], "all 3 accuracies are equal: they order nothing"),
        ([1, math.nan, 3], [1, 2, 3], "a correlation needs finite scores"),
        ([1, 2, 3], [1, 2, math.inf], "a correlation needs finite accuracies"),
    ],
)
def test_reasons(scores, accuracies, reason):
    found = agreement(scores, accuracies, "higher")
    for name in NAMES:
        entry = getattr(found, name)
        assert (entry.value, entry.stderr, entry.ci95, entry.n, entry.reason) == (None, None, None, len(scores), reason)


@pytest.mark.parametrize("draws", [0, 1])
def test_too_few_draws_for_an_interval(draws):
    found = agreement([1, 2, 3], [1, 2, 3], "higher", draws=draws)
    assert found.pearson.value == pytest.approx(1)
    assert (found.pearson.stderr, found.pearson.ci95) == (None, None)
    assert found.pearson.reason == "too few bootstrap draws for a standard error"


def test_lengths_that_differ():
    with pytest.raises(ValueError, match="expected as many accuracies as scores, found 2 and 3"):
        agreement([1, 2, 3], [1, 2], "higher")

import numpy as np
import pytest
import reference
import torch
from cases import clouds
from hypothesis import given, settings, strategies as st
from scipy.stats import norm

from gcaudit.geometry.pairs import squared_distances
from gcaudit.metrics.collapse import (
    cdnv,
    geometric_collapse,
    geometric_collapse_refined,
)
from gcaudit.metrics.complexity import gc, poincare_lower_bound, relative_gc
from gcaudit.metrics.directional import directional_cdnv
from gcaudit.metrics.measuring import evidence_of

ENERGY_METRICS = (gc, relative_gc, geometric_collapse, geometric_collapse_refined, poincare_lower_bound)
SCALE_FREE = (relative_gc, cdnv, directional_cdnv, geometric_collapse, geometric_collapse_refined)


def case(seed=0, **options):
    z, y = clouds(seed=seed, **options)
    g = np.random.default_rng(seed + 100).gamma(3.0, size=len(y)) * (1 + y)
    return z, y, g


def test_plug_in_is_the_papers_formula():
    z, y, g = case()
    evidence = evidence_of(z, y, energies=g)
    for function, truth in (
        (cdnv, reference.cdnv(z, y)),
        (geometric_collapse, reference.geometric_collapse(z, g, y)),
        (geometric_collapse_refined, reference.geometric_collapse_refined(z, g, y)),
        (poincare_lower_bound, reference.poincare_lower_bound(z, g, y)),
    ):
        assert function(evidence).details["plug_in"] == pytest.approx(truth, rel=1e-12), function.__name__
    for function, truth in ((gc, reference.gc(g, y)), (relative_gc, reference.relative_gc(z, g, y))):
        assert function(evidence).value == pytest.approx(truth, rel=1e-12), function.__name__


def slow_covariances(values, z, y):
    """Of the class mean of values and the debiased squared distance, by leaving each image out."""
    classes = len(set(y.tolist()))
    found = np.zeros((classes, classes))
    for i in range(classes):
        rows = np.flatnonzero(y == i)
        n, mean = len(rows), z[rows].mean(0)
        lengths = ((z[rows] - mean) ** 2).sum(1)
        for j in range(classes):
            way = mean - z[y == j].mean(0)
            change = 2 * (z[rows] - mean) @ way - (lengths - lengths.mean()) / (n - 1)
            found[i, j] = ((values[rows] - values[rows].mean()) * change).sum() / n / (n - 1)
    return found


def mills(t):
    return norm.sf(t) / norm.pdf(t)


def slow_value(weights, covariances, pairs):
    """Mean over pairs of the weights over squared distances, one pair after another."""
    total = 0.0
    for i, j in reference.ordered_pairs(len(weights)):
        deviation = pairs.noise[i, j].item() ** 0.5 * pairs.unit**2
        t = pairs.squared[i, j].item() * pairs.unit**2 / deviation
        total += weights[i, j] * mills(t) / deviation + covariances[i, j] * (1 - t * mills(t)) / deviation**2
    return total / len(weights) / (len(weights) - 1)


def test_values_are_those_of_each_pair_by_itself():
    z, y, g = case(per_class=(9, 14, 11, 8), spread=2.0)
    evidence = evidence_of(z, y, energies=g)
    groups = reference.by_class(z, y)
    u, n = np.array(reference.variances(groups, 1)), np.array([len(group) for group in groups])
    lengths = np.concatenate([((group - group.mean(0)) ** 2).sum(1) for group in groups])
    own = slow_covariances(lengths, z, y) * (n / (n - 1))[:, None]
    truth = slow_value((u[:, None] + u) / 2, (own + own.T) / 2, evidence.pairs)
    assert cdnv(evidence).value == pytest.approx(truth, rel=1e-9)
    own = slow_covariances(g, z, y)
    c = np.array(reference.class_gc(g, y))
    truth = slow_value((c[:, None] + c) / 2, (own + own.T) / 2, evidence.pairs)
    assert geometric_collapse_refined(evidence).value == pytest.approx(truth, rel=1e-9)
    truth = slow_value(np.full((4, 4), 2 * c.mean()), (own + own.T) / 2, evidence.pairs)
    assert geometric_collapse(evidence).value == pytest.approx(truth, rel=1e-9)


def test_cdnv_by_hand():
    found = cdnv(evidence_of([[-1.0], [1.0], [9.0], [11.0]], [0, 0, 1, 1]))
    assert found.details["plug_in"] == 0.01
    assert found.value == pytest.approx(2 / (100 - 2), rel=0.1)  # u = 2, and 2 off the squared distance


def test_gc_by_hand():
    found = gc(evidence_of([[0.0], [1.0], [2.0], [5.0]], [0, 0, 0, 1], energies=[1.0, 2.0, 3.0, 10.0]))
    assert found.value == 6.0
    assert found.details["gc_per_class"] == {"0": 2.0, "1": 10.0}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100))
def test_scale_rotation_and_shift_leave_the_scale_free_alone(seed, scale, shift):
    z, y, g = case(seed)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(z.shape[1],) * 2))[0]
    plain, moved = evidence_of(z, y, energies=g), evidence_of(scale * z @ rotation + shift, y, energies=scale**2 * g)
    for function in SCALE_FREE:
        before, after = function(plain), function(moved)
        assert after.value == pytest.approx(before.value, rel=1e-7), function.__name__
        assert after.stderr == pytest.approx(before.stderr, rel=1e-6), function.__name__
    assert gc(moved).value == pytest.approx(scale**2 * gc(plain).value, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 6))
def test_the_papers_inequalities_hold_for_the_images_at_hand(seed, classes):
    z, y, g = case(seed, per_class=tuple(range(5, 5 + classes)))
    evidence = evidence_of(z, y, energies=g)

    def plug_in(function):
        return function(evidence).details["plug_in"]

    assert plug_in(geometric_collapse_refined) <= plug_in(geometric_collapse) * (1 + 1e-12)
    assert plug_in(cdnv) <= plug_in(poincare_lower_bound) * plug_in(geometric_collapse_refined) * (1 + 1e-12)


def test_within_class_order_and_class_order_do_not_matter():
    z, y, g = case()
    keep = np.random.default_rng(0).permutation(len(y))
    plain, turned = evidence_of(z, y, energies=g), evidence_of(z[keep], 7 - y[keep], energies=g[keep])
    for function in (*SCALE_FREE, gc):
        assert function(turned).value == pytest.approx(function(plain).value, rel=1e-12)


def test_cdnv_survives_offset_1e3_with_spread_1e_4():
    z, y = clouds(per_class=(200, 200, 200), dim=16, spread=1e-4)
    z = z / 3 + 1e3
    found = cdnv(evidence_of(z, y))
    assert found.details["plug_in"] == pytest.approx(reference.cdnv(z - 1e3, y), rel=1e-6)
    assert found.value == pytest.approx(cdnv(evidence_of(z - 1e3, y)).value, rel=1e-6)


def test_distances_are_exact_where_the_square_would_cancel():
    means = torch.tensor([[1e6, 0.0], [1e6, 1e-3], [0.0, 0.0]], dtype=torch.float64)
    assert squared_distances(means)[0, 1].item() == pytest.approx(1e-6, rel=1e-6)


def gaussian(rng, per_class, noise=0):
    """Round classes in 10 dimensions with energies of mean 3, perhaps with dimensions of noise alone; and the exact values."""
    centres = np.random.default_rng(5).normal(size=(5, 10)) * 1.5
    y = np.repeat(np.arange(5), per_class)
    z = centres[y] + rng.normal(size=(len(y), 10))
    z = np.concatenate((z, 2 * rng.normal(size=(len(y), noise))), 1)
    inverse = np.mean([1 / ((centres[i] - centres[j]) ** 2).sum() for i, j in reference.ordered_pairs(5)])
    spread = 10 + 4 * noise
    truth = {cdnv: spread * inverse, geometric_collapse: 7.5 * inverse, geometric_collapse_refined: 3 * inverse}
    return evidence_of(z, y, energies=rng.gamma(3.0, size=len(y))), truth


@pytest.mark.parametrize(("per_class", "noise"), [((8,) * 5, 0), ((8,) * 5, 30), ((5, 8, 12, 20, 40), 10)])
def test_values_are_those_of_the_population_and_intervals_hold_them(per_class, noise):
    rng = np.random.default_rng(0)
    draws = [gaussian(rng, per_class, noise) for _ in range(150)]
    for function, truth in draws[0][1].items():
        found = [function(evidence) for evidence, _ in draws]
        plain = np.mean([each.details["plug_in"] for each in found])
        told = [each for each in found if each.value is not None]
        assert len(told) >= 0.95 * len(found)
        assert abs(np.median([each.value for each in told]) / truth - 1) < max(0.05, 0.25 * abs(plain / truth - 1))
        assert np.mean([each.ci95[0] <= truth <= each.ci95[1] for each in told]) >= 0.88


def test_noise_around_means_is_not_taken_for_distance():
    rng = np.random.default_rng(2)
    apart = 0
    for _ in range(100):
        evidence, _ = gaussian(rng, (20,) * 5, 0)
        noisy = evidence_of(
            torch.cat((evidence.embeddings, torch.from_numpy(2 * rng.normal(size=(100, 60)))), 1),
            evidence.labels,
            energies=evidence.energies,
        )
        a, b = geometric_collapse(evidence), geometric_collapse(noisy)
        assert b.details["plug_in"] < a.details["plug_in"]
        apart += abs(a.value - b.value) > 1.96 * float((a.influence - b.influence).norm())
    assert apart <= 10


def reason_of(function, embeddings, labels, energies=None):
    found = function(evidence_of(embeddings, labels, energies=energies))
    assert found.value is None
    assert found.stderr is None
    return found.reason


@pytest.mark.parametrize("function", [cdnv, directional_cdnv, geometric_collapse, geometric_collapse_refined])
def test_one_class_is_a_reason(function):
    assert "at least 2 classes" in reason_of(function, [[0.0], [1.0]], [3, 3], [1.0, 2.0])


@pytest.mark.parametrize("function", [cdnv, directional_cdnv, geometric_collapse, geometric_collapse_refined])
def test_equal_class_means_are_a_reason(function):
    embeddings = np.array([[0.0, 1.0], [2.0, 3.0], [1.0, 1.0], [1.0, 3.0], [5.0, 5.0], [6.0, 5.0]]) / 3 + 1e3
    assert "'1' and '2' have the same mean" in reason_of(function, embeddings, [1, 1, 2, 2, 4, 4], [1.0] * 6)


@pytest.mark.parametrize("function", [cdnv, directional_cdnv])
def test_a_class_with_one_image_is_a_reason(function):
    assert "class '7' has 1 image" in reason_of(function, [[0.0], [1.0], [5.0]], [3, 3, 7])


def test_a_class_with_one_image_leaves_the_plug_in():
    evidence = evidence_of([[0.0], [1.0], [5.0]], [3, 3, 7], energies=[1.0, 2.0, 4.0])
    for function in (geometric_collapse, geometric_collapse_refined):
        found = function(evidence)
        assert found.value is None
        assert found.details["plug_in"] > 0
        assert "class '7' has 1 image" in found.reason
    found = gc(evidence)
    assert (found.value, found.stderr) == (2.75, None)
    assert "single image" in found.reason
    assert "single image" in reason_of(poincare_lower_bound, [[0.0], [1.0], [5.0]], [3, 3, 7], [1.0, 2.0, 4.0])


def test_pairs_that_cannot_be_told_apart_are_counted():
    z = np.array([[-1.0], [1.0], [-0.9], [1.2], [50.0], [52.0]])
    for function in (cdnv, directional_cdnv, geometric_collapse, geometric_collapse_refined):
        found = function(evidence_of(z, [0, 0, 1, 1, 2, 2], energies=[1.0] * 6))
        assert found.value is None
        assert "1 of 3 class pairs cannot be told apart by 2 images a class" in found.reason
        assert found.details["plug_in"] > 0


def test_equal_embeddings_have_no_relative_gc():
    assert "all embeddings are equal" in reason_of(relative_gc, np.ones((4, 2)), [0, 0, 1, 1], [1.0] * 4)


def test_zero_energy_has_no_poincare_bound():
    assert "zero geometric complexity" in reason_of(poincare_lower_bound, [[0.0], [1.0], [5.0], [6.0]], [0, 0, 1, 1], [0.0] * 4)


@pytest.mark.parametrize("function", ENERGY_METRICS)
def test_no_energies_is_a_reason(function):
    assert "Jacobian was not measured" in reason_of(function, [[0.0], [1.0], [5.0], [6.0]], [0, 0, 1, 1])


def test_a_class_without_energies_is_a_reason():
    import dataclasses

    z, y, g = case()
    evidence = dataclasses.replace(evidence_of(z, y, energies=g), energies=torch.ones(2), energy_rows=torch.tensor([0, 1]))
    found = gc(evidence)
    assert found.value is None
    assert "class '1' has no image whose Jacobian was measured" in found.reason

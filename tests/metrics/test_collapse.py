import numpy as np
import pytest
import reference
import torch
from cases import clouds
from hypothesis import given, settings, strategies as st

from gcaudit.metrics.collapse import (
    cdnv,
    cdnv_debiased,
    directional_cdnv,
    geometric_collapse,
    geometric_collapse_refined,
    squared_distances,
)
from gcaudit.metrics.complexity import gc, poincare_lower_bound, relative_gc
from gcaudit.metrics.measuring import evidence_of

ENERGY_METRICS = (gc, relative_gc, geometric_collapse, geometric_collapse_refined, poincare_lower_bound)
SCALE_FREE = (relative_gc, cdnv, cdnv_debiased, directional_cdnv, geometric_collapse, geometric_collapse_refined)


def case(seed=0, **options):
    z, y = clouds(seed=seed, **options)
    g = np.random.default_rng(seed + 100).gamma(3.0, size=len(y)) * (1 + y)
    return z, y, g


def test_each_quantity_equals_its_definition():
    z, y, g = case()
    evidence = evidence_of(z, y, energies=g)
    for function, truth in (
        (cdnv, reference.cdnv(z, y)),
        (cdnv_debiased, reference.cdnv_debiased(z, y)),
        (gc, reference.gc(g, y)),
        (relative_gc, reference.relative_gc(z, g, y)),
        (geometric_collapse, reference.geometric_collapse(z, g, y)),
        (geometric_collapse_refined, reference.geometric_collapse_refined(z, g, y)),
        (poincare_lower_bound, reference.poincare_lower_bound(z, g, y)),
    ):
        assert function(evidence).value == pytest.approx(truth, rel=1e-12), function.__name__


def slow_directional_cdnv(z, y):
    groups = reference.by_class(z, y)
    total = 0.0
    for i, j in reference.ordered_pairs(len(groups)):
        way = groups[j].mean(0) - groups[i].mean(0)
        distance = np.linalg.norm(way)
        total += (groups[i] @ (way / distance)).var() / distance**2
    return total / len(groups) / (len(groups) - 1)


def test_directional_cdnv_equals_its_definition(monkeypatch):
    z, y = clouds(per_class=(40, 60, 50, 30), spread=2.0)
    truth = slow_directional_cdnv(z, y)
    whole = directional_cdnv(evidence_of(z, y))
    assert whole.value == pytest.approx(truth, rel=1e-12)
    assert directional_cdnv(evidence_of(z + 1e4, y)).value == pytest.approx(truth, rel=1e-8)
    assert directional_cdnv(evidence_of(torch.tensor(z, dtype=torch.float32), y)).value == pytest.approx(truth, rel=1e-5)
    monkeypatch.setattr("gcaudit.geometry.rows._ROWS", 11)
    parts = directional_cdnv(evidence_of(z, y))
    assert parts.value == pytest.approx(truth, rel=1e-12)
    assert parts.stderr == pytest.approx(whole.stderr, rel=1e-12)


def test_standard_error_of_directional_cdnv_is_that_of_the_jackknife():
    z, y = clouds(per_class=(40, 60, 50, 30), dim=3, spread=2.0)
    total = 0.0
    for c in range(4):
        rows = np.flatnonzero(y == c)
        values = np.array([slow_directional_cdnv(np.delete(z, row, 0), np.delete(y, row)) for row in rows])
        total += (len(rows) - 1) / len(rows) * ((values - values.mean()) ** 2).sum()
    assert directional_cdnv(evidence_of(z, y)).stderr == pytest.approx(np.sqrt(total), rel=0.1)


def test_directional_cdnv_by_hand():
    evidence = evidence_of([[-1.0, -9.0], [1.0, 9.0], [9.0, 0.0], [11.0, 0.0]], [0, 0, 1, 1])
    assert directional_cdnv(evidence).value == pytest.approx(0.01, rel=1e-14)


def test_cdnv_by_hand():
    evidence = evidence_of([[-1.0], [1.0], [9.0], [11.0]], [0, 0, 1, 1])
    assert cdnv(evidence).value == 0.01
    assert cdnv_debiased(evidence).value == pytest.approx(2 / (100 - 2), rel=1e-14)


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
def test_the_papers_inequalities_hold(seed, classes):
    z, y, g = case(seed, per_class=tuple(range(5, 5 + classes)))
    evidence = evidence_of(z, y, energies=g)
    plain, refined = geometric_collapse(evidence).value, geometric_collapse_refined(evidence).value
    kappa = poincare_lower_bound(evidence).value
    assert refined <= plain * (1 + 1e-12)
    assert cdnv(evidence).value <= kappa * refined * (1 + 1e-12)


def test_within_class_order_and_class_order_do_not_matter():
    z, y, g = case()
    keep = np.random.default_rng(0).permutation(len(y))
    plain, turned = evidence_of(z, y, energies=g), evidence_of(z[keep], 7 - y[keep], energies=g[keep])
    for function in (*SCALE_FREE, gc):
        assert function(turned).value == pytest.approx(function(plain).value, rel=1e-12)


def test_cdnv_survives_offset_1e3_with_spread_1e_4():
    z, y = clouds(per_class=(200, 200, 200), dim=16, spread=1e-4)
    z = z / 3 + 1e3
    assert cdnv(evidence_of(z, y)).value == pytest.approx(reference.cdnv(z - 1e3, y), rel=1e-6)


def test_distances_are_exact_where_the_square_would_cancel():
    means = torch.tensor([[1e6, 0.0], [1e6, 1e-3], [0.0, 0.0]], dtype=torch.float64)
    assert squared_distances(means)[0, 1].item() == pytest.approx(1e-6, rel=1e-6)


def test_debiasing_removes_the_bias():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 30)) * 2
    y = np.repeat(np.arange(4), 6)
    pairs = reference.ordered_pairs(4)
    truth = np.mean([30 / ((centres[i] - centres[j]) ** 2).sum() for i, j in pairs])
    draws = [evidence_of(centres[y] + rng.normal(size=(24, 30)), y) for _ in range(300)]
    plain = np.mean([cdnv(evidence).value for evidence in draws])
    debiased = np.mean([cdnv_debiased(evidence).value for evidence in draws])
    assert abs(debiased - truth) < 0.35 * abs(plain - truth)


def reason_of(function, embeddings, labels, energies=None):
    found = function(evidence_of(embeddings, labels, energies=energies))
    assert found.value is None
    assert found.stderr is None
    return found.reason


@pytest.mark.parametrize("function", [cdnv, cdnv_debiased, directional_cdnv, geometric_collapse, geometric_collapse_refined])
def test_one_class_is_a_reason(function):
    assert "at least 2 classes" in reason_of(function, [[0.0], [1.0]], [3, 3], [1.0, 2.0])


@pytest.mark.parametrize("function", [cdnv, cdnv_debiased, directional_cdnv, geometric_collapse, geometric_collapse_refined])
def test_equal_class_means_are_a_reason(function):
    embeddings = np.array([[0.0, 1.0], [2.0, 3.0], [1.0, 1.0], [1.0, 3.0], [5.0, 5.0], [6.0, 5.0]]) / 3 + 1e3
    assert "'1' and '2' have the same mean" in reason_of(function, embeddings, [1, 1, 2, 2, 4, 4], [1.0] * 6)


@pytest.mark.parametrize("function", [cdnv, cdnv_debiased, directional_cdnv])
def test_a_class_with_one_image_is_a_reason(function):
    assert "class '7' has 1 image" in reason_of(function, [[0.0], [1.0], [5.0]], [3, 3, 7])


def test_a_class_with_one_image_leaves_values_without_standard_error():
    evidence = evidence_of([[0.0], [1.0], [5.0]], [3, 3, 7], energies=[1.0, 2.0, 4.0])
    for function in (gc, geometric_collapse, geometric_collapse_refined):
        found = function(evidence)
        assert found.value is not None
        assert found.stderr is None
        assert "single image" in found.reason
    assert "single image" in reason_of(poincare_lower_bound, [[0.0], [1.0], [5.0]], [3, 3, 7], [1.0, 2.0, 4.0])


def test_pairs_that_cannot_be_debiased_are_counted():
    z = np.array([[-1.0], [1.0], [-0.9], [1.2], [50.0], [52.0]])
    assert "1 of 3 class pairs" in reason_of(cdnv_debiased, z, [0, 0, 1, 1, 2, 2])


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

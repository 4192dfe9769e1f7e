import numpy as np
import pytest
import torch
from cases import clouds
from reference import weight_jackknife

from gcaudit.geometry import rows
from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.nc1 import nc1


def twin(z, y, weights=None):
    """tr(Sw pinv(Sb)) / K as written, with D x D matrices and weighted images."""
    z, w = z - z.mean(0), np.ones(len(y)) / len(y) if weights is None else weights
    classes = sorted(set(y.tolist()))
    means = np.array([np.average(z[y == c], axis=0, weights=w[y == c]) for c in classes])
    inner = sum(w[i] * np.outer(d, d) for i, d in enumerate(z - means[np.searchsorted(classes, y)]))
    between = sum(np.outer(m, m) for m in means - means.mean(0)) / len(classes)
    return np.trace(inner @ np.linalg.pinv(between, rcond=1e-10)) / len(classes)


def left_out_error(z, y):
    return weight_jackknife(lambda weights: twin(z, y, weights), y)


def test_it_agrees_with_exact_arithmetic(shared):
    data = np.load(shared / "golden" / "small.npz")
    found = nc1(evidence_of(data["features"], data["labels"]))
    assert found.value == pytest.approx(0.6034253281872706, rel=1e-12)
    assert found.n == 300


@pytest.mark.parametrize(("sizes", "dim"), [((20, 15, 30), 7), ((9, 8), 40), ((9, 8, 30, 7, 6), 3), ((4, 6, 5), 30)])
def test_it_equals_its_definition(sizes, dim):
    z, y = clouds(per_class=sizes, dim=dim)
    assert nc1(evidence_of(z, y)).value == pytest.approx(twin(z, y), rel=1e-10)


def test_by_hand():
    # Sw = 1, the means are -5 and 5, Sb = 25
    assert nc1(evidence_of([[-1.0], [1.0], [9.0], [11.0]], [0, 0, 1, 1])).value == pytest.approx(1 / 25 / 2, rel=1e-14)


@pytest.mark.parametrize(("sizes", "dim"), [((60, 40, 80), 6), ((50, 40, 45, 60, 55), 3), ((70, 90), 8)])
def test_the_standard_error_is_that_of_the_jackknife(sizes, dim):
    z, y = clouds(per_class=sizes, dim=dim)
    z = z / np.arange(1, dim + 1)
    assert nc1(evidence_of(z, y)).stderr == pytest.approx(left_out_error(z, y), rel=0.05)


def test_the_influence_is_the_derivative_by_weight():
    z, y = clouds(per_class=(30, 20, 25, 10), dim=9)
    found = nc1(evidence_of(z, y)).influence.numpy()
    n, step = len(y), 1e-6

    def shifted(sign, image):
        w = np.ones(n) / n
        group = np.flatnonzero(y == y[image])
        w[group] -= sign * step / len(group)
        w[image] += sign * step
        return twin(z, y, w)

    for image in (0, 33, 60, 80):
        count = (y == y[image]).sum()
        slope = (shifted(1, image) - shifted(-1, image)) / (2 * step) / n * np.sqrt(count / (count - 1))
        assert found[image] == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-120, 1e-3, 1e100])
def test_scale_rotation_and_shift_do_not_matter(scale):
    z, y = clouds()
    plain = nc1(evidence_of(z, y))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0]
    moved = nc1(evidence_of(scale * (z @ turn + 3), y))
    assert moved.value == pytest.approx(plain.value, rel=1e-10)
    assert moved.stderr == pytest.approx(plain.stderr, rel=1e-10)


def test_an_offset_of_1e4_costs_no_digits_that_matter():
    z, y = clouds(spread=1e-2)
    plain, moved = nc1(evidence_of(z, y)), nc1(evidence_of(z + 1e4, y))
    assert moved.value == pytest.approx(plain.value, rel=1e-8)
    assert moved.stderr == pytest.approx(plain.stderr, rel=1e-8)


def test_chunks_and_float32_rows(monkeypatch):
    z, y = clouds()
    plain = nc1(evidence_of(z.astype(np.float32), y))
    assert plain.value == pytest.approx(nc1(evidence_of(z.astype(np.float32).astype(np.float64), y)).value, rel=1e-14)
    monkeypatch.setattr(rows, "_ROWS", 7)
    parts = nc1(evidence_of(z.astype(np.float32), y))
    assert parts.value == pytest.approx(plain.value, rel=1e-12)
    assert torch.allclose(parts.influence, plain.influence, rtol=1e-10, atol=1e-14)


def test_means_on_a_line_keep_the_value_and_lose_the_standard_error():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(3, 10, 5))
    noise -= noise.mean(1, keepdims=True)
    z = (noise + np.array([0.0, 1.0, 3.0])[:, None, None] * rng.normal(size=5)).reshape(30, 5) + 1e3
    y = np.repeat(np.arange(3), 10)
    found = nc1(evidence_of(z, y))
    assert found.value == pytest.approx(twin(z, y), rel=1e-6)
    assert found.stderr is None
    assert "span 1 of 2 directions" in found.reason


def test_full_collapse_is_0_without_noise():
    y = np.repeat(np.arange(3), 4)
    found = nc1(evidence_of(np.eye(3)[y], y))
    assert found.value == 0.0
    assert found.stderr == 0.0


@pytest.mark.parametrize(
    ("z", "y", "reason"),
    [
        ([[0.0], [1.0]], [0, 0], "at least 2 classes"),
        ([[0.0], [1.0], [2.0]], [0, 0, 1], "class '1' has 1 image"),
        ([[0.1]] * 4, [0, 0, 1, 1], "all embeddings are equal"),
        ([[1 / 3 + 1e3], [1e3], [1e3], [1 / 3 + 1e3]], [0, 0, 1, 1], "class means are equal"),
        ([[1e200], [-1e200], [2e200], [3e200]], [0, 0, 1, 1], "beyond the range"),
    ],
)
def test_reasons(z, y, reason):
    found = nc1(evidence_of(z, y))
    assert found.value is None
    assert reason in found.reason

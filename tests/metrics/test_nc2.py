import numpy as np
import pytest
import torch
from cases import clouds
from reference import jackknife

from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.nc2 import nc2


def slow_nc2(z, y):
    means = np.array([z[y == c].mean(0) for c in np.unique(y)])
    centred = means - means.mean(0)
    products = np.array([[a @ b for b in centred] for a in centred])
    k = len(means)
    simplex = np.array([[(1.0 if i == j else 0.0) - 1 / k for j in range(k)] for i in range(k)]) / np.sqrt(k - 1)
    return np.sqrt(((products / np.sqrt((products**2).sum()) - simplex) ** 2).sum())


def test_published_value(shared):
    small = np.load(shared / "golden" / "small.npz")
    found = nc2(evidence_of(small["features"], small["labels"]))
    assert found.value == pytest.approx(0.417135399366683, rel=1e-13)


def test_value_and_standard_error():
    z, y = clouds(per_class=(40, 60, 50, 30))
    found = nc2(evidence_of(z, y))
    assert found.value == pytest.approx(slow_nc2(z, y), rel=1e-12)
    assert found.stderr == pytest.approx(jackknife(lambda keep: slow_nc2(z[keep], y[keep]), y), rel=0.05)


def test_by_hand():
    z = [[-1.5], [-0.5], [-0.5], [0.5], [0.5], [1.5]]
    assert nc2(evidence_of(z, [0, 0, 1, 1, 2, 2])).value == pytest.approx(np.sqrt(2 - np.sqrt(2)), rel=1e-14)


def test_a_simplex_has_no_error():
    y = np.repeat(np.arange(4), 3)
    z = np.eye(4)[y] + 0.1 * np.array([[-1.0], [0.0], [1.0]])[np.tile(np.arange(3), 4)] * np.ones(4)
    found = nc2(evidence_of(z, y))
    assert found.value == pytest.approx(0.0, abs=1e-14)


def test_scale_rotation_and_shift_do_not_matter():
    z, y = clouds(per_class=(20, 15, 30, 9))
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))[0]
    plain = nc2(evidence_of(z, y))
    for scale, shift, digits in ((1e3, 50.0, 1e-12), (1.0, 1e4, 1e-9), (1e-150, 0.0, 1e-12), (1e150, 0.0, 1e-12)):
        moved = nc2(evidence_of(scale * z @ rotation + shift, y))
        assert moved.value == pytest.approx(plain.value, rel=digits)
        assert moved.stderr == pytest.approx(plain.stderr, rel=digits)


def test_single_precision_rows():
    z, y = clouds(per_class=(20, 15, 30, 9))
    assert nc2(evidence_of(torch.tensor(z, dtype=torch.float32), y)).value == pytest.approx(slow_nc2(z, y), rel=1e-6)


@pytest.mark.parametrize(
    ("embeddings", "labels", "reason"),
    [
        ([[0.0], [1.0]], [0, 0], "at least 2 classes"),
        ([[0.0], [1.0], [2.0], [5.0]], [0, 0, 1, 1], "at least 3 classes"),
        (np.full((6, 2), 1000.1), [0, 0, 1, 1, 2, 2], "class means are equal"),
    ],
)
def test_reasons(embeddings, labels, reason):
    found = nc2(evidence_of(embeddings, labels))
    assert found.value is None
    assert reason in found.reason


def test_a_single_image_has_no_standard_error():
    found = nc2(evidence_of([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [5.0, 0.0]], [0, 0, 1, 2]))
    assert found.value is not None
    assert found.stderr is None
    assert "single image" in found.reason


def test_a_simplex_up_to_rounding_has_no_standard_error():
    y = np.arange(40) % 4
    noise = np.random.default_rng(0).normal(size=(40, 4))
    found = nc2(evidence_of(np.eye(4)[y] + 1e-10 * noise, y))
    assert found.value == pytest.approx(0, abs=1e-9)
    assert found.stderr is None
    assert found.reason == "a simplex up to rounding: no standard error"
    assert nc2(evidence_of(np.eye(4)[y] + 1e-2 * noise, y)).stderr > 0

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
    assert found.details["plug_in"] == pytest.approx(0.417135399366683, rel=1e-13)


def test_value_and_standard_error():
    z, y = clouds(per_class=(40, 60, 50, 30))
    found = nc2(evidence_of(z, y))
    assert found.details["plug_in"] == pytest.approx(slow_nc2(z, y), rel=1e-12)
    assert found.stderr == pytest.approx(jackknife(lambda keep: nc2(evidence_of(z[keep], y[keep])).value, y), rel=0.1)


def test_by_hand():
    z = [[-1.5], [-0.5], [-0.5], [0.5], [0.5], [1.5]]
    assert nc2(evidence_of(z, [0, 0, 1, 1, 2, 2])).details["plug_in"] == pytest.approx(np.sqrt(2 - np.sqrt(2)), rel=1e-14)


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
    found = nc2(evidence_of(torch.tensor(z, dtype=torch.float32), y))
    assert found.details["plug_in"] == pytest.approx(slow_nc2(z, y), rel=1e-6)


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


def test_a_single_image_leaves_the_plug_in():
    found = nc2(evidence_of([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [5.0, 0.0]], [0, 0, 1, 2]))
    assert found.value is None
    assert found.details["plug_in"] > 0
    assert "class '1' has 1 image" in found.reason


def test_noise_that_drowns_the_means_is_a_reason():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(5), 4)
    found = nc2(evidence_of(0.1 * np.eye(5, 40)[y] + rng.normal(size=(20, 40)), y))
    assert found.value is None
    assert "noise of few images makes up" in found.reason


@pytest.mark.parametrize("per_class", [(8,) * 5, (5, 8, 12, 20, 40)])
def test_values_are_those_of_the_population_and_intervals_hold_them(per_class):
    rng = np.random.default_rng(0)
    centres = np.random.default_rng(5).normal(size=(5, 20))
    y = np.repeat(np.arange(5), per_class)
    truth = slow_nc2(centres, np.arange(5))
    found = [nc2(evidence_of(centres[y] + 1.5 * rng.normal(size=(len(y), 20)), y)) for _ in range(150)]
    assert abs(np.mean([each.value for each in found]) / truth - 1) < 0.05
    assert np.mean([each.ci95[0] <= truth <= each.ci95[1] for each in found]) >= 0.88


def test_a_simplex_up_to_rounding_has_no_standard_error():
    y = np.arange(40) % 4
    noise = np.random.default_rng(0).normal(size=(40, 4))
    found = nc2(evidence_of(np.eye(4)[y] + 1e-10 * noise, y))
    assert found.value == pytest.approx(0, abs=1e-9)
    assert found.stderr is None
    assert found.reason == "a simplex up to rounding: no standard error"
    assert nc2(evidence_of(np.eye(4)[y] + 1e-2 * noise, y)).stderr > 0

import dataclasses

import numpy as np
import pytest
import torch
from cases import clouds
from reference import jackknife

from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.nc2 import nc2
from gcaudit.metrics.nc3 import nc3


def case(seed=0):
    z, y = clouds(per_class=(40, 60, 50, 30), seed=seed)
    weight = np.array([z[y == c].mean(0) for c in range(4)]) + np.random.default_rng(seed).normal(size=(4, 7))
    return z, y, weight


def slow_nc3(z, y, weight):
    means = np.array([z[y == c].mean(0) for c in np.unique(y)])
    centred = means - means.mean(0)
    products = np.array([[w @ m for m in centred] for w in weight])
    k = len(means)
    simplex = np.array([[(1.0 if i == j else 0.0) - 1 / k for j in range(k)] for i in range(k)]) / np.sqrt(k - 1)
    return np.sqrt(((products / np.sqrt((products**2).sum()) - simplex) ** 2).sum())


def test_published_value(shared):
    small, extra = (np.load(shared / "golden" / f"{name}.npz") for name in ("small", "small_extra"))
    found = nc3(evidence_of(small["features"], small["labels"], head_weight=extra["head_weight"]))
    assert found.details["plug_in"] == pytest.approx(0.38461825061896326, rel=1e-13)


def test_value_and_standard_error():
    z, y, weight = case()
    found = nc3(evidence_of(z, y, head_weight=weight))
    assert found.details["plug_in"] == pytest.approx(slow_nc3(z, y, weight), rel=1e-12)
    left_out = jackknife(lambda keep: nc3(evidence_of(z[keep], y[keep], head_weight=weight)).value, y)
    assert found.stderr == pytest.approx(left_out, rel=0.1)


def test_a_head_of_class_means_gives_nc2():
    z, y, _ = case()
    means = np.array([z[y == c].mean(0) for c in range(4)])
    found = nc3(evidence_of(z, y, head_weight=means - means.mean(0)))
    assert found.details["plug_in"] == pytest.approx(nc2(evidence_of(z, y)).details["plug_in"], rel=1e-12)


def test_scale_rotation_and_shift_do_not_matter():
    z, y, weight = case()
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))[0]
    plain = nc3(evidence_of(z, y, head_weight=weight))
    moved = nc3(evidence_of(1e-3 * z @ rotation + 50, y, head_weight=1e200 * weight @ rotation))
    assert moved.value == pytest.approx(plain.value, rel=1e-10)
    assert moved.stderr == pytest.approx(plain.stderr, rel=1e-8)
    far = nc3(evidence_of(z + 1e4, y, head_weight=weight))
    assert far.value == pytest.approx(plain.value, rel=1e-8)


def test_single_precision_rows():
    z, y, weight = case()
    rows = torch.tensor(z, dtype=torch.float32)
    assert nc3(evidence_of(rows, y, head_weight=weight)).details["plug_in"] == pytest.approx(slow_nc3(z, y, weight), rel=1e-6)


def test_reasons():
    z, y, weight = case()
    evidence = evidence_of(z, y)
    assert nc3(evidence).reason == "no head_weight was given"
    assert "at least 2 classes" in nc3(evidence_of(z, np.zeros_like(y), head_weight=weight[:1])).reason
    assert "class means are equal" in nc3(evidence_of(np.ones_like(z), y, head_weight=weight)).reason
    assert "orthogonal to all class means" in nc3(evidence_of(z, y, head_weight=np.zeros_like(weight))).reason
    other = dataclasses.replace(evidence, head_weight=torch.ones(4, 3, dtype=torch.float64))
    assert "shape (4, 3), the class means (4, 7)" in nc3(other).reason


def test_a_single_image_leaves_the_plug_in():
    found = nc3(evidence_of([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]], [0, 0, 1], head_weight=[[0.0, 1.0], [1.0, 0.0]]))
    assert found.value is None
    assert found.details["plug_in"] > 0
    assert "single image" in found.reason


def test_values_are_those_of_the_population_and_intervals_hold_them():
    rng = np.random.default_rng(0)
    centres = np.random.default_rng(5).normal(size=(5, 20))
    weight = centres + 0.5 * np.random.default_rng(6).normal(size=(5, 20))
    y = np.repeat(np.arange(5), 8)
    truth = slow_nc3(centres, np.arange(5), weight)
    found = [nc3(evidence_of(centres[y] + 2 * rng.normal(size=(40, 20)), y, head_weight=weight)) for _ in range(150)]
    plain = np.mean([each.details["plug_in"] for each in found])
    assert abs(np.mean([each.value for each in found]) / truth - 1) < 0.6 * abs(plain / truth - 1) + 0.01
    assert np.mean([each.ci95[0] <= truth <= each.ci95[1] for each in found]) >= 0.88


def test_a_simplex_up_to_rounding_has_no_standard_error():
    y = np.arange(40) % 4
    z = np.eye(4)[y] + 1e-10 * np.random.default_rng(0).normal(size=(40, 4))
    found = nc3(evidence_of(z, y, z, head_weight=np.eye(4) - 0.25))
    assert found.value == pytest.approx(0, abs=1e-9)
    assert found.stderr is None
    assert found.reason == "a simplex up to rounding: no standard error"


def test_a_head_that_is_orthogonal_up_to_rounding():
    z, y = clouds()
    means = np.array([z[y == c].mean(0) for c in range(3)])
    outside = np.linalg.svd(means - means.mean(0))[2][3:6]
    assert np.abs(outside @ (means - means.mean(0)).T).max() > 0
    found = nc3(evidence_of(z, y, z @ outside.T, head_weight=outside))
    assert found.reason == "the head's weights are orthogonal to all class means"

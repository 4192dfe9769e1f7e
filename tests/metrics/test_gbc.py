import numpy as np
import pytest
import torch
from cases import clouds
from reference import jackknife

from gcaudit.metrics.gbc import gbc
from gcaudit.metrics.measuring import evidence_of


def slow_gbc(z, y):
    groups = [z[y == c] for c in np.unique(y)]
    total = 0.0
    for i, a in enumerate(groups):
        for j, b in enumerate(groups):
            if i != j:
                s1, s2 = np.maximum(a.var(0), 1e-4), np.maximum(b.var(0), 1e-4)
                s = (s1 + s2) / 2
                distance = ((a.mean(0) - b.mean(0)) ** 2 / s).sum() / 8 + (np.log(s) - np.log(s1) / 2 - np.log(s2) / 2).sum() / 2
                total -= np.exp(-distance)
    return total


def reduced(z, dims):
    centred = z - z.mean(0)
    return centred @ np.linalg.svd(centred, full_matrices=False)[2][:dims].T


def test_published_value(shared):
    small = np.load(shared / "golden" / "small.npz")
    assert gbc(evidence_of(small["features"], small["labels"])).value == pytest.approx(-0.2119429872587491, rel=1e-12)


def test_value_and_standard_error():
    z, y = clouds(per_class=(40, 60, 50, 30), dim=3, spread=3.0)
    found = gbc(evidence_of(z, y))
    assert found.value == pytest.approx(slow_gbc(z, y), rel=1e-12)
    assert found.stderr == pytest.approx(jackknife(lambda keep: slow_gbc(z[keep], y[keep]), y), rel=0.1)


def test_more_than_64_dimensions_are_reduced():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), (60, 50, 40))
    z = rng.normal(size=(3, 80))[y] * 0.2 + rng.normal(size=(150, 80)) * np.linspace(2, 0.1, 80)
    found = gbc(evidence_of(z, y))
    assert found.value == pytest.approx(slow_gbc(reduced(z, 64), y), rel=1e-9)
    assert found.value != pytest.approx(slow_gbc(z, y), rel=1e-3)
    rotation = np.linalg.qr(rng.normal(size=(80, 80)))[0]
    assert gbc(evidence_of(z @ rotation + 1e4, y)).value == pytest.approx(found.value, rel=1e-6)


def test_fewer_images_than_dimensions():
    z, y = clouds(per_class=(8, 12), dim=100, spread=20.0)
    assert gbc(evidence_of(z, y)).value == pytest.approx(slow_gbc(reduced(z, 19), y), rel=1e-9)


def test_by_hand():
    evidence = evidence_of([[-1.0], [1.0], [1.0], [3.0]], [0, 0, 1, 1])
    assert gbc(evidence).value == pytest.approx(-2 * np.exp(-0.5), rel=1e-14)


def test_small_overlaps_keep_their_digits():
    assert gbc(evidence_of([[-1.0], [1.0], [19.0], [21.0]], [0, 0, 1, 1])).value == pytest.approx(-2 * np.exp(-50.0), rel=1e-13)


def test_variances_have_a_floor():
    z, y = clouds(per_class=(40, 60, 50), dim=3)
    assert gbc(evidence_of(1e-4 * z, y)).value == pytest.approx(slow_gbc(1e-4 * z, y), rel=1e-9)
    assert gbc(evidence_of(1e-6 * z, y)).value == pytest.approx(-6, rel=1e-6)


def test_blocks_chunks_and_single_precision_do_not_matter(monkeypatch):
    z, y = clouds(per_class=(40, 60, 50, 30), dim=3, spread=3.0)
    whole = gbc(evidence_of(z, y))
    monkeypatch.setattr("gcaudit.metrics.gbc._BLOCK", 3)
    monkeypatch.setattr("gcaudit.geometry.rows._ROWS", 11)
    parts = gbc(evidence_of(z, y))
    assert parts.value == pytest.approx(whole.value, rel=1e-13)
    assert parts.stderr == pytest.approx(whole.stderr, rel=1e-12)
    assert gbc(evidence_of(torch.tensor(z, dtype=torch.float32), y)).value == pytest.approx(whole.value, rel=1e-5)
    assert gbc(evidence_of(z + 1e4, y)).stderr == pytest.approx(whole.stderr, rel=1e-6)


def test_reasons():
    z, y = clouds()
    assert "at least 2 classes" in gbc(evidence_of(z, np.zeros_like(y))).reason
    assert "all embeddings are equal" in gbc(evidence_of(np.ones_like(z), y)).reason
    assert "beyond the range" in gbc(evidence_of(1e200 * z, y)).reason
    alone = gbc(evidence_of(z[:21], y[:21]))
    assert alone.value is not None
    assert alone.stderr is None
    assert "single image" in alone.reason


def test_classes_that_do_not_overlap_at_all_have_no_standard_error():
    z, y = clouds()
    found = gbc(evidence_of(1e3 * z + 1e6 * y[:, None], y))
    assert found.value == 0
    assert found.stderr is None
    assert "no two classes overlap" in found.reason

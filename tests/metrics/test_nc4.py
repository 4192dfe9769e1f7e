import numpy as np
import pytest
import torch
from cases import clouds

from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.nc4 import nc4, nearest_means


def slow_agreement(z, y, answers):
    means = {c: z[y == c].mean(0) for c in np.unique(y)}
    nearest = [min(means, key=lambda c: np.linalg.norm(x - means[c])) for x in z]
    return np.array(nearest) == answers


def case():
    z, y = clouds(per_class=(20, 15, 30), spread=3.0)
    return z, y, z @ np.random.default_rng(0).normal(size=(7, 3)) + 5 * np.eye(3)[y]


def test_published_plain_share(shared):
    small, extra = (np.load(shared / "golden" / f"{name}.npz") for name in ("small", "small_extra"))
    logits = small["features"] @ extra["head_weight"].T
    evidence = evidence_of(small["features"], small["labels"], logits)
    agrees = nearest_means(evidence) == evidence.predictions
    assert agrees.double().mean().item() == pytest.approx(0.9166666666666666, abs=1e-15)
    shares = [agrees[evidence.labels == c].double().mean().item() for c in range(5)]
    assert nc4(evidence).details["plug_in"] == pytest.approx(np.mean(shares), abs=1e-15)


def test_value_is_class_balanced():
    z, y, logits = case()
    agrees = slow_agreement(z, y, logits.argmax(1))
    found = nc4(evidence_of(z, y, logits))
    assert found.details["plug_in"] == pytest.approx(np.mean([agrees[y == c].mean() for c in range(3)]), abs=1e-15)
    assert 0.2 < found.value < 1
    assert found.ci95[0] < found.value < found.ci95[1]


def test_scale_rotation_shift_and_chunks_do_not_matter(monkeypatch):
    z, y, logits = case()
    plain = nc4(evidence_of(z, y, logits)).value
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))[0]
    monkeypatch.setattr("gcaudit.geometry.rows._ROWS", 11)
    assert nc4(evidence_of(1e3 * z @ rotation + 1e4, y, logits)).value == plain
    assert nc4(evidence_of(torch.tensor(z, dtype=torch.float32), y, logits)).value == plain


def test_answers_outside_of_the_classes_never_agree():
    z, y, _ = case()
    logits = np.eye(5)[np.where(y == 2, 4, y)]
    assert nc4(evidence_of(0.01 * z + 100 * np.eye(7)[y], y, logits)).value == pytest.approx(2 / 3, abs=1e-15)


def test_reasons():
    z, y, logits = case()
    assert nc4(evidence_of(z, y)).reason == "no logits were given"
    assert "at least 2 classes" in nc4(evidence_of(z, np.zeros_like(y), logits)).reason
    assert "class means are equal" in nc4(evidence_of(np.ones_like(z), y, logits)).reason
    found = nc4(evidence_of(z, y, logits + np.array([1e6, 0.0, 0.0])))
    assert found.value is None
    assert "same class for every image" in found.reason

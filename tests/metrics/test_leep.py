import dataclasses

import numpy as np
import pytest
import torch
from cases import clouds
from reference import jackknife

from gcaudit.metrics.leep import leep, nce
from gcaudit.metrics.measuring import evidence_of


def case(per_class=(30, 20, 25), states=4, seed=0):
    rng = np.random.default_rng(seed)
    z, y = clouds(per_class=per_class, seed=seed)
    logits = rng.normal(size=(len(y), states)) + 2 * np.eye(max(states, 3))[y][:, :states]
    return z, y, logits


def slow_leep(logits, labels):
    theta = np.exp(logits - logits.max(1, keepdims=True))
    theta /= theta.sum(1, keepdims=True)
    total = 0.0
    for probabilities, label in zip(theta, labels, strict=True):
        own = sum(p * theta[labels == label, k].sum() / theta[:, k].sum() for k, p in enumerate(probabilities))
        total += np.log(own)
    return total / len(labels)


def slow_nce(logits, labels):
    answers = logits.argmax(1)
    shares = [((answers == a) & (labels == y)).sum() / (answers == a).sum() for a, y in zip(answers, labels, strict=True)]
    return np.log(shares).mean()


@pytest.mark.parametrize(("function", "truth"), [(leep, -1.0953129448711136), (nce, -1.0932014734731847)])
def test_published_values(shared, function, truth):
    small = np.load(shared / "golden" / "small.npz")
    evidence = evidence_of(small["features"], small["labels"], np.log(small["probs"]))
    assert function(evidence).value == pytest.approx(truth, rel=1e-13)


@pytest.mark.parametrize(("function", "slow"), [(leep, slow_leep), (nce, slow_nce)])
def test_value_and_standard_error(function, slow):
    z, y, logits = case(per_class=(90, 60, 80))
    found = function(evidence_of(z, y, logits))
    assert found.value == pytest.approx(slow(logits, y), rel=1e-12)
    assert found.stderr == pytest.approx(jackknife(lambda keep: slow(logits[keep], y[keep]), y), rel=0.1)


@pytest.mark.parametrize("function", [leep, nce])
def test_chunks_do_not_matter(monkeypatch, function):
    z, y, logits = case()
    whole = function(evidence_of(z, y, logits))
    monkeypatch.setattr("gcaudit.metrics.leep._ROWS", 7)
    parts = function(evidence_of(z, y, logits))
    assert parts.value == pytest.approx(whole.value, rel=1e-14)
    assert parts.stderr == pytest.approx(whole.stderr, rel=1e-12)


def test_a_constant_added_to_the_outputs_changes_nothing():
    z, y, logits = case()
    moved = logits + 1e4 * np.arange(len(y))[:, None] / len(y)
    for function in (leep, nce):
        assert function(evidence_of(z, y, moved)).value == pytest.approx(function(evidence_of(z, y, logits)).value, rel=1e-10)


def test_by_hand():
    z, y = np.arange(4.0)[:, None], [0, 0, 1, 1]
    sure = 1000.0 * np.eye(2)[[0, 0, 0, 1]]
    truth = (2 * np.log(2 / 3) + np.log(1 / 3)) / 4
    assert leep(evidence_of(z, y, sure)).value == pytest.approx(truth, rel=1e-14)
    assert nce(evidence_of(z, y, sure)).value == pytest.approx(truth, rel=1e-14)


def test_a_class_that_the_head_never_says_does_no_harm():
    z, y, logits = case()
    never = np.concatenate([logits, np.full((len(y), 1), -1e5)], axis=1)
    for function in (leep, nce):
        plain, wide = function(evidence_of(z, y, logits)), function(evidence_of(z, y, never))
        assert wide.value == pytest.approx(plain.value, rel=1e-14)
        assert wide.stderr == pytest.approx(plain.stderr, rel=1e-12)


@pytest.mark.parametrize("function", [leep, nce])
def test_reasons(function):
    z, y, logits = case()
    without = dataclasses.replace(evidence_of(z, y), logits_reason="the model has no head")
    assert function(without).reason == "the model has no head"
    assert "at least 2 classes" in function(evidence_of(z, np.zeros_like(y), logits)).reason


@pytest.mark.parametrize("function", [leep, nce])
def test_a_single_image_has_no_standard_error(function):
    z, y, logits = case(per_class=(5, 1, 4))
    found = function(evidence_of(z, y, torch.tensor(logits, dtype=torch.float32)))
    assert found.value is not None
    assert found.stderr is None
    assert "single image" in found.reason

import numpy as np
import pytest
import reference
import torch
from cases import clouds

from gcaudit.geometry import nearest_mean as module
from gcaudit.metrics.accuracy import ncm_accuracy
from gcaudit.metrics.measuring import evidence_of


def drawn(rng, per_class, dim, classes=6, radius=1.0):
    """Round classes around corners of a cube of noise, and how often the nearest of the true means is right."""
    centres = radius * np.random.default_rng(7).normal(size=(classes, dim))
    y = np.repeat(np.arange(classes), per_class)
    return centres[y] + rng.normal(size=(len(y), dim)), y, centres


def truth_of(dim, radius):
    z, y, centres = drawn(np.random.default_rng(99), 4000, dim, radius=radius)
    return (((z[:, None] - centres) ** 2).sum(2).argmin(1) == y).mean()


@pytest.mark.parametrize(("dim", "radius", "images"), [(4, 1.0, 20), (60, 0.3, 8)])
def test_what_noisy_means_cost_is_taken_off(dim, radius, images):
    truth, rng = truth_of(dim, radius), np.random.default_rng(0)
    found = [ncm_accuracy(evidence_of(*drawn(rng, images, dim, radius=radius)[:2])) for _ in range(80)]
    plain = np.mean([each.details["plug_in"] for each in found])
    assert plain < truth - 0.02
    assert abs(np.mean([each.value for each in found]) - truth) < 0.4 * (truth - plain)
    held = np.mean([each.ci95[0] <= truth <= each.ci95[1] for each in found])
    assert held >= 0.88


def test_plug_in_is_leaving_each_image_out():
    for seed in range(5):
        z, y = clouds(per_class=(9, 14, 6), seed=seed, spread=3.0)
        assert ncm_accuracy(evidence_of(z, y)).details["plug_in"] == pytest.approx(reference.ncm_accuracy(z, y), abs=1e-15)


def test_many_images_leave_little_to_correct():
    z, y, _ = drawn(np.random.default_rng(3), 1000, 4)
    found = ncm_accuracy(evidence_of(z, y))
    assert found.value == pytest.approx(found.details["plug_in"], abs=0.01)


def test_chunks_do_not_matter(monkeypatch):
    z, y = clouds(spread=3.0)
    whole = ncm_accuracy(evidence_of(z, y))
    monkeypatch.setattr("gcaudit.geometry.rows._ROWS", 11)
    parts = ncm_accuracy(evidence_of(z, y))
    assert (parts.value, parts.stderr) == pytest.approx((whole.value, whole.stderr), rel=1e-9)


def test_quarters_are_even_and_depend_on_the_data_alone():
    z, y = clouds(per_class=(9, 14, 6))
    evidence = evidence_of(z, y)
    parts = module._parts(evidence, 0)
    for c in range(3):
        sizes = torch.bincount(parts[torch.from_numpy(y) == c], minlength=4)
        assert int(sizes.max() - sizes.min()) <= 1
    assert torch.equal(parts, module._parts(evidence, 0))
    assert not torch.equal(parts, module._parts(evidence, 1))


def test_two_images_a_class_are_a_reason():
    found = ncm_accuracy(evidence_of([[0.0], [2.0], [10.0], [12.0]], [0, 0, 1, 1]))
    assert found.value is None
    assert "class '0' has 2 images" in found.reason
    assert found.details["plug_in"] == 1.0


def test_all_right_still_has_an_interval():
    z, y = clouds(per_class=(10, 10, 10), spread=0.01)
    found = ncm_accuracy(evidence_of(z, y))
    assert (found.value, found.ci95[1]) == (1.0, 1.0)
    assert 0.8 < found.ci95[0] < 1.0


def test_a_rule_that_had_luck_is_not_brought_below_it():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 40)
    z = 50.0 * np.eye(4)[y] + rng.normal(size=(160, 4))
    z[y == 1] = z[y == 0]  # two classes of the same images: half of all cannot be told
    found = ncm_accuracy(evidence_of(z, y))
    assert found.ci95[0] <= 0.5 + found.stderr
    assert found.value > 0.44

import numpy as np
import pytest
import torch
from cases import clouds
from scipy.stats import spearmanr

from gcaudit.geometry.subset import balanced_subset
from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.parc import parc, spearman_with_classes


def pair_distances(z):
    deviation = z.std(0)
    scaled = (z - z.mean(0))[:, deviation > 0] / deviation[deviation > 0]
    return (1 - np.corrcoef(scaled))[np.triu_indices(len(z), 1)]


def slow_parc(z, y):
    different = (y[:, None] != y[None])[np.triu_indices(len(y), 1)]
    return 100 * spearmanr(pair_distances(z), different).statistic


def test_published_value_is_the_definition_plus_ranks_of_rounding(shared):
    small = np.load(shared / "golden" / "small.npz")
    z, y = small["features"], small["labels"]
    assert parc(evidence_of(z, y)).value == pytest.approx(slow_parc(z, y), rel=1e-12)
    labels = (1 - np.corrcoef(np.eye(5)[y]))[np.triu_indices(len(y), 1)]
    assert len(np.unique(labels)) > 2
    assert 100 * spearmanr(pair_distances(z), labels).statistic == pytest.approx(60.84165289865561, rel=1e-9)
    assert 100 * spearmanr(pair_distances(z), labels.round(9)).statistic == pytest.approx(parc(evidence_of(z, y)).value, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_spearmans_correlation(seed, monkeypatch):
    monkeypatch.setattr("gcaudit.metrics.parc._ROWS", 13)
    z, y = clouds(per_class=(30, 20, 1, 25), seed=seed, spread=3.0)
    found = parc(evidence_of(z, y))
    assert found.value == pytest.approx(slow_parc(z, y), rel=1e-12)
    assert found.stderr is None
    assert "pairs share images" in found.reason


def test_equal_images_are_tied():
    z, y = clouds(per_class=(5, 6, 4))
    z, y = np.concatenate([z, z, z]), np.concatenate([y, y[::-1], y])
    distances = pair_distances(z).round(10)
    different = (y[:, None] != y[None])[np.triu_indices(len(y), 1)]
    assert len(np.unique(distances)) < len(distances) / 4
    assert parc(evidence_of(z, y)).value == pytest.approx(100 * spearmanr(distances, different).statistic, rel=1e-9)


def test_by_hand():
    # ranks 1.5, 1.5, 3, 4; the pairs within a class have 1.5 and 3
    found = spearman_with_classes(torch.tensor([7, 2, 2, 5]), torch.tensor([2, 5]))
    assert found == pytest.approx(0.5 / np.sqrt(4.5 * 1), rel=1e-14)


def test_scale_and_shift_of_each_coordinate_do_not_matter():
    z, y = clouds(spread=3.0)
    truth = slow_parc(z, y)
    assert parc(evidence_of(z * np.logspace(-3, 3, 7) + 50, y)).value == pytest.approx(truth, rel=1e-9)
    assert parc(evidence_of(z + 1e4, y)).value == pytest.approx(truth, rel=1e-6)
    assert parc(evidence_of(1e-100 * z, y)).value == pytest.approx(truth, rel=1e-12)
    assert parc(evidence_of(torch.tensor(z, dtype=torch.float32), y)).value == pytest.approx(truth, rel=1e-4)
    constant = np.concatenate([z, np.full((len(y), 2), 1234.567)], axis=1)
    assert parc(evidence_of(constant, y)).value == pytest.approx(truth, rel=1e-12)


def test_many_images_are_drawn_from(monkeypatch):
    monkeypatch.setattr("gcaudit.metrics.parc._IMAGES", 60)
    z, y = clouds(per_class=(100, 50, 30), spread=4.0)
    evidence = evidence_of(z, y)
    rows = balanced_subset(evidence, "parc", 60).numpy()
    found = parc(evidence)
    assert found.n == 60
    assert found.value == pytest.approx(slow_parc(z[rows], y[rows]), rel=1e-12)


def test_reasons():
    z, y = clouds()
    assert "at least 2 classes" in parc(evidence_of(z, np.zeros_like(y))).reason
    assert "all embeddings are equal" in parc(evidence_of(np.ones_like(z), y)).reason
    assert "every class has 1 image" in parc(evidence_of(z[:4], np.arange(4))).reason
    assert "65 of 65 images have the same number" in parc(evidence_of(z[:, :1], y)).reason
    middle = np.concatenate([z, -z, np.zeros((1, 7))])
    assert "1 of 131 images" in parc(evidence_of(middle, np.concatenate([y, y, [0]]))).reason


def test_a_draw_without_two_images_of_a_class_is_a_reason(monkeypatch):
    monkeypatch.setattr("gcaudit.metrics.parc._IMAGES", 3)
    assert "no class has two images" in parc(evidence_of(*clouds())).reason


def test_pairs_that_are_all_equally_far_apart_are_a_reason():
    assert "equally far apart" in parc(evidence_of(np.eye(4), [0, 0, 1, 1])).reason

import numpy as np
import pytest
import torch
from cases import clouds
from reference import jackknife

from gcaudit.geometry.subset import balanced_subset
from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.neighbours import knn_accuracy, nearest_others


def slow_neighbours(z):
    distances = ((z[:, None] - z[None]) ** 2).sum(2)
    np.fill_diagonal(distances, np.inf)
    return distances.argmin(1)


def balanced(correct, y):
    return np.mean([correct[y == c].mean() for c in np.unique(y)])


def test_published_plain_share(shared):
    small = np.load(shared / "golden" / "small.npz")
    y = small["labels"]
    correct = y[nearest_others(torch.tensor(small["features"]))[0].numpy()] == y
    assert 100 * correct.mean() == pytest.approx(89.0, abs=1e-12)
    assert knn_accuracy(evidence_of(small["features"], y)).value == pytest.approx(balanced(correct, y), abs=1e-15)


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_are_those_of_the_definition(seed, monkeypatch):
    monkeypatch.setattr("gcaudit.metrics.neighbours._ROWS", 23)
    z, y = clouds(per_class=(40, 60, 50), seed=seed, spread=4.0)
    assert nearest_others(torch.tensor(z))[0].tolist() == slow_neighbours(z).tolist()
    found = knn_accuracy(evidence_of(z, y))
    assert found.value == pytest.approx(balanced(y[slow_neighbours(z)] == y, y), abs=1e-15)
    assert 0.3 < found.value < 1
    assert len(found.influence) == 150


def test_of_equal_distances_the_first_counts():
    z = torch.tensor([[0.0], [2.0], [2.0], [1.0], [3.0]], dtype=torch.float64)
    assert nearest_others(z)[0].tolist() == [3, 2, 1, 0, 1]


def test_tight_classes_far_apart_are_measured_by_differences():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    spread = rng.normal(size=(60, 5))
    z = 1e8 * np.eye(5)[y] + spread
    near = nearest_others(torch.tensor(z))[0].numpy()
    assert near.tolist() == slow_neighbours(z).tolist()


def test_scale_rotation_and_shift_do_not_matter():
    z, y = clouds(spread=3.0)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))[0]
    plain = knn_accuracy(evidence_of(z, y)).value
    for scale, shift in ((1e3, 50.0), (1.0, 1e4), (1e-150, 0.0), (1e150, 0.0)):
        assert knn_accuracy(evidence_of(scale * z @ rotation + shift, y)).value == plain
    assert knn_accuracy(evidence_of(torch.tensor(z, dtype=torch.float32), y)).value == plain


def test_many_images_are_drawn_from(monkeypatch):
    monkeypatch.setattr("gcaudit.metrics.neighbours._IMAGES", 60)
    z, y = clouds(per_class=(100, 50, 30), spread=4.0)
    evidence = evidence_of(z, y)
    rows = balanced_subset(evidence, "knn_accuracy", 60).numpy()
    assert np.bincount(y[rows]).tolist() == [20, 20, 20]
    assert (np.diff(rows) > 0).all()
    found = knn_accuracy(evidence)
    assert found.n == 60
    assert found.value == pytest.approx(balanced(y[rows][slow_neighbours(z[rows])] == y[rows], y[rows]), abs=1e-15)
    assert found.influence.norm().item() == pytest.approx(found.stderr, rel=1e-12)
    assert set(found.influence.nonzero().flatten().tolist()) <= set(rows.tolist())


def test_reasons():
    z, y = clouds()
    assert "at least 2 classes" in knn_accuracy(evidence_of(z, np.zeros_like(y))).reason
    assert "all embeddings are equal" in knn_accuracy(evidence_of(np.ones_like(z), y)).reason
    assert "class '1' has 1 image" in knn_accuracy(evidence_of(z[:21], y[:21])).reason


def test_an_image_seen_twice_is_no_neighbour():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(200, 5)), rng.integers(0, 4, 200)
    plain = knn_accuracy(evidence_of(z, y)).value
    twice = knn_accuracy(evidence_of(np.repeat(z, 2, 0), np.repeat(y, 2))).value
    assert twice == pytest.approx(plain, abs=1e-12)


def test_a_class_that_is_one_point_is_still_near_to_itself():
    z = np.array([[0.0], [0.0], [0.0], [5.0], [6.0], [7.0]])
    assert knn_accuracy(evidence_of(z, [0, 0, 0, 1, 1, 1])).value == 1.0


def test_the_error_is_that_of_leaving_each_image_out():
    rng = np.random.default_rng(3)
    y = np.repeat(np.arange(3), (25, 40, 30))
    z = rng.normal(size=(95, 3)) + 1.5 * np.eye(3)[y]
    found = knn_accuracy(evidence_of(z, y))

    def without(keep):
        return knn_accuracy(evidence_of(z[keep], y[keep])).value

    assert found.stderr == pytest.approx(jackknife(without, y), rel=0.03)

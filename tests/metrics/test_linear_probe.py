import numpy as np
import pytest
import torch
from cases import clouds

from gcaudit.geometry.counter import derive_seed
from gcaudit.metrics.linear_probe import linear_probe_accuracy, stratified_folds
from gcaudit.metrics.measuring import evidence_of


def converged_weights(z, y):
    """Multinomial logistic regression by Newton's method, in float64."""
    n, k = len(z), int(y.max()) + 1
    x = torch.cat([z, torch.ones(n, 1, dtype=torch.float64)], 1)

    def loss(flat):
        w = flat.reshape(x.shape[1], k)
        return torch.nn.functional.cross_entropy(x @ w, y, reduction="sum") + w[:-1].square().sum() / 2

    w = torch.zeros(x.shape[1] * k, dtype=torch.float64)
    for _ in range(30):
        gradient = torch.autograd.functional.jacobian(loss, w)
        w = w - torch.linalg.lstsq(torch.autograd.functional.hessian(loss, w), gradient, driver="gelsd").solution
    return w.reshape(x.shape[1], k)


def test_it_is_the_penalised_maximum_likelihood_of_the_other_folds():
    z, y = clouds(per_class=(30, 24, 27), dim=4, spread=4.0)
    evidence = evidence_of(z + 1e4, y)
    found = linear_probe_accuracy(evidence)
    labels = torch.tensor(y)
    seed = derive_seed(0, "linear_probe_accuracy", evidence.fingerprint)
    fold = stratified_folds(labels, torch.arange(len(y)), 5, seed)
    x = torch.tensor(z) - torch.tensor(z).mean(0)
    x = x / x.square().mean().sqrt()
    correct = np.zeros(len(y))
    for number in range(5):
        w = converged_weights(x[fold != number], labels[fold != number])
        test = fold == number
        correct[test.numpy()] = ((x[test] @ w[:-1] + w[-1]).argmax(1) == labels[test]).numpy()
    assert found.value == pytest.approx(np.mean([correct[y == c].mean() for c in range(3)]), abs=1e-15)
    assert 0.4 < found.value < 0.99
    assert found.ci95[0] < found.value < found.ci95[1]


def test_folds_are_stratified_and_drawn_from_the_seed():
    labels = torch.tensor([0] * 13 + [1] * 7 + [2] * 5)
    fold = stratified_folds(labels, torch.arange(25), 5, 3)
    assert torch.bincount(fold).tolist() == [5] * 5
    for c, least in ((0, 2), (1, 1), (2, 1)):
        sizes = torch.bincount(fold[labels == c], minlength=5)
        assert sizes.min() == least
        assert sizes.max() <= least + 1
    assert fold.tolist() == stratified_folds(labels, torch.arange(25), 5, 3).tolist()
    assert fold.tolist() != stratified_folds(labels, torch.arange(25), 5, 4).tolist()


def test_scale_rotation_and_shift_do_not_matter():
    z, y = clouds(spread=3.0)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))[0]
    plain = linear_probe_accuracy(evidence_of(z, y)).value
    for scale, shift in ((1e3, 50.0), (1.0, 1e4), (1e-3, 0.0)):
        assert linear_probe_accuracy(evidence_of(scale * z @ rotation + shift, y)).value == pytest.approx(plain, abs=0.02)
    assert linear_probe_accuracy(evidence_of(torch.tensor(z, dtype=torch.float32), y)).value == pytest.approx(plain, abs=0.02)


def test_noise_is_at_chance_and_separate_classes_are_perfect():
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    assert abs(linear_probe_accuracy(evidence_of(rng.normal(size=(200, 150)), y)).value - 0.5) < 0.12
    z, y = clouds(per_class=(3, 2, 9), spread=0.01)
    assert linear_probe_accuracy(evidence_of(z, y)).value == 1.0


def test_a_solver_that_does_not_converge_gives_its_estimate(monkeypatch):
    monkeypatch.setattr("gcaudit.metrics.linear_probe._ITERATIONS", 2)
    z, y = clouds(spread=3.0)
    assert linear_probe_accuracy(evidence_of(z, y)).value > 0.4


def test_many_images_are_drawn_from(monkeypatch):
    monkeypatch.setattr("gcaudit.metrics.linear_probe._IMAGES", 60)
    z, y = clouds(per_class=(100, 50, 30), spread=4.0)
    found = linear_probe_accuracy(evidence_of(z, y))
    assert found.n == 60
    assert len(found.influence) == 180


def test_reasons():
    z, y = clouds()
    assert "at least 2 classes" in linear_probe_accuracy(evidence_of(z, np.zeros_like(y))).reason
    assert "all embeddings are equal" in linear_probe_accuracy(evidence_of(np.ones_like(z), y)).reason
    assert "class '1' has 1 image" in linear_probe_accuracy(evidence_of(z[:21], y[:21])).reason

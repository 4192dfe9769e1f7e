import numpy as np
import pytest
import torch
from cases import clouds
from sklearn.decomposition import PCA

from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.nleep import main_components, mixture_leep, n_leep


def test_published_values(shared):
    small = np.load(shared / "golden" / "small.npz")
    z, y = torch.tensor(small["features"]), torch.tensor(small["labels"])
    assert mixture_leep(z, y, 5, 5, 123) == pytest.approx(-0.3342059552669525, rel=1e-6)
    assert n_leep(evidence_of(z, y)).value == pytest.approx(-0.36136046051979065, rel=1e-6)


def test_components_hold_the_share_of_the_variance():
    z, y = clouds(dim=12, spread=3.0)
    found = main_components(evidence_of(z + 1e4, y), torch.arange(len(y)), 0.8)
    truth = PCA(0.8, svd_solver="full").fit_transform(z)
    assert found.shape == truth.shape
    assert np.abs(found.numpy()) == pytest.approx(np.abs(truth), abs=1e-8)


def test_shift_precision_and_draw(monkeypatch):
    z, y = clouds(per_class=(50, 40, 60), spread=3.0)
    plain = n_leep(evidence_of(z, y))
    assert -np.log(3) < plain.value < 0
    assert plain.reason.startswith("no standard error")
    assert n_leep(evidence_of(z + 1e4, y)).value == pytest.approx(plain.value, rel=1e-6)
    assert n_leep(evidence_of(torch.tensor(z, dtype=torch.float32), y)).value == pytest.approx(plain.value, rel=1e-3)
    monkeypatch.setattr("gcaudit.metrics.nleep._IMAGES", 90)
    assert n_leep(evidence_of(z, y)).n == 90


def test_reasons():
    z, y = clouds()
    assert "at least 2 classes" in n_leep(evidence_of(z, np.zeros_like(y))).reason
    assert "all embeddings are equal" in n_leep(evidence_of(np.ones_like(z), y)).reason
    assert "15 Gaussians needs as many images, found 12" in n_leep(evidence_of(z[:12], np.arange(12) % 3)).reason
    assert "could not be fitted" in n_leep(evidence_of(1e12 * z, y)).reason

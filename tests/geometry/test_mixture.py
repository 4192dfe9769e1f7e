import warnings

import pytest
import torch
from sklearn.mixture import GaussianMixture

from gcaudit.geometry.mixture import SingularCovarianceError, mixture_probabilities


def blobs(images, dim, classes, spread, scale=1.0):
    """Overlapping clouds of unit variance, less their mean."""
    generator = torch.Generator().manual_seed(images + dim)
    centres = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    z = spread * centres[torch.arange(images) % classes] + torch.randn(images, dim, generator=generator, dtype=torch.float64)
    return scale * (z - z.mean(0))


def twin(z, components, seed):
    """What scikit-learn makes of it, and after how many rounds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = GaussianMixture(components, random_state=seed).fit(z.numpy())
    return torch.from_numpy(model.predict_proba(z.numpy())), model.n_iter_


@pytest.mark.parametrize(
    ("images", "dim", "components", "spread"),
    [(400, 3, 10, 2.0), (500, 2, 6, 0.0), (300, 16, 25, 1.0), (600, 40, 30, 1.0), (200, 100, 20, 1.0), (90, 5, 60, 0.0)],
)
def test_it_is_the_mixture_of_scikit_learn(images, dim, components, spread):
    z = blobs(images, dim, 5, spread)
    found = mixture_probabilities(z, components, 7)
    truth, _ = twin(z, components, 7)
    assert found == pytest.approx(truth, abs=1e-9)


def test_it_goes_through_several_rounds_and_stops_at_the_last():
    z = blobs(400, 3, 5, 2.0)
    truth, rounds = twin(z, 10, 7)
    assert 5 < rounds < 100
    assert ((truth > 0.1) & (truth < 0.9)).any(1).float().mean() > 0.3
    found = mixture_probabilities(z, 10, 7)
    assert found.sum(1) == pytest.approx(torch.ones(400), abs=1e-12)
    assert found == pytest.approx(truth, abs=1e-9)


def test_equal_images_leave_components_empty():
    z = blobs(12, 3, 3, 2.0).repeat(4, 1)
    found = mixture_probabilities(z, 20, 7)
    assert torch.isfinite(found).all()
    assert found[:12] == pytest.approx(found[12:24], abs=1e-9)


@pytest.mark.parametrize(("images", "dim", "components"), [(60, 5, 20), (200, 5, 3)])
def test_a_scale_at_which_the_floor_is_lost(images, dim, components):
    z = blobs(images, dim, 3, 1.0)
    assert torch.isfinite(mixture_probabilities(1e3 * z, components, 7)).all()
    if components == 20:
        with pytest.raises(SingularCovarianceError):
            mixture_probabilities(1e9 * z, components, 7)
    else:
        assert mixture_probabilities(1e9 * z, components, 7) == pytest.approx(
            mixture_probabilities(1e3 * z, components, 7), abs=1e-6
        )

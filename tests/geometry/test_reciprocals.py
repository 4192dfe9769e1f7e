import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from gcaudit.geometry.reciprocals import reciprocal, reciprocal_cube, reciprocal_square

POWERS = ((reciprocal, 1), (reciprocal_square, 2), (reciprocal_cube, 3))


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(("function", "power"), POWERS)
@pytest.mark.parametrize("mean", [1.5, 3.0, 8.0])
def test_the_mean_is_the_power_of_the_reciprocal(function, power, mean, monkeypatch):
    monkeypatch.setattr("gcaudit.geometry.reciprocals.LOWEST", -1e9)
    found, _ = quad(
        lambda x: function(numbers(x), numbers(1.0)).item() * norm.pdf(x, mean), -30, mean + 12, limit=400, points=[0, mean]
    )
    assert found == pytest.approx(mean**-power, rel=1e-6)


@pytest.mark.parametrize(("function", "power"), POWERS)
def test_without_noise_it_is_the_power_itself(function, power):
    assert function(numbers(4.0), numbers(0.0)).item() == pytest.approx(4.0**-power, rel=1e-14)
    assert function(numbers(4.0), numbers(1e-12)).item() == pytest.approx(4.0**-power, rel=1e-10)


@pytest.mark.parametrize(("function", "power"), POWERS)
def test_series_and_closed_form_meet(function, power):
    below, above = (function(numbers(3.0), numbers((3.0 / t) ** 2)).item() for t in (50 - 1e-9, 50 + 1e-9))
    assert below == pytest.approx(above, rel=2e-9)


@pytest.mark.parametrize("found", [-0.7, 0.0, 0.8, 3.0, 90.0])
def test_each_is_the_derivative_of_the_one_before(found):
    x = numbers(found).requires_grad_()
    (first,) = torch.autograd.grad(reciprocal(x, numbers(1.0)).sum(), x)
    (second,) = torch.autograd.grad(reciprocal_square(x, numbers(1.0)).sum(), x)
    assert -first.item() == pytest.approx(reciprocal_square(x, numbers(1.0)).item(), rel=1e-8)
    assert -second.item() / 2 == pytest.approx(reciprocal_cube(x, numbers(1.0)).item(), rel=1e-7)


def test_far_to_the_left_it_is_held():
    held = reciprocal(numbers(-1.0, -5.0, -1e6), numbers(1.0, 1.0, 1.0))
    assert torch.equal(held, held[:1].expand(3))


def test_units_go_along():
    x, v = np.array([0.5, 2.0, 400.0]), np.array([1.0, 0.3, 2.0])
    for function, power in POWERS:
        plain = function(torch.from_numpy(x), torch.from_numpy(v))
        assert torch.allclose(function(torch.from_numpy(x * 8), torch.from_numpy(v * 64)) * 8**power, plain, rtol=1e-12)


def test_nothing_known_of_nothing_has_no_nan():
    x = numbers(0.0).requires_grad_()
    found = reciprocal(x, numbers(0.0))
    (slope,) = torch.autograd.grad(found.sum(), x)
    assert bool(found.isfinite())
    assert bool(slope.isfinite())

"""Nearest points of a convex hull against scipy's general solver, and against cases that can be seen."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from gcaudit.geometry.hull import hull_weights, simplex_projection


def slow(point, corners):
    """Squared distance to the hull."""
    size, scale = len(corners), float(np.abs(np.concatenate([corners, point[None]])).max())
    corners, point = corners / scale, point / scale
    found = minimize(
        lambda w: ((point - w @ corners) ** 2).sum(),
        np.full(size, 1 / size),
        jac=lambda w: -2 * corners @ (point - w @ corners),
        bounds=[(0, 1)] * size,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(size)},
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-14},
    )
    return found.fun * scale**2


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_least_distance(seed):
    rng = np.random.default_rng(seed)
    corners = rng.normal(size=(int(rng.integers(2, 12)), int(rng.integers(1, 20)))) * 10 ** rng.uniform(-2, 2)
    points = rng.normal(size=(5, corners.shape[1])) * 10 ** rng.uniform(-2, 2)
    weights = hull_weights(torch.from_numpy(points), torch.from_numpy(corners)).numpy()
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-12)
    found = ((points - weights @ corners) ** 2).sum(1)
    far = ((points - corners.mean(0)) ** 2).sum(1)
    for one, least, scale in zip(found, [slow(point, corners) for point in points], far, strict=True):
        assert least - 1e-6 * scale <= one <= least + 1e-6 * scale


def test_cases_that_can_be_seen():
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    points = torch.tensor([[0.25, 0.5], [2.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    expected = torch.tensor([[0.25, 0.25, 0.5], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(hull_weights(points, corners), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(hull_weights(points + 1e6, corners + 1e6), expected, rtol=0, atol=1e-3)


def test_equal_corners_weigh_the_same():
    weights = hull_weights(torch.randn(2, 3, dtype=torch.float64), torch.ones(4, 3, dtype=torch.float64))
    assert torch.equal(weights, torch.full((2, 4), 0.25, dtype=torch.float64))


def test_the_projection_is_the_nearest_point_of_the_simplex():
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.normal(size=(20, 6)) * 3)
    found = simplex_projection(values)
    assert bool((found >= 0).all())
    torch.testing.assert_close(found.sum(1), torch.ones(20, dtype=torch.float64))
    for row, point in zip(values.numpy(), found.numpy(), strict=True):
        assert ((row - point) ** 2).sum() == pytest.approx(slow(row, np.eye(6)), rel=1e-6)

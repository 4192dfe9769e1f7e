import math

import numpy as np
import pytest
import torch
from cases import clouds
from reference import jackknife
from scipy.optimize import minimize_scalar

from gcaudit.geometry import rows, spectrum
from gcaudit.metrics.logme import logme
from gcaudit.metrics.measuring import evidence_of


def log_evidence(x, y, alpha, beta):
    """ln p(y | x, alpha, beta) / N with D x D matrices, all D terms of the determinant among them."""
    n, d = x.shape
    a = alpha * np.eye(d) + beta * x.T @ x
    m = beta * np.linalg.solve(a, x.T @ y)
    quadratic = beta * ((y - x @ m) ** 2).sum() + alpha * (m**2).sum()
    return 0.5 * (d * math.log(alpha) + n * math.log(beta / (2 * math.pi)) - np.linalg.slogdet(a)[1] - quadratic) / n


def mackay(x, y, rounds=20000):
    """The fixed point iteration for alpha and beta, from 1 and 1, until it stands."""
    alpha = beta = 1.0
    n, d = x.shape
    gram, moment = x.T @ x, x.T @ y
    for _ in range(rounds):
        a = alpha * np.eye(d) + beta * gram
        m = beta * np.linalg.solve(a, moment)
        gamma = d - alpha * np.trace(np.linalg.inv(a))
        before = alpha / beta
        alpha, beta = gamma / (m**2).sum(), (n - gamma) / ((y - x @ m) ** 2).sum()
        if abs(alpha / beta / before - 1) < 1e-13:
            break
    return log_evidence(x, y, alpha, beta)


def profile(x, y, log_t):
    """The log evidence at the best alpha and beta of one alpha / beta."""
    t, d = math.exp(log_t), x.shape[1]
    m = np.linalg.lstsq(np.r_[x, t**0.5 * np.eye(d)], np.r_[y, np.zeros(d)], rcond=None)[0]
    beta = len(y) / (((y - x @ m) ** 2).sum() + t * (m**2).sum())
    return log_evidence(x, y, t * beta, beta)


def search(x, y, low=-20, high=20):
    """The best of many local searches over alpha / beta."""
    best = max(np.arange(low, high + 0.5), key=lambda log_t: profile(x, y, log_t))
    found = minimize_scalar(
        lambda log_t: -profile(x, y, log_t), bounds=(best - 1, best + 1), method="bounded", options={"xatol": 1e-9}
    )
    return -found.fun


def one_hot(y):
    return np.eye(y.max() + 1)[y].T


def left_out_error(z, y):
    return jackknife(lambda rows: logme(evidence_of(z[rows], y[rows])).value, y)


def test_it_agrees_with_exact_arithmetic(shared):
    data = np.load(shared / "golden" / "small.npz")
    found = logme(evidence_of(data["features"], data["labels"]))
    assert found.value == pytest.approx(-0.05686214278850801, rel=1e-13)
    assert found.n == 300


@pytest.mark.parametrize(("sizes", "dim"), [((20, 15, 30), 7), ((25, 20), 12)])
def test_it_is_the_fixed_point_of_mackay(sizes, dim):
    z, y = clouds(per_class=sizes, dim=dim)
    assert logme(evidence_of(z, y)).value == pytest.approx(np.mean([mackay(z, t) for t in one_hot(y)]), rel=1e-10)


@pytest.mark.parametrize(("sizes", "dim"), [((8, 9), 30), ((6, 7, 5), 18), ((10, 10), 22)])
def test_all_log_terms_count_where_dimensions_outnumber_images(sizes, dim):
    z, y = clouds(per_class=sizes, dim=dim, spread=4.0)
    assert logme(evidence_of(z, y)).value == pytest.approx(np.mean([search(z, t, low=-10) for t in one_hot(y)]), rel=1e-8)


def test_directions_without_data_change_nothing():
    z, y = clouds(spread=4.0)
    wide = np.concatenate((z, np.zeros((len(z), 100))), axis=1)
    assert logme(evidence_of(wide, y)).value == pytest.approx(logme(evidence_of(z, y)).value, rel=1e-13)


def test_labels_that_the_embeddings_fit_have_finite_evidence_where_every_label_would():
    """r = N: p(y) = N(0, X X^T / alpha + I / beta), and here its maximum is at beta = infinity."""
    rng = np.random.default_rng(0)
    x, y = np.linalg.qr(rng.normal(size=(20, 20)))[0] @ np.diag(np.linspace(1, 2, 20)), np.arange(20) % 2
    x = np.concatenate((50 * one_hot(y).T, x), axis=1)
    found = logme(evidence_of(x, y))
    kernel = x @ x.T
    values = []
    for t in one_hot(y):
        alpha = 20 / (t @ np.linalg.solve(kernel, t))
        values.append(0.5 * (20 * math.log(alpha / (2 * math.pi)) - np.linalg.slogdet(kernel)[1] - 20) / 20)
    assert found.value == pytest.approx(np.mean(values), rel=1e-10)
    assert math.isfinite(found.stderr)


def test_embeddings_that_tell_nothing_leave_the_evidence_of_noise():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 30)
    x = rng.normal(size=(60, 4))
    hot = one_hot(y).T
    x -= hot @ np.linalg.lstsq(hot, x, rcond=None)[0]
    found = logme(evidence_of(x, y))
    assert found.value == pytest.approx(-0.5 * (1 + math.log(2 * math.pi * 0.5)), rel=1e-13)
    assert found.stderr is None
    assert "tell nothing of the labels" in found.reason


def test_the_largest_of_two_maxima_is_found_at_any_scale():
    """Large directions hold 30% of the labels and tiny ones 65%: alpha / beta may fit either."""
    y = np.repeat([0, 1], 20)
    rest = np.random.default_rng(1).normal(size=(40, 4))
    basis = np.linalg.qr(np.c_[np.ones(40), 1.0 - 2 * y, rest])[0]
    large = 0.3**0.5 * basis[:, :2] + 0.7**0.5 * basis[:, 2:4]
    tiny = 0.65**0.5 * basis[:, :2] - (0.3 * 0.65 / 0.7) ** 0.5 * basis[:, 2:4] + (0.35 - 0.3 * 0.65 / 0.7) ** 0.5 * basis[:, 4:]
    x = np.c_[large, 1e-6 * tiny]
    near, far = (np.mean([mackay(scale * x, t) for t in one_hot(y)]) for scale in (1.0, 1e6))
    assert near < far - 0.3
    for scale in (1e-6, 1.0, 1e6):
        assert logme(evidence_of(scale * x, y)).value == pytest.approx(far, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-140, 1e-3, 1e120])
def test_scale_and_rotation_do_not_matter(scale):
    z, y = clouds(spread=4.0)
    plain = logme(evidence_of(z, y))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0]
    moved = logme(evidence_of(scale * z @ turn, y))
    assert moved.value == pytest.approx(plain.value, rel=1e-12)
    assert moved.stderr == pytest.approx(plain.stderr, rel=1e-10)


def test_an_offset_of_1e4_is_measured():
    z, y = clouds(spread=4.0)
    z = z + 1e4
    assert logme(evidence_of(z, y)).value == pytest.approx(np.mean([search(z / 1e4, t) for t in one_hot(y)]), rel=1e-7)


def test_chunks_and_float32_rows(monkeypatch):
    z, y = clouds(spread=4.0)
    z = z.astype(np.float32)
    plain = logme(evidence_of(z, y))
    assert plain.value == pytest.approx(logme(evidence_of(z.astype(np.float64), y)).value, rel=1e-14)
    monkeypatch.setattr(rows, "_ROWS", 7)
    monkeypatch.setattr(spectrum, "_KEPT", 0)
    parts = logme(evidence_of(z, y))
    assert parts.value == pytest.approx(plain.value, rel=1e-12)
    assert torch.allclose(parts.influence, plain.influence, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize(("sizes", "dim", "close"), [((60, 40, 80), 6, 0.03), ((70, 90), 60, 0.1)])
def test_the_standard_error_is_that_of_the_jackknife(sizes, dim, close):
    z, y = clouds(per_class=sizes, dim=dim, spread=6.0)
    assert logme(evidence_of(z, y)).stderr == pytest.approx(left_out_error(z, y), rel=close)


@pytest.mark.parametrize("dim", [6, 60, 150])
def test_the_standard_error_is_the_spread_over_draws_or_more(dim):
    rng, y = np.random.default_rng(0), np.arange(100) % 4
    centres = rng.normal(size=(4, dim)) * 0.4
    found = [logme(evidence_of(centres[y] + rng.normal(size=(100, dim)), y)) for _ in range(60)]
    spread, error = np.std([f.value for f in found]), np.mean([f.stderr for f in found])
    assert 0.8 * spread < error < 2.2 * spread


def test_a_class_fitted_without_error_is_a_reason():
    y = np.arange(30) % 3
    found = logme(evidence_of(np.eye(3)[y], y))
    assert found.value is None
    assert "fit class '0' without error" in found.reason
    noise = np.random.default_rng(0).normal(size=(30, 4))
    found = logme(evidence_of(np.c_[(y == 1) * 2.0, noise], y))
    assert "fit class '1' without error" in found.reason


def test_a_fit_with_an_error_of_1e_6_is_none_without():
    y = np.arange(30) % 3
    z = np.eye(3)[y] + 1e-6 * np.random.default_rng(0).normal(size=(30, 3))
    assert logme(evidence_of(z, y)).value > 8


def test_a_class_of_one_image_has_a_value_without_a_standard_error():
    z, y = clouds(per_class=(20, 12, 1), spread=4.0)
    found = logme(evidence_of(z, y))
    assert found.value == pytest.approx(np.mean([search(z, t) for t in one_hot(y)]), rel=1e-8)
    assert found.stderr is None
    assert "single image" in found.reason


@pytest.mark.parametrize(
    ("z", "y", "reason"),
    [
        ([[0.0], [1.0]], [0, 0], "at least 2 classes"),
        ([[0.1]] * 4, [0, 0, 1, 1], "all embeddings are equal"),
        ([[1e200], [-1e200], [2e200], [3e200]], [0, 0, 1, 1], "beyond the range"),
    ],
)
def test_reasons(z, y, reason):
    found = logme(evidence_of(z, y))
    assert found.value is None
    assert reason in found.reason

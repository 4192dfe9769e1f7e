import math

import mpmath
import numpy as np
import pytest
import torch
from cases import clouds
from scipy.linalg import eigh
from scipy.special import softmax

from gcaudit.geometry import rows
from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.sfda import _power, sfda


def scatters(z, y):
    groups = [z[y == c] for c in range(y.max() + 1)]
    inner = sum(len(g) / len(y) * np.cov(g.T, ddof=0) for g in groups)
    return inner, np.cov(z.T, ddof=0), np.array([g.mean(0) for g in groups])


def shrink(matrix, e):
    return (1 - e) * matrix + e * np.trace(matrix) / len(matrix) * np.eye(len(matrix))


def posterior(z, y, e):
    """By the generalised eigenproblem of between and within, all eigenvectors kept."""
    inner, total, means = scatters(z, y)
    inner, total = shrink(inner, e), shrink(total, e)
    vectors = eigh(total - inner, inner)[1]
    x, m = z @ vectors, means @ vectors
    return softmax(x @ m.T - 0.5 * (m**2).sum(1) + np.log(np.bincount(y) / len(y)), axis=1), means


def lambda_of(matrix):
    x = matrix.sum(1)
    for _ in range(3):
        y = matrix @ x / np.linalg.norm(matrix @ x)
        x = matrix @ y / np.linalg.norm(matrix @ y)
    return x @ matrix @ y


def twin(z, y):
    z = z - z.mean(0)
    e = max(math.exp(-5 * lambda_of(scatters(z, y)[0])), 1e-10)
    first, means = posterior(z, y, e)
    mixed = []
    for image, own, p in zip(z, y, first, strict=True):
        q = softmax(p)[own]
        others = np.mean([m for c, m in enumerate(means) if c != own], axis=0)
        mixed.append(q * image + (1 - q) * others)
    return posterior(np.array(mixed), y, e)[0][np.arange(len(y)), y]


def exact(z, y):
    """The same with 50 digits; the power steps alone are in float64."""
    e = max(math.exp(-5 * lambda_of(scatters(z, y)[0])), 1e-10)
    classes, n = range(y.max() + 1), len(y)

    def fit(rows):
        groups = [[x for x, c in zip(rows, y, strict=True) if c == k] for k in classes]
        means = [sum(g[1:], g[0]) / len(g) for g in groups]
        inner = sum(((x - means[c]).T * (x - means[c]) for x, c in zip(rows, y, strict=True)), mpmath.zeros(z.shape[1])) / n
        trace = sum(inner[i, i] for i in range(z.shape[1])) / z.shape[1]
        inverse = ((1 - e) * inner + e * trace * mpmath.eye(z.shape[1])) ** -1
        towards = [inverse * m.T for m in means]
        rest = [mpmath.log(mpmath.mpf(len(g)) / n) - (m * t)[0] / 2 for g, m, t in zip(groups, means, towards, strict=True)]
        return means, [soft([(x * t)[0] + r for t, r in zip(towards, rest, strict=True)]) for x in rows]

    def soft(values):
        powers = [mpmath.exp(v - max(values)) for v in values]
        return [p / sum(powers) for p in powers]

    with mpmath.workdps(50):
        rows = [mpmath.matrix([row.tolist()]) for row in z]
        means, first = fit(rows)
        mixed = []
        for x, c, p in zip(rows, y, first, strict=True):
            q, others = soft(p)[c], [m for k, m in enumerate(means) if k != c]
            mixed.append(q * x + (1 - q) * sum(others[1:], others[0]) / len(others))
        return float(sum(p[c] for p, c in zip(fit(mixed)[1], y, strict=True)) / n)


def near(seed=0, spread=6.0, **options):
    """Classes that overlap."""
    z, y = clouds(seed=seed, spread=spread, **options)
    return z / 3, y


def test_it_agrees_with_the_published_code(shared):
    data = np.load(shared / "golden" / "small.npz")
    found = sfda(evidence_of(data["features"], data["labels"]))
    assert found.value == pytest.approx(0.8703722347700885, rel=1e-12)
    assert found.n == 300


@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0, 10.0])
def test_it_equals_its_definition_at_each_shrinkage(scale):
    z, y = near()
    found = sfda(evidence_of(scale * z, y))
    assert found.value == pytest.approx(twin(scale * z, y).mean(), rel=1e-9)


@pytest.mark.parametrize("size", [0.0, 1e6])
def test_small_directions_keep_their_digits_beside_a_large_one(size):
    """With the matrix Sw' formed, the value is wrong in its eighth digit here, and more with more dimensions."""
    rng = np.random.default_rng(0)
    z, y = clouds(per_class=(20, 15, 25), dim=8, spread=6.0)
    z = z + size * rng.normal(size=(60, 1)) @ rng.normal(size=(1, 8))
    assert sfda(evidence_of(z, y)).value == pytest.approx(exact(z, y), rel=1e-9)


@pytest.mark.parametrize(("sizes", "dim"), [((20, 30), 4), ((12, 9, 14, 8, 10), 20)])
def test_it_equals_its_definition_at_each_shape(sizes, dim):
    z, y = near(per_class=sizes, dim=dim)
    assert sfda(evidence_of(z, y)).value == pytest.approx(twin(z, y).mean(), rel=1e-9)


def test_the_standard_error_is_that_of_a_stratified_mean():
    z, y = near(per_class=(60, 40, 80))
    own = twin(z, y)
    truth = sum(((y == c).sum() / len(y)) ** 2 * own[y == c].var(ddof=1) / (y == c).sum() for c in range(3)) ** 0.5
    assert sfda(evidence_of(z, y)).stderr == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("scale", [1.0, 1e100])
def test_scale_rotation_and_shift_do_not_matter_where_the_shrinkage_is_at_its_floor(scale):
    z, y = near(spread=30.0)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0]
    moved = sfda(evidence_of(scale * (z @ turn + 3), y))
    assert moved.value == pytest.approx(sfda(evidence_of(z, y)).value, rel=1e-9)


def test_small_embeddings_give_the_score_of_a_round_covariance():
    z, y = near()
    tiny = sfda(evidence_of(1e-150 * z, y)).value
    assert tiny == pytest.approx(twin(1e-6 * z, y).mean(), rel=1e-6)


def test_an_offset_of_1e4_costs_no_digits_that_matter():
    z, y = near()
    plain, moved = sfda(evidence_of(z, y)), sfda(evidence_of(z + 1e4, y))
    assert moved.value == pytest.approx(plain.value, rel=1e-9)
    assert moved.stderr == pytest.approx(plain.stderr, rel=1e-9)


def test_chunks_and_float32_rows(monkeypatch):
    z, y = near()
    plain = sfda(evidence_of(z.astype(np.float32), y))
    assert plain.value == pytest.approx(twin(z.astype(np.float32).astype(np.float64), y).mean(), rel=1e-9)
    monkeypatch.setattr(rows, "_ROWS", 7)
    parts = sfda(evidence_of(z.astype(np.float32), y))
    assert parts.value == pytest.approx(plain.value, rel=1e-12)
    assert torch.allclose(parts.influence, plain.influence, rtol=1e-9, atol=1e-14)


def test_coordinates_with_a_constant_sum_have_a_shrinkage():
    z, y = near()
    z = z - z.mean(1, keepdims=True)
    within = torch.from_numpy(scatters(z, y)[0])
    assert _power(within) == pytest.approx(float(torch.linalg.eigvalsh(within)[-1]), rel=1e-12)
    assert 0 < sfda(evidence_of(z, y)).value < 1


def test_a_class_of_one_image_has_a_value_without_a_standard_error():
    z, y = near(per_class=(20, 15, 1))
    found = sfda(evidence_of(z, y))
    assert 0 < found.value < 1
    assert found.stderr is None
    assert "single image" in found.reason


@pytest.mark.parametrize(
    ("z", "y", "reason"),
    [
        ([[0.0], [1.0], [2.0]], [0, 0, 0], "at least 2 classes"),
        ([[0.1]] * 4, [0, 0, 1, 1], "all embeddings are equal"),
        ([[1 / 3], [1 / 3], [1e3], [1e3]], [0, 0, 1, 1], "embeddings of each class are equal"),
        ([[0.0, 1.0], [1.0, 2.0], [3.0, 1.0]], [0, 1, 1], "2 dimensions separate 3 images"),
        ([[0.0], [1e-3], [100.0], [100.001]], [0, 0, 1, 1], "1 to rounding"),
        ([[1e200], [-1e200], [2e200], [3e200]], [0, 0, 1, 1], "beyond the range"),
    ],
)
def test_reasons(z, y, reason):
    found = sfda(evidence_of(z, y))
    assert found.value is None
    assert reason in found.reason

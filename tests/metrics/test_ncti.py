import math

import numpy as np
import pytest
import torch
from cases import clouds
from reference import weight_jackknife
from scipy.linalg import eigh
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from gcaudit.geometry import rows
from gcaudit.metrics import ncti
from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.ncti import ncti_ncc, ncti_seli, ncti_vc

ALL = (ncti_seli, ncti_ncc, ncti_vc)


def components(z):
    z = np.asarray(z, dtype=np.float64)
    left, values, _ = np.linalg.svd(z - z.mean(0), full_matrices=False)
    return (left * values)[:, :64][:, values[:64] > 1e-10 * values[0]]


def posterior(x, y, inverse):
    means = np.array([x[y == c].mean(0) for c in range(y.max() + 1)])
    return softmax(x @ inverse @ means.T - 0.5 * np.diag(means @ inverse @ means.T) + np.log(np.bincount(y) / len(y)), axis=1)


def as_it_is(x, y):
    """(seli, probabilities) by the pseudo-inverse of standardised components' covariance within classes."""
    means = np.array([x[y == c].mean(0) for c in range(y.max() + 1)])[y]
    inside = x - means
    spread = inside.std(0)
    inverse = np.linalg.pinv(np.cov((inside / spread).T, ddof=0).reshape(x.shape[1], -1), rcond=1e-8) / np.outer(spread, spread)
    ratios = np.sort(np.linalg.eigvals(inverse @ means.T @ means / len(y)).real)[::-1][: min(y.max(), x.shape[1])]
    return math.sqrt(len(y)) * np.sqrt(1 + ratios).sum(), posterior(x, y, inverse)


def shrunk(z, y, s):
    """The same by scikit-learn."""
    x = PCA(min(64, z.shape[1], len(z)), svd_solver="full").fit_transform(z)
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage=s).fit(x, y)
    projected = lda.transform(x)
    return np.linalg.norm(projected - projected.mean(0), "nuc"), lda.predict_proba(x)


def twins(z, y):
    """(seli, ncc, vc)."""
    x = components(z)
    s = math.exp(-x[:, :32].var(0, ddof=1).sum())
    value, p = as_it_is(x, y) if s <= 1e-10 else shrunk(z, y, s)
    return value, p[np.arange(len(y)), y].mean(), math.log(sum(np.linalg.norm(p[y == c], "nuc") for c in range(y.max() + 1)))


def seli(z, y, weights=None):
    """By generalised eigenvalues of total and within covariances, with weights of images."""
    w = np.ones(len(y)) / len(y) if weights is None else weights
    mean = [np.average(z[y == c], axis=0, weights=w[y == c]) for c in range(y.max() + 1)]
    inside, centred = z - np.array(mean)[y], z - w @ z
    values = eigh((centred.T * w) @ centred, (inside.T * w) @ inside, eigvals_only=True)
    return math.sqrt(len(y)) * np.sqrt(values[::-1][: y.max()]).sum()


def near(**options):
    return clouds(spread=5.0, **options)


def test_they_agree_with_the_published_code(shared):
    data = np.load(shared / "golden" / "small.npz")
    evidence = evidence_of(data["features"], data["labels"])
    for function, truth in zip(ALL, (152.79128876669444, 0.9815430064190164, 3.7242338837950664), strict=True):
        assert function(evidence).value == pytest.approx(truth, rel=1e-12)
        assert function(evidence).n == 300


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.02, 1e-4])
@pytest.mark.parametrize(
    ("sizes", "dim"), [((20, 15, 30), 7), ((30, 25), 5), ((12, 9, 14, 8, 10), 3), ((50, 40, 45), 80), ((12, 9, 10), 40)]
)
def test_they_equal_their_definitions(scale, sizes, dim):
    z, y = near(per_class=sizes, dim=dim)
    evidence = evidence_of(scale * z, y)
    for function, truth in zip(ALL, twins(scale * z, y), strict=True):
        found = function(evidence)
        if truth < 1 - 1e-12 or function is not ncti_ncc:
            assert found.value == pytest.approx(truth, rel=1e-7), function.__name__


def test_shrinkage_is_that_of_the_first_32_of_64_components():
    z, y = clouds(per_class=(200, 230), dim=80, spread=20.0)
    z = 0.02 * z
    variances = np.sort(np.linalg.eigvalsh(np.cov(z.T)))[::-1]
    assert 1e-10 < math.exp(-variances[:32].sum()) < 0.5
    assert ncti_ncc(evidence_of(z, y)).value == pytest.approx(twins(z, y)[1], rel=1e-9)


@pytest.mark.parametrize(("sizes", "dim"), [((70, 60, 80), 5), ((150, 90), 6), ((60, 70, 50, 80), 2)])
def test_the_standard_error_of_seli_is_that_of_the_jackknife(sizes, dim):
    z, y = near(per_class=sizes, dim=dim)
    found = ncti_seli(evidence_of(z, y))
    assert found.value == pytest.approx(seli(z, y), rel=1e-10)
    assert found.stderr == pytest.approx(weight_jackknife(lambda w: seli(z, y, w), y), rel=0.1)


def test_the_standard_errors_given_the_fit_are_those_of_the_jackknife():
    z, y = near(per_class=(280, 240, 320))
    p = as_it_is(components(z), y)[1]

    def spread(w):
        return math.log(sum(np.linalg.norm(p[y == c] * np.sqrt(len(y) * w[y == c])[:, None], "nuc") for c in range(3)))

    evidence, own = evidence_of(z, y), p[np.arange(len(y)), y]
    assert ncti_ncc(evidence).stderr == pytest.approx(weight_jackknife(lambda w: w @ own, y), rel=1e-9)
    assert ncti_vc(evidence).stderr == pytest.approx(weight_jackknife(spread, y), rel=0.02)


@pytest.mark.parametrize("function", ALL)
def test_scale_rotation_and_shift_do_not_matter_without_shrinkage(function):
    z, y = near()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0]
    plain, moved = function(evidence_of(z, y)), function(evidence_of(1e100 * (z @ turn + 3), y))
    assert moved.value == pytest.approx(plain.value, rel=1e-9)
    assert moved.stderr == pytest.approx(plain.stderr, rel=1e-8)


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_an_offset_of_1e4_costs_no_digits_that_matter(function, scale):
    z, y = near()
    plain, moved = function(evidence_of(scale * z, y)), function(evidence_of(scale * z + 1e4, y))
    assert moved.value == pytest.approx(plain.value, rel=1e-8)


@pytest.mark.parametrize("function", ALL)
def test_chunks_and_float32_rows(function, monkeypatch):
    z, y = near()
    order = np.random.default_rng(0).permutation(len(y))
    z, y = z[order].astype(np.float32), y[order]
    plain = function(evidence_of(z, y))
    assert plain.value == pytest.approx(twins(z, y)[ALL.index(function)], rel=1e-9)
    monkeypatch.setattr(rows, "_ROWS", 7)
    monkeypatch.setattr(ncti, "_ROWS", 7)
    parts = function(evidence_of(z, y))
    assert parts.value == pytest.approx(plain.value, rel=1e-12)
    assert torch.allclose(parts.influence, plain.influence, rtol=1e-8, atol=1e-13)


def test_shrinkage_takes_the_standard_error_of_seli():
    z, y = near()
    found = ncti_seli(evidence_of(0.02 * z, y))
    assert found.stderr is None
    assert "shrunk" in found.reason


@pytest.mark.parametrize("function", ALL)
def test_a_class_of_one_image_has_a_value_without_a_standard_error(function):
    z, y = near(per_class=(20, 15, 1))
    found = function(evidence_of(z, y))
    assert found.value == pytest.approx(twins(z, y)[ALL.index(function)], rel=1e-9)
    assert found.stderr is None
    assert "single image" in found.reason


def test_probabilities_of_1_rank_no_model():
    z, y = clouds(spread=1e-3)
    found = ncti_ncc(evidence_of(z, y))
    assert found.value is None
    assert "1 to rounding" in found.reason
    assert ncti_vc(evidence_of(z, y)).value == pytest.approx(math.log(sum(math.sqrt(n) for n in (20, 15, 30))), rel=1e-12)


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize(
    ("z", "y", "reason"),
    [
        ([[0.0], [1.0], [2.0]], [0, 0, 0], "at least 2 classes"),
        ([[0.1]] * 4, [0, 0, 1, 1], "all embeddings are equal"),
        ([[1 / 3], [1 / 3], [1e3], [1e3]], [0, 0, 1, 1], "no variance within classes"),
        ([[1 / 3], [1 / 3], [0.5], [0.5]], [0, 0, 1, 1], "no variance within classes"),
        ([[1e3], [1 / 3]], [0, 1], "nothing varies within classes"),
        ([[1 / 3 + 1e3], [1e3], [1e3], [1 / 3 + 1e3]], [0, 0, 1, 1], "class means are equal"),
        ([[1e200], [-1e200], [2e200], [3e200]], [0, 0, 1, 1], "beyond the range"),
    ],
)
def test_reasons(function, z, y, reason):
    found = function(evidence_of(z, y))
    assert found.value is None
    assert reason in found.reason

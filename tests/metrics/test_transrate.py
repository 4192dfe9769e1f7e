import numpy as np
import pytest
import torch
from cases import clouds
from reference import jackknife

from gcaudit.geometry import rows, spectrum
from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.transrate import trans_rate


def rate(z):
    return 0.5 * np.linalg.slogdet(np.eye(z.shape[1]) + z.T @ z / (len(z) * 1e-4))[1]


def twin(z, y, balanced=False):
    z = z - z.mean(0)
    classes, counts = np.unique(y, return_counts=True)
    weights = np.full(len(classes), 1 / len(classes)) if balanced else counts / len(y)
    return rate(z) - sum(w * rate(z[y == c]) for w, c in zip(weights, classes, strict=True))


def left_out_error(z, y, balanced=False):
    return jackknife(lambda rows: twin(z[rows], y[rows], balanced), y)


@pytest.mark.parametrize(("balanced", "golden"), [(False, 2.672729457566348), (True, 3.1192760479211756)])
def test_it_agrees_with_both_published_codes(shared, balanced, golden):
    data = np.load(shared / "golden" / "small.npz")
    found = trans_rate(evidence_of(data["features"], data["labels"]), balanced=balanced)
    assert found.value == pytest.approx(golden, rel=1e-12)
    assert found.n == 300


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(("sizes", "dim"), [((20, 15, 30), 7), ((9, 30, 12), 12), ((9, 8), 40), ((40, 9), 1), ((12, 12), 12)])
def test_it_equals_its_definition(sizes, dim, balanced):
    z, y = clouds(per_class=sizes, dim=dim)
    assert trans_rate(evidence_of(z, y), balanced).value == pytest.approx(twin(z, y, balanced), rel=1e-10)


def test_by_hand():
    found = trans_rate(evidence_of([[-6.0], [-4.0], [4.0], [6.0]], [0, 0, 1, 1]))
    # sum of squares 104 of 4 images; 52 of the 2 images of each class, which are not centred again: the same share
    assert found.value == pytest.approx(0, abs=1e-14)
    found = trans_rate(evidence_of([[-6.0, 0.0], [-6.0, 0.0], [6.0, 3.0], [6.0, -3.0]], [0, 0, 1, 1]))
    of_all = np.log(1 + 144 / 4e-4) + np.log(1 + 18 / 4e-4)
    of_classes = np.log(1 + 72 / 2e-4) + 0.5 * np.log(1 + 18 / 2e-4)
    assert found.value == pytest.approx(0.5 * (of_all - of_classes), rel=1e-13)


@pytest.mark.parametrize(("sizes", "dim", "close"), [((60, 40, 80), 6, 0.05), ((60, 80), 70, 0.1), ((15, 12, 20), 80, 0.1)])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_standard_error_is_that_of_the_jackknife(sizes, dim, close, balanced):
    z, y = clouds(per_class=sizes, dim=dim, spread=4.0)
    z = z / np.arange(1, dim + 1) ** 0.5
    assert trans_rate(evidence_of(z, y), balanced).stderr == pytest.approx(left_out_error(z, y, balanced), rel=close)


def test_the_influence_is_nearly_the_derivative_by_weight_where_images_are_many():
    """The images are so many that what is left of an image's leverage above first order is small."""
    z, y = clouds(per_class=(2500, 2000), dim=2, spread=3.0)
    found = trans_rate(evidence_of(z, y)).influence.numpy()
    n, step = len(y), 1e-6

    def weighted(w):
        x = z - w @ z
        total = 0.5 * np.linalg.slogdet(np.eye(2) + (x * w[:, None]).T @ x / 1e-4)[1]
        for c in (0, 1):
            part = w[y == c] / w[y == c].sum()
            total -= w[y == c].sum() * 0.5 * np.linalg.slogdet(np.eye(2) + (x[y == c] * part[:, None]).T @ x[y == c] / 1e-4)[1]
        return total

    slopes = np.empty(n)
    for image in range(0, n, 100):
        group = np.flatnonzero(y == y[image])
        move = -np.ones(n) * (y == y[image]) / len(group)
        move[image] += 1
        slopes[image] = (weighted(1 / n + step * move) - weighted(1 / n - step * move)) / (2 * step) / n
    assert found[::100] == pytest.approx(slopes[::100], abs=0.05 * np.abs(slopes[::100]).max())


@pytest.mark.parametrize("dim", [6, 40, 150])
def test_the_standard_error_is_no_smaller_than_the_spread_over_draws(dim):
    rng, y = np.random.default_rng(0), np.arange(100) % 4
    centres = rng.normal(size=(4, dim)) * 0.5
    found = [trans_rate(evidence_of(centres[y] + rng.normal(size=(100, dim)), y)) for _ in range(60)]
    spread, error = np.std([f.value for f in found]), np.mean([f.stderr for f in found])
    assert 0.9 * spread < error < 2.5 * spread


def test_rotation_and_shift_do_not_matter():
    z, y = clouds()
    plain = trans_rate(evidence_of(z, y))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0]
    moved = trans_rate(evidence_of(z @ turn + 5, y))
    assert moved.value == pytest.approx(plain.value, rel=1e-11)
    assert moved.stderr == pytest.approx(plain.stderr, rel=1e-9)


@pytest.mark.parametrize("dim", [7, 40])
def test_an_offset_of_1e4_costs_no_digits_that_matter(dim):
    z, y = clouds(dim=dim)
    plain, moved = trans_rate(evidence_of(z, y)), trans_rate(evidence_of(z + 1e4, y))
    assert moved.value == pytest.approx(plain.value, rel=1e-8)
    assert moved.stderr == pytest.approx(plain.stderr, rel=1e-6)


@pytest.mark.parametrize("dim", [7, 40])
def test_large_embeddings_keep_the_small_directions(dim):
    """One direction is 1e9 times the others, whose part of I + A^T A would be lost in its rounding."""
    z, y = clouds(dim=dim)
    z[:, 0] *= 1e9
    big, small = z.copy(), z.copy()
    big[:, 1:] = 0
    small[:, 0] = 0
    parts = [rate(big - big.mean(0)), rate(small - small.mean(0))]
    assert trans_rate(evidence_of(z, y)).value == pytest.approx(exact(z, y), rel=1e-6)
    assert min(parts) > 1


def exact(z, y):
    """By singular values of each matrix."""

    def of(x):
        return 0.5 * np.log1p(np.linalg.svd(x, compute_uv=False) ** 2 / (len(x) * 1e-4)).sum()

    x = z - z.mean(0)
    return of(x) - sum((y == c).mean() * of(x[y == c]) for c in set(y.tolist()))


@pytest.mark.parametrize("dim", [7, 40])
def test_chunks_and_float32_rows(dim, monkeypatch):
    z, y = clouds(dim=dim)
    z = z.astype(np.float32)
    plain = trans_rate(evidence_of(z, y))
    assert plain.value == pytest.approx(twin(z.astype(np.float64), y), rel=1e-10)
    monkeypatch.setattr(rows, "_ROWS", 7)
    monkeypatch.setattr(spectrum, "_KEPT", 0)
    parts = trans_rate(evidence_of(z, y))
    assert parts.value == pytest.approx(plain.value, rel=1e-12)
    assert torch.allclose(parts.influence, plain.influence, rtol=1e-6, atol=1e-11)


def test_a_class_of_one_image_has_a_value_without_a_standard_error():
    z, y = clouds(per_class=(20, 14, 1))
    found = trans_rate(evidence_of(z, y))
    assert found.value == pytest.approx(twin(z, y), rel=1e-10)
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
    found = trans_rate(evidence_of(z, y))
    assert found.value is None
    assert reason in found.reason


def test_embeddings_that_vanish_beside_the_distortion():
    z, y = clouds()
    assert trans_rate(evidence_of(1e-3 * z, y)).value == pytest.approx(twin(1e-3 * z, y), rel=1e-9)
    found = trans_rate(evidence_of(1e-6 * z, y))
    assert found.value is None
    assert "too small beside the distortion" in found.reason

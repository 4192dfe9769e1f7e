import numpy as np
import pytest
import torch
from cases import clouds
from reference import jackknife
from sklearn.covariance import ledoit_wolf

from gcaudit.geometry import rows, spectrum
from gcaudit.metrics.hscore import h_score, h_score_regularized, shrinkage
from gcaudit.metrics.measuring import evidence_of

BOTH = pytest.mark.parametrize("score", [h_score, h_score_regularized])


def between(z, y):
    g = np.array([z[y == label].mean(0) for label in y])
    return np.cov(g.T, ddof=1).reshape(z.shape[1], z.shape[1])


def twin(z, y):
    """Covariances as written, both divided by N - 1."""
    z = z - z.mean(0)
    return np.trace(np.linalg.pinv(np.cov(z.T).reshape(z.shape[1], -1), rcond=1e-12) @ between(z, y))


def regularized_twin(z, y):
    z = z - z.mean(0)
    covariance, a = ledoit_wolf(z)
    return np.trace(np.linalg.inv(covariance) @ between(z, y)) * (1 - a)


TWINS = {h_score: twin, h_score_regularized: regularized_twin}


def left_out_error(score, z, y):
    return jackknife(lambda rows: TWINS[score](z[rows], y[rows]), y)


def test_they_agree_with_exact_arithmetic_and_the_published_code(shared):
    data = np.load(shared / "golden" / "small.npz")
    evidence = evidence_of(data["features"], data["labels"])
    assert h_score(evidence).value == pytest.approx(2.834032772204492, rel=1e-13)
    assert h_score_regularized(evidence).value == pytest.approx(2.5816203641158983, rel=1e-12)
    assert h_score(evidence).n == 300


@BOTH
@pytest.mark.parametrize(("sizes", "dim"), [((20, 15, 30), 7), ((40, 9), 1), ((12, 9, 8, 5), 20)])
def test_they_equal_their_definitions(score, sizes, dim):
    z, y = clouds(per_class=sizes, dim=dim)
    assert score(evidence_of(z, y)).value == pytest.approx(TWINS[score](z, y), rel=1e-10)


def test_the_regularised_score_needs_no_more_images_than_dimensions():
    z, y = clouds(per_class=(9, 12), dim=60)
    found = h_score_regularized(evidence_of(z, y))
    assert found.value == pytest.approx(regularized_twin(z, y), rel=1e-10)
    assert found.stderr > 0


def test_by_hand():
    # the means are 0 and 10, variances 1 within and 25 between: 25 / 26
    evidence = evidence_of([[-1.0], [1.0], [9.0], [11.0]], [0, 0, 1, 1])
    assert h_score(evidence).value == pytest.approx(25 / 26, rel=1e-14)
    assert h_score_regularized(evidence).value == pytest.approx(25 / 26 * 4 / 3, rel=1e-14)


@pytest.mark.parametrize(("sizes", "dim"), [((20, 15, 30), 7), ((9, 12), 60), ((12, 9, 8, 5), 20), ((5, 6), 2)])
def test_the_shrinkage_is_that_of_ledoit_and_wolf(sizes, dim):
    z, y = clouds(per_class=sizes, dim=dim)
    for shift in (0.0, 100.0):
        assert shrinkage(evidence_of(z + shift, y))[0] == pytest.approx(ledoit_wolf(z)[1], rel=1e-9)


def test_the_derivative_of_the_shrinkage():
    """Doubling an image is nearly a derivative by its weight where images are many."""
    z, y = clouds(per_class=(60, 40), dim=4)
    a, (by_intensity, by_trace) = shrinkage(evidence_of(z, y))
    n = len(y)

    def weighted(w):
        w = w / w.sum()
        x = z - w @ z
        s = (x * w[:, None]).T @ x
        fourth = w @ (x**2).sum(1) ** 2
        spread = (s**2).sum() - np.trace(s) ** 2 / 4
        return (fourth - (s**2).sum()) / n / spread, np.trace(s)

    largest, step = np.linalg.eigvalsh(np.cov(z.T, ddof=0))[-1], 1e-6
    assert weighted(np.ones(n))[0] == pytest.approx(a, rel=1e-10)
    slopes = []
    for i in (0, 30, 70):
        w = np.ones(n) / n
        w[i] += step
        up, w[i] = weighted(w), w[i] - 2 * step
        down = weighted(w)
        slopes.append([(up[0] - down[0]) / (2 * step), (up[1] - down[1]) / (2 * step) / largest])
    found = torch.stack((by_intensity, by_trace), 1)[[0, 30, 70]].numpy()
    # weights that are not divided by their sum add a constant, which the influence is free of
    assert np.diff(found, axis=0) == pytest.approx(np.diff(np.array(slopes), axis=0), rel=1e-5)


@pytest.mark.parametrize(("sizes", "dim"), [((60, 40, 80), 6), ((20, 15, 30), 40)])
def test_the_standard_error_is_exactly_that_of_the_jackknife(sizes, dim):
    z, y = clouds(per_class=sizes, dim=dim, spread=6.0)
    assert h_score(evidence_of(z, y)).stderr == pytest.approx(left_out_error(h_score, z, y), rel=1e-9)


@pytest.mark.parametrize(("sizes", "dim", "close"), [((60, 40, 80), 6, 0.05), ((50, 45, 60), 40, 0.1)])
def test_the_regularised_standard_error_is_that_of_the_jackknife(sizes, dim, close):
    z, y = clouds(per_class=sizes, dim=dim, spread=6.0)
    assert h_score_regularized(evidence_of(z, y)).stderr == pytest.approx(left_out_error(h_score_regularized, z, y), rel=close)


@BOTH
@pytest.mark.parametrize("dim", [6, 60])
def test_the_standard_error_is_the_spread_over_draws_or_more(score, dim):
    """Noise of equal variance in all directions: the shrinkage itself is most of the regularised score's noise."""
    rng, y = np.random.default_rng(0), np.arange(100) % 4
    centres = rng.normal(size=(4, dim)) * (1.5 if dim == 6 else 0.5)
    found = [score(evidence_of(centres[y] + rng.normal(size=(100, dim)), y)) for _ in range(60)]
    spread, error = np.std([f.value for f in found]), np.mean([f.stderr for f in found])
    assert 0.8 * spread < error < 2.5 * spread


def test_an_image_with_a_direction_to_itself_takes_nothing_with_it():
    z, y = clouds(spread=6.0)
    z = np.c_[z, np.eye(len(z))[:, :1]]
    found = h_score(evidence_of(z, y))
    assert found.value == pytest.approx(twin(z, y), rel=1e-10)
    assert found.stderr == pytest.approx(left_out_error(h_score, z, y), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-140, 1e-3, 1e120])
@BOTH
def test_scale_rotation_and_shift_do_not_matter(score, scale):
    z, y = clouds()
    plain = score(evidence_of(z, y))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0]
    moved = score(evidence_of(scale * (z @ turn + 5), y))
    assert moved.value == pytest.approx(plain.value, rel=1e-11)
    assert moved.stderr == pytest.approx(plain.stderr, rel=1e-9)


def test_no_invertible_map_changes_the_h_score():
    z, y = clouds()
    turn = np.random.default_rng(1).normal(size=(7, 7)) * 10.0 ** np.arange(-3, 4)
    assert h_score(evidence_of(z @ turn, y)).value == pytest.approx(h_score(evidence_of(z, y)).value, rel=1e-9)


@BOTH
def test_an_offset_of_1e4_costs_no_digits_that_matter(score):
    z, y = clouds()
    plain, moved = score(evidence_of(z, y)), score(evidence_of(z + 1e4, y))
    assert moved.value == pytest.approx(plain.value, rel=1e-9)
    assert moved.stderr == pytest.approx(plain.stderr, rel=1e-9)


@BOTH
def test_chunks_and_float32_rows(score, monkeypatch):
    z, y = clouds()
    z = z.astype(np.float32)
    plain = score(evidence_of(z, y))
    assert plain.value == pytest.approx(TWINS[score](z.astype(np.float64), y), rel=1e-10)
    monkeypatch.setattr(rows, "_ROWS", 7)
    monkeypatch.setattr(spectrum, "_KEPT", 0)
    parts = score(evidence_of(z, y))
    assert parts.value == pytest.approx(plain.value, rel=1e-12)
    assert torch.allclose(parts.influence, plain.influence, rtol=1e-8, atol=1e-13)


def test_full_collapse_scores_one_less_than_the_classes():
    y = np.arange(30) % 3
    found = h_score(evidence_of(np.eye(3)[y], y))
    assert found.value == pytest.approx(2, rel=1e-13)
    assert found.stderr == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dim", [20, 21, 50])
def test_as_many_directions_as_images_are_a_reason(dim):
    z, y = clouds(per_class=(9, 12), dim=dim)
    found = h_score(evidence_of(z, y))
    assert found.value is None
    assert "20 independent directions fit any labels of 21 images: the score is 1" in found.reason


def test_many_dimensions_of_few_directions_are_measured():
    z, y = clouds(per_class=(9, 12), dim=5)
    wide = z @ np.random.default_rng(0).normal(size=(5, 40))
    assert h_score(evidence_of(wide, y)).value == pytest.approx(twin(z, y), rel=1e-9)


def test_a_covariance_that_is_shrunk_away_is_a_reason():
    z = np.random.default_rng(1).normal(size=(30, 20))
    assert ledoit_wolf(z)[1] == 1
    found = h_score_regularized(evidence_of(z, np.arange(30) % 2))
    assert found.value is None
    assert "multiple of the identity" in found.reason


@BOTH
def test_a_class_of_one_image_has_a_value_without_a_standard_error(score):
    z, y = clouds(per_class=(20, 14, 1))
    found = score(evidence_of(z, y))
    assert found.value == pytest.approx(TWINS[score](z, y), rel=1e-10)
    assert found.stderr is None
    assert "single image" in found.reason


@BOTH
@pytest.mark.parametrize(
    ("z", "y", "reason"),
    [
        ([[0.0], [1.0]], [0, 0], "at least 2 classes"),
        ([[0.1]] * 4, [0, 0, 1, 1], "all embeddings are equal"),
        ([[1e200], [-1e200], [2e200], [3e200]], [0, 0, 1, 1], "beyond the range"),
    ],
)
def test_reasons(score, z, y, reason):
    found = score(evidence_of(z, y))
    assert found.value is None
    assert reason in found.reason


def test_rounding_does_not_lift_collapsed_classes_above_the_bound():
    y = np.arange(40) % 4
    assert h_score(evidence_of(np.eye(4)[y] - 0.25, y)).value == 3.0


def test_a_repeated_row_does_not_hide_that_any_labels_fit():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(30, 60)), np.arange(30) % 5
    z[7] = z[2]
    y[7] = y[2]
    found = h_score(evidence_of(z, y))
    assert found.value is None
    assert "28 independent directions fit any labels of 30 images, of which 29 differ" in found.reason

import numpy as np
import pytest
import torch
from cases import clouds
from reference import weight_jackknife

from gcaudit.geometry import rows, spectrum
from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.rankme import rankme


def twin(z, weights=None):
    z = np.asarray(z, dtype=np.float64)
    s = np.linalg.svd(z if weights is None else z * np.sqrt(weights)[:, None], compute_uv=False)
    p = s / s.sum() + 1e-7
    return float(np.exp(-(p * np.log(p)).sum()))


def left_out_error(z, y):
    return weight_jackknife(lambda weights: twin(z, len(y) * weights), y)


def test_it_agrees_with_the_published_code(shared):
    data = np.load(shared / "golden" / "small.npz")
    found = rankme(evidence_of(data["features"], data["labels"]))
    assert found.value == pytest.approx(14.328863329144141, rel=1e-12)
    assert found.n == 300


@pytest.mark.parametrize(("sizes", "dim"), [((20, 15, 30), 7), ((9, 8), 40), ((12,), 5)])
def test_it_equals_its_definition(sizes, dim):
    z, y = clouds(per_class=sizes, dim=dim)
    assert rankme(evidence_of(z + 1, y)).value == pytest.approx(twin(z + 1), rel=1e-12)


def test_singular_values_of_0_count_with_their_epsilon():
    z, y = clouds(dim=4)
    z = z @ np.random.default_rng(0).normal(size=(4, 50))
    found = rankme(evidence_of(z, y)).value
    assert found == pytest.approx(twin(z), rel=1e-9)
    alone = twin(np.diag(np.linalg.svd(z, compute_uv=False)[:4]))
    assert found - alone == pytest.approx(alone * 46 * 1e-7 * np.log(1e7), rel=1e-3)


def test_equal_singular_values_count_directions():
    assert rankme(evidence_of(np.eye(6), [0, 0, 0, 1, 1, 1])).value == pytest.approx(6, rel=1e-5)
    assert rankme(evidence_of(np.ones((6, 4)), [0, 0, 0, 1, 1, 1])).value == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(("sizes", "dim"), [((60, 40, 80), 6), ((90, 110), 12), ((150,), 5)])
def test_the_standard_error_is_that_of_the_jackknife(sizes, dim):
    z, y = clouds(per_class=sizes, dim=dim)
    z = z / np.arange(1, dim + 1)
    assert rankme(evidence_of(z, y)).stderr == pytest.approx(left_out_error(z, y), rel=0.05)


@pytest.mark.parametrize("scale", [1e-140, 1e-3, 1e100])
def test_scale_and_rotation_do_not_matter(scale):
    z, y = clouds()
    plain = rankme(evidence_of(z, y))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0]
    moved = rankme(evidence_of(scale * z @ turn, y))
    assert moved.value == pytest.approx(plain.value, rel=1e-11)
    assert moved.stderr == pytest.approx(plain.stderr, rel=1e-9)


def test_an_offset_of_1e4_is_measured():
    z, y = clouds()
    assert rankme(evidence_of(z + 1e4, y)).value == pytest.approx(twin(z + 1e4), rel=1e-10)


def test_chunks_and_float32_rows(monkeypatch):
    z, y = clouds()
    plain = rankme(evidence_of(z.astype(np.float32), y))
    assert plain.value == pytest.approx(twin(z.astype(np.float32)), rel=1e-12)
    monkeypatch.setattr(rows, "_ROWS", 7)
    monkeypatch.setattr(spectrum, "_KEPT", 0)
    parts = rankme(evidence_of(z.astype(np.float32), y))
    assert parts.value == pytest.approx(plain.value, rel=1e-12)
    assert torch.allclose(parts.influence, plain.influence, rtol=1e-9, atol=1e-14)


def test_a_class_of_one_image_has_a_value_without_a_standard_error():
    z, y = clouds(per_class=(20, 1))
    found = rankme(evidence_of(z, y))
    assert found.value == pytest.approx(twin(z), rel=1e-12)
    assert found.stderr is None
    assert "single image" in found.reason


def test_as_many_directions_as_images_leave_no_standard_error():
    z, y = clouds(per_class=(9, 8), dim=40)
    found = rankme(evidence_of(z, y))
    assert found.value == pytest.approx(twin(z), rel=1e-12)
    assert found.stderr is None
    assert "as many independent directions as images" in found.reason


def test_reasons():
    assert "are 0" in rankme(evidence_of([[0.0], [0.0]], [0, 1])).reason
    assert "beyond the range" in rankme(evidence_of([[1e200], [-1e200], [2e200], [3e200]], [0, 0, 1, 1])).reason

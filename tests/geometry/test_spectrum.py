import dataclasses

import numpy as np
import pytest
import torch
from cases import clouds

from gcaudit.geometry import rows, spectrum
from gcaudit.geometry.conditions import labels_reason
from gcaudit.geometry.rows import chunks
from gcaudit.geometry.spectrum import triangle
from gcaudit.metrics.measuring import evidence_of

SHAPES = [((20, 15, 30), 7), ((9, 8), 40), ((4, 3, 6), 12), ((50,), 5)]


def left_of(decomposition):
    return torch.cat([rows for _, rows in decomposition.left()]).numpy()


@pytest.mark.parametrize(("sizes", "dim"), SHAPES)
@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_both_decompositions_are_those_of_the_whole_matrix(sizes, dim, offset):
    z, y = clouds(per_class=sizes, dim=dim)
    z = z + offset
    found, hot = evidence_of(z, y).spectrum, np.eye(len(sizes))[y]
    for mine, matrix in ((found.raw, z), (found.centred, z - z.mean(0))):
        s = np.linalg.svd(matrix, compute_uv=False)
        assert mine.rank == np.linalg.matrix_rank(matrix)
        assert mine.values.numpy() == pytest.approx(s[: mine.rank], rel=1e-12)
        u = left_of(mine)
        assert (u * mine.values.numpy()) @ mine.directions.numpy().T == pytest.approx(matrix, abs=1e-11)
        assert u.T @ u == pytest.approx(np.eye(mine.rank), abs=1e-12)
        assert mine.directions.T @ mine.directions == pytest.approx(np.eye(mine.rank), abs=1e-12)
        assert mine.targets.numpy() == pytest.approx(u.T @ hot, abs=1e-11)
        assert mine.residuals.numpy() == pytest.approx(((hot - u @ (u.T @ hot)) ** 2).sum(0), abs=1e-11)


def test_the_shortcuts_are_the_principal_components():
    z, y = clouds()
    found = evidence_of(z, y).spectrum
    assert found.centre.numpy() == pytest.approx(z.mean(0), rel=1e-13)
    components = (torch.from_numpy(z) - found.centre) @ found.directions
    assert components.square().sum(0).numpy() == pytest.approx(found.values.square().numpy(), rel=1e-11)
    assert (components.T @ components).numpy() == pytest.approx(np.diag(found.values.square().numpy()), abs=1e-10)


def test_within_is_the_scatter_about_class_means():
    z, y = clouds()
    found = evidence_of(z, y).spectrum
    d = z - np.array([z[y == c].mean(0) for c in range(3)])[y]
    assert (found.within.T @ found.within).numpy() == pytest.approx(d.T @ d, rel=1e-11, abs=1e-11)
    assert (found.centre + found.offsets).numpy() == pytest.approx(np.array([z[y == c].mean(0) for c in range(3)]), rel=1e-12)


def test_small_singular_values_keep_their_digits():
    """Through X^T X the smallest, 1e-9 of the largest, would be lost altogether."""
    rng = np.random.default_rng(0)
    u, v = np.linalg.qr(rng.normal(size=(60, 5)))[0], np.linalg.qr(rng.normal(size=(5, 5)))[0]
    truth = np.array([1.0, 1e-2, 1e-5, 1e-7, 1e-9])
    found = evidence_of((u * truth) @ v.T, np.arange(60) % 3).spectrum
    assert found.raw.values.numpy() == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize("offset", [1e4, 1e8])
def test_an_offset_changes_nothing_but_the_raw_values(offset):
    z, y = clouds()
    z = np.round(z * 2**20) / 2**20  # so that the offset rounds nothing
    plain, moved = evidence_of(z, y).spectrum, evidence_of(z + offset, y).spectrum
    assert moved.values.numpy() == pytest.approx(plain.values.numpy(), rel=1e-12)
    assert moved.offsets.numpy() == pytest.approx(plain.offsets.numpy(), rel=1e-9, abs=1e-12)
    assert moved.raw.values.numpy() == pytest.approx(np.linalg.svd(z + offset, compute_uv=False), rel=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e8, 1e12])
def test_the_rank_is_not_that_of_rounding(offset):
    rng = np.random.default_rng(0)
    z = rng.integers(-50, 50, size=(300, 3)) @ rng.integers(-9, 9, size=(3, 16)) + offset * np.round(64 * rng.random(16)) / 64
    found = evidence_of(z, np.arange(300) % 5).spectrum
    assert found.centred.rank == 3
    assert found.raw.rank == 3 + (offset > 0)


def test_the_residual_of_a_perfect_fit_is_rounding():
    """As the difference 1 - |x|^2 it would be 1e-16 and more."""
    y = np.arange(40) % 4
    assert evidence_of(np.eye(4)[y], y).spectrum.raw.residuals.max() < 1e-28


def test_blocks_do_not_matter(monkeypatch):
    z, y = clouds()
    whole = evidence_of(z, y).spectrum
    monkeypatch.setattr(rows, "_ROWS", 4)
    monkeypatch.setattr(spectrum, "_KEPT", 0)
    parts = evidence_of(z, y).spectrum
    assert parts.values.numpy() == pytest.approx(whole.values.numpy(), rel=1e-13)
    assert np.abs(left_of(parts.raw)) == pytest.approx(np.abs(left_of(whole.raw)), abs=1e-12)
    assert [len(block) for _, block in parts.raw.left()] == [4] * 16 + [1]


def test_left_vectors_of_few_images_are_kept_and_of_many_are_not(monkeypatch):
    z, y = clouds()
    found = evidence_of(z, y).spectrum.centred
    first, second = next(found.left())[1], next(found.left())[1]
    assert first is second
    monkeypatch.setattr(spectrum, "_KEPT", 64)
    assert next(found.left())[1] is not first


def test_evidence_shares_it_and_changed_evidence_does_not():
    z, y = clouds()
    evidence = evidence_of(z, y)
    assert evidence.spectrum is evidence.spectrum
    other = dataclasses.replace(evidence, embeddings=2 * evidence.embeddings, moments=evidence_of(2 * z, y).moments)
    assert other.spectrum.values[0] == pytest.approx(2 * float(evidence.spectrum.values[0]), rel=1e-12)


def test_chunks_of_some_rows(monkeypatch):
    monkeypatch.setattr(rows, "_ROWS", 2)
    table = torch.arange(12, dtype=torch.float32).reshape(6, 2)
    found = list(chunks(table, torch.tensor([5, 1, 0])))
    assert [part.tolist() for _, part in found] == [[[10, 11], [2, 3]], [[0, 1]]]
    assert [which for which, _ in found] == [slice(0, 2), slice(2, 4)]
    assert found[0][1].dtype == torch.float64


def test_a_triangle_has_the_same_inner_products():
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(11, 4)))
    found = triangle([rows[:2], rows[2:9], rows[9:]])
    assert found.shape == (4, 4)
    assert torch.equal(found, found.triu())
    assert torch.allclose(found.T @ found, rows.T @ rows, rtol=1e-13, atol=1e-13)


def test_reasons():
    plain = [[0.0], [1.0], [5.0], [6.0]]
    assert "at least 2 classes, found 1" in labels_reason(evidence_of(plain, [0] * 4))
    assert "every class has 1 image" in labels_reason(evidence_of(plain, [0, 1, 2, 3]))
    assert labels_reason(evidence_of([[0.1]] * 4, [0, 0, 1, 1])) == "all embeddings are equal"
    assert labels_reason(evidence_of([[0.1], [0.1 + 1e-17 * 2], [0.1], [0.1]], [0, 0, 1, 1])) == "all embeddings are equal"
    assert labels_reason(evidence_of(1e5 + 1e-12 * np.random.default_rng(0).normal(size=(4, 30)), [0, 0, 1, 1])) is not None
    assert "beyond the range" in labels_reason(evidence_of([[1e200], [0.0], [1.0], [1.0]], [0, 0, 1, 1]))
    assert labels_reason(evidence_of(plain, [0, 0, 1, 1])) is None
    assert evidence_of(plain, [0] * 4).moments.range_reason is None
    assert "below the range" in labels_reason(evidence_of([[1e-200], [0.0], [0.0], [0.0]], [0, 0, 1, 1]))
    empty = dataclasses.replace(evidence_of(plain, [0, 0, 2, 2]), class_names=("a", "b", "c"))
    moments = spectrum.ClassMoments(3, 1)
    moments.update(empty.embeddings, torch.tensor([0, 0, 2, 2]))
    assert labels_reason(dataclasses.replace(empty, moments=moments)) == "class 'b' has no images"

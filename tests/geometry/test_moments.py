import numpy as np
import pytest
import reference
import torch
from cases import clouds

from gcaudit.geometry.moments import ClassMoments


def streamed(embeddings, labels, size, classes=None):
    moments = ClassMoments(classes or int(labels.max()) + 1, embeddings.shape[1])
    for start in range(0, len(labels), size):
        moments.update(embeddings[start : start + size], labels[start : start + size])
    return moments


def tensors(**options):
    z, y = clouds(**options)
    keep = np.random.default_rng(9).permutation(len(y))
    return torch.from_numpy(z[keep]), torch.from_numpy(y[keep])


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_streaming_equals_the_definition(size):
    z, y = tensors()
    moments = streamed(z, y, size)
    groups = reference.by_class(z, y)
    assert moments.counts.tolist() == [len(group) for group in groups]
    np.testing.assert_allclose(moments.means.numpy(), reference.means(groups), rtol=1e-13)
    np.testing.assert_allclose(moments.variances().numpy(), reference.variances(groups), rtol=1e-13)
    np.testing.assert_allclose(moments.variances(ddof=1).numpy(), reference.variances(groups, ddof=1), rtol=1e-13)


def test_merging_in_any_tree_equals_one_stream():
    z, y = tensors()
    whole = streamed(z, y, 1000)
    parts = [streamed(z[rows], y[rows], 5, classes=3) for rows in torch.arange(len(y)).split(13)]
    left = ClassMoments(3, z.shape[1])
    for part in parts:
        left.merge(part)
    right = ClassMoments(3, z.shape[1])
    for part in reversed(parts):
        part.merge(right)
        right = part
    for merged in (left, right):
        assert torch.equal(merged.counts, whole.counts)
        torch.testing.assert_close(merged.means, whole.means, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(merged.squares, whole.squares, rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_large_offset_leaves_the_variance_alone(size):
    z, y = tensors(spread=1e-4)
    plain, shifted = streamed(z, y, size).variances(), streamed(z + 1e4, y, size).variances()
    exact = reference.variances(reference.by_class((z + 1e4) - 1e4, y))
    np.testing.assert_allclose(shifted.numpy(), exact, rtol=1e-8)
    np.testing.assert_allclose(shifted.numpy(), plain.numpy(), rtol=1e-6)


def test_float32_batches_are_summed_in_float64():
    z, y = tensors()
    moments = streamed(z.float(), y, 7)
    assert moments.means.dtype == torch.float64
    np.testing.assert_allclose(moments.variances().numpy(), reference.variances(reference.by_class(z.float(), y)), rtol=1e-12)


def test_classes_without_images_have_no_variance():
    moments = ClassMoments(3, 2)
    moments.update(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([2, 2]))
    assert moments.counts.tolist() == [0, 0, 2]
    assert moments.variances().isnan().tolist() == [True, True, False]
    moments.update(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
    assert moments.variances(ddof=1).isnan().tolist() == [True, True, False]

"""The stopping rule, and whether the intervals of GC contain the truth as often as they say."""

import numpy as np
import pytest
import torch
from cases import TinyNet, decode

from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest
from gcaudit.geometry.counter import balanced_order
from gcaudit.geometry.evidence import Evidence
from gcaudit.geometry.jacobian import energies, output_vectors, sketch_vectors
from gcaudit.geometry.moments import ClassMoments
from gcaudit.geometry.stopping import look_counts, relative_error
from gcaudit.metrics.complexity import gc

RUNS, SHARE = 500, 0.05


@pytest.mark.parametrize(
    ("images", "classes", "rtol", "counts"),
    [
        (1000, 10, 0.02, (256, 512, 1000)),
        (1000, 10, 0.0, (1000,)),
        (256, 10, 0.02, (256,)),
        (257, 10, 0.02, (256, 257)),
        (5000, 100, 0.02, (512, 1024, 2048, 4096, 5000)),
        (10_000, 1000, 0.02, (8192, 10_000)),
        (40, 10, 0.02, (40,)),
    ],
)
def test_looks_are_at_doublings_with_five_images_a_class(images, classes, rtol, counts):
    assert look_counts(images, classes, rtol) == counts


def evidence_of(values, labels, classes):
    moments = ClassMoments(classes, 1)
    return Evidence(
        embeddings=torch.zeros(len(labels), 1),
        labels=labels,
        class_names=tuple(str(c) for c in range(classes)),
        moments=moments,
        fingerprint="",
        energies=values,
        energy_rows=torch.arange(len(labels)),
    )


def test_the_relative_error_is_that_of_gc():
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 5, 200))
    values = torch.from_numpy(rng.lognormal(size=200)) * (1 + labels)
    found = gc(evidence_of(values, labels, 5))
    assert relative_error(values, labels, 5) == pytest.approx(found.stderr / found.value, rel=1e-12)


def test_the_relative_error_of_odd_data():
    two = torch.tensor([0, 0, 1, 1])
    assert relative_error(torch.ones(3, dtype=torch.float64), torch.tensor([0, 0, 1]), 2) == float("inf")
    assert relative_error(torch.zeros(4, dtype=torch.float64), two, 2) == 0
    assert relative_error(torch.ones(4, dtype=torch.float64), two, 2) == 0


def gram_matrices(embed, images, dim, batch=512):
    """J J^T of each image: all that an energy estimate sees of a network."""
    found = []
    for part in images.split(batch):
        x = part.clone().requires_grad_()
        z = embed(x)
        rows = [torch.autograd.grad(z[:, k].sum(), x, retain_graph=True)[0].flatten(1) for k in range(dim)]
        jacobian = torch.stack(rows, 1).double()
        found.append(jacobian @ jacobian.mT)
    return torch.cat(found)


@pytest.fixture(scope="module")
def tiny_pool():
    """Images whose contrast differs, so that their energies do: (gram matrices, labels)."""
    net = TinyNet(dim=16, classes=10).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(24_000) % 10
    contrast = 0.05 + torch.rand(24_000, 1, 1, 1, generator=generator) ** 2
    level = 0.2 + 0.06 * labels.view(-1, 1, 1, 1)
    images = (level + contrast * torch.randn(24_000, 3, 8, 8, generator=generator)).clamp(0, 1)

    def embed(x):
        return net.features((x - 0.4) / 0.2)

    grams = gram_matrices(embed, images, 16)
    exact = energies(embed, images[:20], estimator="exact")
    torch.testing.assert_close(grams[:20].diagonal(dim1=1, dim2=2).sum(1), exact, rtol=1e-4, atol=0)
    return grams, labels


@pytest.fixture(scope="module")
def cifar_pool(shared, repository):
    """The public ResNet-20 on all 10,000 test images of CIFAR-10."""
    arch = f"{repository / 'examples' / 'cifar_resnet.py'}:resnet20"
    encoder = load_encoder(ModelRequest(str(shared / "checkpoints" / "cifar10_resnet20.th"), arch=arch))
    images = open_data(DataRequest(str(shared / "data" / "cifar10" / "test.parquet"), "source"))
    return gram_matrices(encoder.embed, decode(encoder, images).float() / 255, 64, 64).float(), images.labels


def estimates(grams, rows, estimator, vectors, seed):
    """What `batch_energies` would have measured: the mean of v^T J J^T v over the same vectors."""
    draw = sketch_vectors if estimator == "sketch" else output_vectors
    v = draw(rows, grams.shape[1], vectors, seed).to(grams)
    return torch.einsum("mnd,nde,mne->n", v, grams[rows], v).double() / vectors


def covered(pool, estimator, vectors, rtol):
    grams, labels = pool
    classes = int(labels.max()) + 1
    exact = grams.diagonal(dim1=1, dim2=2).sum(1).double()
    truth = float(torch.stack([exact[labels == c].mean() for c in range(classes)]).mean())
    index, most = torch.arange(len(labels)), int(SHARE * len(labels))
    hits, counts = 0, []
    for run in range(RUNS):
        rows = balanced_order(labels, index, run)[:most]
        values = estimates(grams, rows, estimator, vectors, run)
        ends = look_counts(most, classes, rtol) if rtol else (most // 2,)
        for end in ends:
            if relative_error(values[:end], labels[rows[:end]], classes) <= rtol or end == ends[-1]:
                break
        found = gc(evidence_of(values[:end], labels[rows[:end]], classes))
        hits += found.ci95[0] <= truth <= found.ci95[1]
        counts.append(end)
    return hits / RUNS, counts


CASES = [("sketch", 1, 0.03), ("sketch", 4, 0.0235), ("outputs", 1, 0.053)]
"""With a tolerance at which the rule stops now at one count, now at another: else stopping is not tested."""


@pytest.mark.parametrize("stopped", [False, True], ids=["fixed", "stopped"])
@pytest.mark.parametrize(("estimator", "vectors", "rtol"), CASES)
def test_intervals_cover_the_distribution(tiny_pool, estimator, vectors, rtol, stopped):
    rtol = rtol if stopped else 0.0
    share, counts = covered(tiny_pool, estimator, vectors, rtol)
    print(f"{estimator}, {vectors} vectors, rtol {rtol}: covered {share:.3f}, images {sorted(set(counts))}")
    assert 0.92 <= share <= 0.98
    if stopped:
        assert 0.1 < counts.count(min(counts)) / RUNS < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("rtol", [0.0, 0.04], ids=["fixed", "stopped"])
@pytest.mark.parametrize(("estimator", "vectors", "_"), CASES)
def test_intervals_cover_the_distribution_of_a_real_network(cifar_pool, estimator, vectors, _, rtol):
    share, counts = covered(cifar_pool, estimator, vectors, rtol)
    print(f"{estimator}, {vectors} vectors, rtol {rtol}: covered {share:.3f}, images {sorted(set(counts))}")
    assert 0.92 <= share <= 0.98

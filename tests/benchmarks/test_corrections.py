"""What it costs that values are those of the distribution: the core metrics against the papers' formulas with the delta method, in the same run."""

import dataclasses

import pytest
import torch
from conftest import interleaved

from gcaudit.geometry.delta import delta_method
from gcaudit.geometry.pairs import mean_over_pairs, squared_distances
from gcaudit.geometry.proportion import balanced_proportion
from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.ridge import ProbeSettings
from gcaudit.metrics.table import find_metrics

IMAGES, DIM, CLASSES = 5000, 1024, 50
NAMES = [
    "gc",
    "relative_gc",
    "cdnv",
    "directional_cdnv",
    "geometric_collapse",
    "geometric_collapse_refined",
    "poincare_lower_bound",
]


@pytest.fixture(scope="module")
def evidence():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(IMAGES) % CLASSES
    z = torch.randn(CLASSES, DIM, generator=generator)[labels] + 2 * torch.randn(IMAGES, DIM, generator=generator)
    return evidence_of(z, labels, energies=torch.rand(IMAGES, generator=generator))


def inverse(means):
    squared = squared_distances(means)
    return 1 / (squared + torch.eye(len(squared), dtype=squared.dtype))


def total(stats):
    return (stats.variances + (stats.means - stats.means.mean(0)).square().sum(1)).mean()


PLAIN = (
    lambda stats: stats.complexities.mean(),
    lambda stats: stats.complexities.mean() / total(stats),
    lambda stats: mean_over_pairs((stats.variances[:, None] + stats.variances) / 2 * inverse(stats.means)),
    lambda stats: mean_over_pairs(inverse(stats.means)) * stats.complexities.mean(),
    lambda stats: mean_over_pairs((stats.complexities[:, None] + stats.complexities) / 2 * inverse(stats.means)),
    lambda stats: (stats.variances / stats.complexities).max(),
)


def directional(evidence):
    """Two passes of products with all class means, as for the value and its influences."""
    for _ in range(2):
        deviations = evidence.embeddings.double() - evidence.moments.means[evidence.labels]
        products = (deviations @ evidence.moments.means.T).square()
        products.T @ deviations


def nearest(evidence):
    centre = evidence.moments.means.mean(0)
    z = evidence.embeddings.double() - centre
    distances = torch.cdist(z, evidence.moments.means - centre, compute_mode="donot_use_mm_for_euclid_dist")
    balanced_proportion(distances.argmin(1) == evidence.labels, evidence.labels, CLASSES)


def test_cost_of_the_corrections(benchmark, report, evidence):
    """The bare formulas share all that they can, which the metrics, one function each, do not."""
    metrics = find_metrics([*NAMES, "ncm_accuracy"])

    def ours():
        fresh = dataclasses.replace(evidence)
        for metric in metrics:
            metric.measure(fresh, ProbeSettings())

    def plain():
        fresh = dataclasses.replace(evidence)
        for statistic in PLAIN:
            delta_method(fresh, statistic)
        directional(fresh)
        nearest(fresh)

    times = interleaved({"ours": ours, "plain": plain}, 5)
    benchmark.pedantic(ours, rounds=1)
    report(ratio=times["ours"] / times["plain"], seconds=times["ours"])

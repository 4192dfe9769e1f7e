"""The count of intervals that hold the truth, on populations whose truth is known by hand."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

PLACE = Path(__file__).with_name("coverage.py")


@pytest.fixture(scope="module")
def harness():
    """The script, by its path: a library of its name is often installed."""
    spec = importlib.util.spec_from_file_location("interval_coverage", PLACE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def pool(harness):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(400)
    embeddings = torch.randn(1200, 4, generator=generator, dtype=torch.float64) + 3 * torch.eye(3, 4)[labels]
    energies = 1 + torch.rand(1200, generator=generator, dtype=torch.float64)
    return harness.Pool(embeddings, labels, energies, None)


def test_the_truth_is_that_of_the_whole_population(harness, pool):
    found = harness.population_values(pool, ("gc", "cdnv", "ncm_accuracy"))
    classes = [pool.labels == number for number in range(3)]
    assert found["gc"] == pytest.approx(float(pool.energies.mean()), rel=1e-12)
    means = torch.stack([pool.embeddings[rows].mean(0) for rows in classes])
    variances = [float((pool.embeddings[rows] - mean).square().sum(1).mean()) for rows, mean in zip(classes, means, strict=True)]
    pairs = [(i, j) for i in range(3) for j in range(i)]
    by_hand = sum((variances[i] + variances[j]) / (2 * float((means[i] - means[j]).square().sum())) for i, j in pairs) / 3
    assert found["cdnv"] == pytest.approx(by_hand, rel=1e-9)
    right = ((pool.embeddings[:, None] - means).square().sum(2).argmin(1) == pool.labels).double()
    assert found["ncm_accuracy"] == pytest.approx(float(right.mean()), rel=1e-12)


def test_an_honest_interval_is_told_from_one_that_is_not(harness, pool):
    found = harness.cover(pool, [20, 20, 20], 120, ("gc", "cdnv"))
    assert 0.88 <= found["gc"].holds <= 1
    assert abs(found["gc"].bias) < 0.02
    assert 0.8 < found["gc"].spread < 1.25


def test_a_dishonest_interval_is_told_too(harness, pool, monkeypatch):
    measured = harness.Pool.measured

    def plugged(self, metrics):
        """The papers' formula with the same length of interval."""
        found = measured(self, metrics)
        return {name: dataclasses.replace(each, value=each.details["plug_in"], ci95=shifted(each)) for name, each in found.items()}

    def shifted(each):
        return tuple(bound * each.details["plug_in"] / each.value for bound in each.ci95)

    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(1200, 20, generator=generator, dtype=torch.float64)
    crowded = harness.Pool(torch.cat([pool.embeddings, noise], 1), pool.labels, None, None)
    honest = harness.cover(crowded, [8, 8, 8], 60, ("cdnv",))["cdnv"]
    monkeypatch.setattr(harness.Pool, "measured", plugged)
    found = harness.cover(crowded, [8, 8, 8], 60, ("cdnv",))["cdnv"]
    assert honest.holds >= 0.85
    assert found.holds < 0.7
    assert found.bias < -0.15


def test_designs_and_table(harness, pool):
    assert harness.designs("3,10:40", 3) == {"3": [3, 3, 3], "10:40": [10, 20, 40]}
    cells = {"5": harness.cover(pool, [5, 5, 5], 5, ("gc",))}
    lines = harness.table(cells, ("gc",)).splitlines()
    assert lines[:2] == ["| images a class | gc |", "|---|---|"]
    assert lines[2].startswith("| 5 | ")
    null = harness.Coverage(1.0, None, 1.0, None, None)
    assert harness.table({"5": {"gc": null}}, ("gc",)).splitlines()[2] == "| 5 | null |"

import numpy as np
import pytest
import torch

from gcaudit.geometry.interval import positive_estimate
from gcaudit.geometry.tails import critical_values, describe_tail, tail_reason
from gcaudit.metrics.complexity import gc
from gcaudit.metrics.measuring import evidence_of


def pareto(count, index, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).pareto(index, count) + 1)


@pytest.mark.parametrize("index", [1.2, 2.0, 4.0])
def test_the_tail_index_is_that_of_a_pareto_distribution(index):
    assert describe_tail(pareto(20_000, index)).index == pytest.approx(index, rel=0.1)


def test_median_and_share_by_hand():
    energies = torch.ones(200, dtype=torch.float64)
    energies[:2] = 99.0
    tail = describe_tail(energies)
    assert tail.median == 1.0
    assert tail.top_share == pytest.approx(2 * 99 / (198 + 2 * 99))
    assert describe_tail(torch.ones(50, dtype=torch.float64)).index is None
    assert not describe_tail(torch.ones(5, dtype=torch.float64)).heavy


def test_an_interval_of_energies_with_a_heavy_tail_is_withheld():
    energies = pareto(300, 0.9, seed=3)
    assert "heavy tail" in tail_reason(energies)
    y = np.arange(300) % 3
    found = gc(evidence_of(np.random.default_rng(0).normal(size=(300, 2)), y, energies=energies.numpy()))
    assert found.value is not None
    assert (found.stderr, found.ci95, found.influence) == (None, None, None)
    assert "1% of 300 images hold" in found.reason
    assert found.details["energy_tail_index"] < 1.5


def test_ordinary_energies_have_an_interval():
    for seed in range(20):
        assert tail_reason(torch.from_numpy(np.random.default_rng(seed).gamma(3.0, size=200))) is None


def test_the_bootstrap_t_is_longer_on_the_right():
    values = np.random.default_rng(1).lognormal(0, 1.3, 200)
    influence = torch.from_numpy((values - values.mean()) / (200 * 199) ** 0.5)
    low, high = critical_values(influence, float(values.mean()))
    assert -low > high > 0
    assert critical_values(influence[torch.randperm(200)], float(values.mean())) == (low, high)
    assert critical_values(torch.zeros(5, dtype=torch.float64), 1.0) is None


def test_it_covers_where_the_normal_does_not():
    rng = np.random.default_rng(5)
    labels = torch.zeros(60, dtype=torch.int64)
    truth, held, normal = np.exp(1.4**2 / 2), 0, 0
    for _ in range(200):
        values = rng.lognormal(0, 1.4, 60)
        influence = torch.from_numpy((values - values.mean()) / (60 * 59) ** 0.5)
        found = positive_estimate(values.mean(), influence, labels, 60, energies=torch.from_numpy(values))
        if found.ci95 is None:
            continue
        held += found.ci95[0] <= truth <= found.ci95[1]
        normal += abs(found.value - truth) <= 1.96 * found.stderr
    assert held > normal

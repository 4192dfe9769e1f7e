"""The time of slope and of sharpness, for each random vector, over one forward and backward pass of training on the same images. Run with `-s`."""

import pytest
import torch
from conftest import interleaved, load
from torch.nn.functional import cross_entropy

from gcaudit.geometry.curvature import flatness


@pytest.mark.parametrize("name", ["resnet20"])
def test_time_over_a_backward_pass(benchmark, report, shared, name):
    """Bound: 2 passes for the slope, 5 for a vector of the sharpness."""
    network = load(shared, name).module.requires_grad_(requires_grad=True)
    data = [(torch.randn(128, 3, 32, 32), torch.arange(128) % 10)]

    def backward():
        network.zero_grad()
        cross_entropy(network(data[0][0]), data[0][1]).backward()

    tasks = {
        "backward": backward,
        "two": lambda: flatness(network, data, vectors=2),
        "six": lambda: flatness(network, data, vectors=6),
    }
    times = interleaved(tasks, repeats=3)
    benchmark.pedantic(backward)
    vector = (times["six"] - times["two"]) / 4
    slope = times["two"] - 2 * vector
    report(slope=slope / times["backward"], vector=vector / times["backward"])
    assert slope <= 2 * times["backward"]
    assert vector <= 5 * times["backward"]

"""Speed and memory, as ratios of interleaved medians in one run.

    pytest tests/benchmarks -o addopts= -s [--device cuda]

Everything here is timed beside the baseline it is compared with, since the machines are shared and noisy.
"""

import os
import statistics
import time
from pathlib import Path

import pytest
import torch

from gcaudit.cli.heap import keep_freed_memory
from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="session")
def whole_machine():
    """Both sides of each ratio get all cores and the heap of the command line."""
    keep_freed_memory()
    torch.set_num_threads(os.cpu_count() or 1)


def seconds(function, device="cpu"):
    """Time one call, with everything it launched on a GPU."""
    if device != "cpu":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    function()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def interleaved(functions, repeats=5, device="cpu", warm=True):
    """Time functions in turn, so that a slow minute hits all of them; returns medians in seconds by name."""
    if warm:
        for function in functions.values():
            function()
    times = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(seconds(function, device))
    return {name: statistics.median(values) for name, values in times.items()}


def spec_of(shared, name):
    """Name one of the real checkpoints as on the command line: file and --arch."""
    folder = shared / "checkpoints"
    if name.startswith("resnet"):
        return str(folder / f"cifar10_{name}.th"), f"{ROOT / 'examples' / 'cifar_resnet.py'}:{name}"
    return str(folder / f"{name}.safetensors"), f"timm:{name}"


def load(shared, name):
    """Load one of the real checkpoints."""
    model, arch = spec_of(shared, name)
    return load_encoder(ModelRequest(model, arch=arch))


@pytest.fixture
def report(benchmark, request):
    """Keep figures with the benchmark and print them."""

    def keep(**figures):
        benchmark.extra_info.update(figures)
        print(
            f"\n{request.node.name}: "
            + ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items())
        )

    return keep

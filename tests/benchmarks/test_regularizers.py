"""The time of a training step with the penalty over one without, on the same batch. Run with `-s` to see it."""

import runpy

import pytest
import torch
import torchvision
from conftest import ROOT, interleaved
from torch.nn.functional import cross_entropy

from gcaudit.regularizers import GeometricComplexity

EXACT, FINITE = {"cpu": 3.2, "cuda": 2.5}, 2.5
METHODS = {
    "exact, embedding": {},
    "exact, logits": {"layer": "logits"},
    "exact, running statistics": {"frozen_statistics": True},
    "finite step": {"method": "finite-step"},
}


def networks():
    cifar = runpy.run_path(str(ROOT / "examples" / "cifar_resnet.py"))
    yield "ResNet-20", cifar["resnet20"](), 128, 32
    yield "ResNet-18", torchvision.models.resnet18(num_classes=100), 16, 112


@pytest.mark.parametrize("number", [0, 1])
def test_time_of_a_step(benchmark, report, device, number):
    """Bounds: exact 3.2 on CPU and 2.5 on CUDA, finite step 2.5; running statistics take one more forward pass, and have no bound."""
    name, model, batch, size = list(networks())[number]
    model = model.to(device).train()
    images = torch.randn(batch, 3, size, size, device=device)
    labels = torch.arange(batch, device=device) % 10

    def step(options):
        penalty = None if options is None else GeometricComplexity(1e-3, **options)

        def run():
            model.zero_grad()
            outputs, complexity = (model(images), 0.0) if penalty is None else penalty(model, images)
            (cross_entropy(outputs, labels) + complexity).backward()

        return run

    times = interleaved({"none": step(None), **{told: step(options) for told, options in METHODS.items()}}, device=device)
    benchmark.pedantic(step(None))
    ratios = {told: times[told] / times["none"] for told in METHODS}
    report(**{f"{name}, {batch} x 3 x {size} x {size}, {told}": ratio for told, ratio in ratios.items()})
    bound = EXACT["cpu" if device == "cpu" else "cuda"]
    assert ratios["exact, embedding"] <= bound
    assert ratios["exact, logits"] <= bound
    assert ratios["finite step"] <= FINITE

"""The three calls from Python, on what comes with gcaudit.

python examples/python_api.py
"""

import torch

import gcaudit
from gcaudit.data import DataRequest, open_data
from gcaudit.encoders import ModelRequest, load_encoder


def main() -> None:
    """Score a checkpoint, measure embeddings that are at hand, and take the energies of any function."""
    # 1. A whole audit. `model` may also be your own torch.nn.Module, and the data (images, labels), a Dataset or a DataLoader.
    report = gcaudit.score("demo", source="demo", target="demo", episodes=200)
    probe = report.target.metrics["probe_accuracy"]
    print(f"5-way 5-shot accuracy {probe.value:.3f}, 95% interval {probe.ci95[0]:.3f} to {probe.ci95[1]:.3f}")

    # 2. Embeddings that are already at hand, from any model: what needs no Jacobian.
    embeddings = torch.randn(60, 16, generator=torch.Generator().manual_seed(0)) + torch.arange(60)[:, None] % 6
    found = gcaudit.measure(embeddings, torch.arange(60) % 6, metrics=["cdnv", "ncm_accuracy"])
    for name, estimate in found.items():
        print(f"{name} {estimate.value:.4f} with standard error {estimate.stderr:.4f}")

    # 3. Energies: the squared norm of the Jacobian, image by image, of any differentiable function.
    encoder = load_encoder(ModelRequest("demo"))
    images = open_data(DataRequest("demo", "source", max_images=50))
    size = encoder.preprocessing.input_size
    pixels = torch.rand(len(images.labels), *size, generator=torch.Generator().manual_seed(0))
    sketch = gcaudit.energies(encoder.embed, pixels)
    exact = gcaudit.energies(encoder.embed, pixels, estimator="exact")
    print(f"mean energy {sketch.mean():.1f} with one vector an image, {exact.mean():.1f} with all {encoder.dim}")


if __name__ == "__main__":
    main()

"""Tiny encoders and data sets on which everything can be checked."""

import numpy as np
import torch
from torch import nn

from gcaudit.data.batches import stream_batches
from gcaudit.encoders.preprocessing import picture_transform


class TinyNet(nn.Module):
    """A smooth convolutional network of 8x8 images with a Linear classifier."""

    def __init__(self, channels=3, dim=6, classes=4, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.conv = nn.Conv2d(channels, 5, 3, padding=1)
        self.bn = nn.BatchNorm2d(5)
        self.mix = nn.Linear(5 * 16, dim)
        self.head = nn.Linear(dim, classes)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
        self.bn.running_mean = torch.randn(5, generator=generator) * 0.1
        self.pretrained_cfg = {
            "input_size": (channels, 8, 8),
            "mean": (0.4,) * channels,
            "std": (0.2,) * channels,
            "crop_pct": 1.0,
            "interpolation": "bilinear",
        }

    def features(self, x):
        x = torch.tanh(self.bn(self.conv(x)))
        return torch.tanh(self.mix(nn.functional.avg_pool2d(x, 2).flatten(1)))

    def forward(self, x):
        return self.head(self.features(x))


def tiny_images(per_class=12, classes=4, channels=3, size=8, seed=0):
    """Images in [0, 1] whose classes differ in colour, as (images, labels)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(per_class)
    centre = torch.rand(classes, channels, 1, 1, generator=generator)
    noise = torch.rand(len(labels), channels, size, size, generator=generator)
    return (0.5 * centre[labels] + 0.5 * noise).clamp(0, 1), labels


def clouds(per_class=(20, 15, 30), dim=7, seed=0, spread=1.0):
    """Gaussian classes of different size as float64 (embeddings, labels)."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(per_class)), per_class)
    centres = rng.normal(size=(len(per_class), dim)) * 3
    return centres[labels] + spread * rng.normal(size=(len(labels), dim)), labels


def decode(encoder, images):
    """All images of a set as uint8 pixels (N, C, H, W), without the audit's own loop."""
    order = [list(range(len(images.labels)))]
    (batch,) = stream_batches(images.reader, images.index, order, picture_transform(encoder.preprocessing), workers=0, pin=False)
    return batch.pixels

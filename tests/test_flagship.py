"""`gcaudit score model.ckpt --source cifar100 --target cifar-fs`, as typed."""

import argparse
import os
import pickle
import shlex
import sys

import numpy as np
import pytest
import timm
import torch
from processes import finished

from gcaudit.data.splits import CIFAR100_CLASSES, CIFAR_FS
from gcaudit.report.schema import Report

PER_CLASS = {"train": 20, "test": 10}


@pytest.fixture
def working_folder(tmp_path):
    """CIFAR-100 as torchvision leaves it under ./data, and a checkpoint as timm's training script leaves it."""
    folder = tmp_path / "data" / "cifar-100-python"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 128, size=(100, 3, 1))
    for split, count in PER_CLASS.items():
        labels = rng.permutation(np.repeat(np.arange(100), count))
        pixels = colours[labels] + rng.integers(0, 128, size=(len(labels), 3, 1024))
        content = {
            "data": pixels.astype(np.uint8).reshape(-1, 3072),
            "fine_labels": labels.tolist(),
            "coarse_labels": [0] * len(labels),
            "filenames": ["x.png"] * len(labels),
            "batch_label": split,
        }
        (folder / split).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "meta").write_bytes(
        pickle.dumps({"fine_label_names": list(CIFAR100_CLASSES), "coarse_label_names": ["x"]}, protocol=2)
    )
    model = timm.create_model("test_resnet", num_classes=100)
    options = argparse.Namespace(model="test_resnet", img_size=32, mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25], crop_pct=1.0)
    weights = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 3, "arch": "test_resnet", "state_dict": weights, "args": options, "version": 2}, tmp_path / "model.ckpt")
    return tmp_path


def typed(line, folder):
    words = shlex.split(line)
    assert words[0] == "gcaudit"
    command = [sys.executable, "-m", "gcaudit", *words[1:]]
    environment = {key: value for key, value in os.environ.items() if key != "GCAUDIT_DATA"}
    return finished(command, cwd=folder, env=environment)


def test_the_flagship_line_works_as_typed(working_folder):
    found = typed("gcaudit score model.ckpt --source cifar100 --target cifar-fs", working_folder)
    assert found.returncode == 0, found.stderr
    assert "source: cifar100 train, 100 classes, 2000 images" in found.stdout
    assert "target: cifar-fs test, 20 classes, 600 images" in found.stdout
    assert "geometric collapse" in found.stdout
    assert "5-way 5-shot" in found.stdout
    assert "source and target share 20 classes" in found.stderr
    assert "source and target share 400 images" in found.stderr


def test_disjoint_classes_do_not_warn(working_folder):
    line = "gcaudit score model.ckpt --source cifar-fs --target cifar-fs --format json --metrics cdnv,probe_accuracy"
    found = typed(line, working_folder)
    assert found.returncode == 0, found.stderr
    report = Report.from_json(found.stdout)
    assert report.source.class_names == CIFAR_FS["train"]
    assert report.target.class_names == CIFAR_FS["test"]
    assert report.source.images == 64 * 30
    assert report.warnings == ()
    pre = report.model.preprocessing
    assert (pre.input_size, pre.mean, pre.std, pre.origin) == ((3, 32, 32), (0.5,) * 3, (0.25,) * 3, "checkpoint")
    assert report.model.arch == "timm:test_resnet"

"""Reports to judge, render and compare."""

import json
import shutil

import torch
from safetensors.torch import load_file, save_file

from gcaudit.bundled.files import bundled_path
from gcaudit.report.schema import Report

VALUE = {"value": 1 / 3, "stderr": 0.01, "ci95": (0.31, 0.35), "n": 100}


def make(source=None, target=None, **options):
    block = {"spec": "s|x", "split": "train", "classes": 2, "images": 10, "class_names": ("a", "b"), "fingerprint": "f"}
    model = {
        "spec": "model.pt",
        "arch": "timm:resnet18",
        "sha256": "0" * 64,
        "layer": "fc",
        "embedding": "input of fc",
        "embedding_dim": 512,
        "parameters": 5,
        "preprocessing": {
            "input_size": (3, 224, 224),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "interpolation": "bicubic",
            "crop_pct": 0.95,
            "crop_mode": "center",
            "input_space": "pixel",
            "origin": "architecture",
            "assumed": (),
        },
    }
    content = {
        "schema": "gcaudit.report/1",
        "gcaudit": "0.1.0",
        "created": "2026-01-01T00:00:00Z",
        "model": model,
        "settings": {"seed": 0, "device": "cpu", "precision": "float32"},
        "source": {**block, "metrics": source or {"cdnv": VALUE}},
        "target": None if target is None else {**block, "metrics": target},
        "warnings": ("careful",),
        "timing": {"images_per_second": 2.0, "seconds": 5.0},
    }
    return Report.model_validate({**content, **options})


def changed(report, path, **values):
    """A copy with other values at `source.metrics.gc` or `model.preprocessing` and the like."""
    content = json.loads(report.to_json())
    place = content
    for key in path.split("."):
        place = place[key]
    place.update(values)
    return Report.from_json(json.dumps(content)).with_evidence(report.evidence)


def with_value(report, name, value, low=None, high=None, **more):
    role, metric = name.split(".")
    ci95 = None if low is None else [low, high]
    stderr = None if low is None else (high - low) / 2 / 1.959963984540054
    return changed(
        report, f"{role}.metrics.{metric}", value=value, stderr=stderr, ci95=ci95, **{"student": None, **more}
    ).with_evidence(None)


def only(result):
    (verdict,) = result.verdicts
    return verdict


def make_worse(folder, strength):
    """The demo's checkpoint with one layer's weights perturbed."""
    shutil.copytree(bundled_path("demo-model"), folder)
    weights = load_file(folder / "model.safetensors")
    name = "layer1.0.conv1.weight"
    noise = torch.randn(weights[name].shape, generator=torch.Generator().manual_seed(0))
    weights[name] = weights[name] + strength * noise * weights[name].std()
    save_file(weights, folder / "model.safetensors")

"""Every family of timm and every classifier of torchvision has an embedding; shapes alone, on the meta device."""

from collections import defaultdict

import pytest
import timm
import torch
import torchvision
from timm.models import _registry
from torch import nn

from gcaudit.encoders.architectures import build_architecture
from gcaudit.encoders.taps import classifier_tap, dry_input, pre_logits_tap

SMALL = ("test_", "zepto", "atto", "femto", "pico", "nano", "xxs", "tiny", "micro", "xs", "mini", "_s0", "small", "_s")


def size_by_name(name):
    rank = next((n for n, word in enumerate(SMALL) if word in name), len(SMALL))
    return rank, len(name), name


def smallest_of_each_family():
    families = defaultdict(list)
    for name in timm.list_models():
        if not name.endswith("_enc"):  # encoders without a classifier
            families[_registry._model_to_module[name]].append(name)
    return [min(names, key=size_by_name) for _, names in sorted(families.items())]


def test_there_are_families_enough():
    assert len(smallest_of_each_family()) > 60


@pytest.mark.parametrize("name", smallest_of_each_family())
def test_timm_family(name):
    with torch.device("meta"):
        model = timm.create_model(name).eval()
    inputs = dry_input(model.pretrained_cfg["input_size"], model).expand(2, -1, -1, -1)
    with torch.no_grad(), torch.device("meta"):
        embeddings, logits = pre_logits_tap(model)(model, inputs, logits=True)
    assert embeddings.shape == (2, model.head_hidden_size)
    if model.num_classes:
        assert logits.shape == (2, model.num_classes)


@pytest.fixture
def no_memory(monkeypatch):
    """Parameters and buffers go to the meta device as they are registered; what builds the network stays on the CPU."""
    parameter, buffer = nn.Module.register_parameter, nn.Module.register_buffer

    def register_parameter(module, name, value):
        parameter(module, name, value if value is None else nn.Parameter(value.to("meta"), value.requires_grad))

    def register_buffer(module, name, value, persistent=True):
        buffer(module, name, value if value is None else value.to("meta"), persistent)

    monkeypatch.setattr(nn.Module, "register_parameter", register_parameter)
    monkeypatch.setattr(nn.Module, "register_buffer", register_buffer)


@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_torchvision_model(name, no_memory):
    built = build_architecture(f"torchvision:{name}", {})
    inputs = dry_input(built.config["input_size"], built.module)
    with torch.no_grad(), torch.device("meta"):
        tap = classifier_tap(built.module, inputs)
        embeddings, logits = tap(built.module, inputs.expand(2, -1, -1, -1), logits=True)
    head = built.module.get_submodule(tap.layer)
    assert inputs.device.type == "meta"
    assert embeddings.shape == (2, head.in_channels if isinstance(head, nn.Conv2d) else head.in_features)
    assert logits.shape == (2, 1000)

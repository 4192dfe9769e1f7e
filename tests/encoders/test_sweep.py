"""Every family of timm and every classifier of torchvision has an embedding; shapes alone, on the meta device."""

import warnings
from collections import defaultdict

import pytest
import timm
import torch
import torchvision
from timm.models import _registry

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


@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_torchvision_model(name):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's and torchvision's, of how weights are drawn
        model = torchvision.models.get_model(name, **options).eval()
    crop = torchvision.models.get_model_weights(name)["DEFAULT"].transforms().crop_size[0]
    inputs = dry_input((3, crop, crop), model)
    with torch.no_grad(), torch.device("meta"):
        tap = classifier_tap(model, inputs)
        embeddings, logits = tap(model, inputs.expand(2, -1, -1, -1), logits=True)
    head = model.get_submodule(tap.layer)
    assert embeddings.shape == (2, head.in_channels if isinstance(head, torch.nn.Conv2d) else head.in_features)
    assert logits.shape == (2, 1000)

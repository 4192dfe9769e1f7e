"""What is assumed, chosen or left unused on the way from a file to an encoder is a warning, or is refused."""

import argparse

import pytest
import timm
import torch
import torchvision
from cases import TinyNet
from torch import nn

from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest
from gcaudit.errors import ArchitectureError


def kinds(encoder):
    return [warning.kind for warning in encoder.warnings]


@pytest.fixture
def factory(tmp_path):
    (tmp_path / "nets.py").write_text("from cases import TinyNet\n\n\ndef tiny(): return TinyNet()\n")
    return f"{tmp_path / 'nets.py'}:tiny"


def saved(path, content):
    torch.save(content, path)
    return str(path)


def test_an_architectures_default_is_an_assumption_until_a_tag_is_named(tmp_path):
    path = saved(tmp_path / "m.pt", timm.create_model("test_resnet").state_dict())
    found = load_encoder(ModelRequest(path, arch="timm:test_resnet"))
    assert found.preprocessing.assumed == ("input_size", "mean", "std", "crop_pct", "interpolation")
    assert "input 3x160x160" in found.warnings[0].message
    assert kinds(load_encoder(ModelRequest(path, arch="timm:test_resnet.r160_in1k"))) == []
    typed = {"input_size": (32, 32), "mean": (0.5,), "std": (0.5,)}
    assert kinds(load_encoder(ModelRequest(path, arch="timm:test_resnet", changes=typed))) == []


def test_weights_of_timm_that_differ_in_mean_are_told(tmp_path):
    small = {"embed_dim": 24, "depth": 1, "num_heads": 2}
    path = saved(tmp_path / "vit.pt", timm.create_model("vit_base_patch16_224", **small).state_dict())
    (warning,) = load_encoder(ModelRequest(path, arch="timm:vit_base_patch16_224", arch_args=small)).warnings
    assert warning.kind == "preprocessing"
    assert "timm's weights of vit_base_patch16_224 have mean 0.5 (" in warning.message
    assert "so name yours, such as --arch timm:vit_base_patch16_224." in warning.message


def test_a_name_of_two_families_is_told_where_they_differ(tmp_path):
    state = torchvision.models.resnet18().state_dict()
    found = load_encoder(ModelRequest(saved(tmp_path / "m.pt", {"arch": "resnet18", "state_dict": state})))
    assert kinds(found) == ["architecture", "preprocessing"]
    assert (
        "timm:resnet18 and torchvision:resnet18 prepare pictures in other ways (crop_pct: 0.95 or 0.875"
        in found.warnings[0].message
    )
    options = argparse.Namespace(mean=[0.5] * 3, std=[0.5] * 3, input_size=[3, 64, 64], crop_pct=1.0, interpolation="bicubic")
    path = saved(tmp_path / "said.pt", {"arch": "resnet18", "state_dict": state, "args": options})
    assert kinds(load_encoder(ModelRequest(path))) == []


def test_options_of_timms_script_that_change_the_network_are_used(tmp_path):
    state = timm.create_model("test_resnet").state_dict()
    options = argparse.Namespace(model="test_resnet", gp="max", bn_eps=None)
    found = load_encoder(ModelRequest(saved(tmp_path / "m.pt", {"state_dict": state, "args": options})))
    images = torch.rand(2, 3, 64, 64)
    expected = timm.create_model("test_resnet", global_pool="max").eval()
    expected.load_state_dict(state)
    assert torch.allclose(found.encode(images, logits=True)[1], expected(images), atol=1e-6)


def test_crops_of_torchvisions_script_are_used(tmp_path):
    options = argparse.Namespace(model="resnet18", val_crop_size=224, val_resize_size=232, interpolation="bilinear")
    path = saved(tmp_path / "m.pt", {"model": torchvision.models.resnet18().state_dict(), "args": options})
    found = load_encoder(ModelRequest(path)).preprocessing
    assert (found.input_size, int(224 / found.crop_pct), found.interpolation) == ((3, 224, 224), 232, "bilinear")
    assert found.assumed == ("mean", "std")


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.complex64, torch.float8_e4m3fn, torch.bool])
def test_numbers_of_another_kind_are_refused(tmp_path, factory, kind):
    state = TinyNet().state_dict()
    state["conv.weight"] = state["conv.weight"].abs().to(kind)
    message = f"found {str(kind).removeprefix('torch.')} in 1 tensors .conv.weight.: quantised or packed weights"
    for allowed in (False, True):
        with pytest.raises(ArchitectureError, match=message):
            load_encoder(ModelRequest(saved(tmp_path / "m.pt", state), arch=factory, allow_missing=allowed))


def test_half_precision_is_no_other_kind(tmp_path, factory):
    state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in TinyNet().state_dict().items()}
    assert kinds(load_encoder(ModelRequest(saved(tmp_path / "m.pt", state), arch=factory))) == []


def test_averaged_weights_beside_others_are_told(tmp_path, factory):
    path = saved(tmp_path / "m.pt", {"state_dict": TinyNet().state_dict(), "state_dict_ema": TinyNet(seed=1).state_dict()})
    (warning,) = load_encoder(ModelRequest(path, arch=factory)).warnings
    assert warning.kind == "averaged-weights"
    assert warning.message == (
        "the weights under 'state_dict' were taken, of 1 more sets there (state_dict_ema); --ema takes the averaged ones"
    )
    assert "under 'state_dict_ema' were taken" in load_encoder(ModelRequest(path, arch=factory, ema=True)).warnings[0].message


@pytest.mark.parametrize(("name", "prefix"), [("teacher", "module."), ("best", ""), ("swa_state_dict", "_orig_mod.module.")])
def test_further_weights_of_the_same_network_are_told(tmp_path, factory, name, prefix):
    others = {f"{prefix}{key}": tensor for key, tensor in TinyNet(seed=1).state_dict().items()}
    content = {"state_dict": TinyNet().state_dict(), name: others, "scaler": {"scale": torch.ones(1)}, "optimizer": {"state": {}}}
    (warning,) = load_encoder(ModelRequest(saved(tmp_path / "m.pt", content), arch=factory)).warnings
    assert (warning.kind, warning.first) == ("averaged-weights", (name,))


def test_further_weight_files_of_a_folder_are_told(tmp_path, factory):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("optimizer.pt", "scheduler.pt", "training_args.bin", "rng_state.pth", "random_states_0.pth"):
        (folder / name).write_bytes(b"of a trainer")
    for name in ("pytorch_model.bin", "model.safetensors", "last.ckpt", "best.pth"):
        saved(folder / name, TinyNet().state_dict())
    (warning,) = load_encoder(ModelRequest(str(folder), arch=factory)).warnings
    assert (warning.kind, warning.first) == ("weights", ("best.pth", "last.ckpt"))


def test_a_share_of_the_backbone_is_refused_whatever_is_allowed(tmp_path, factory):
    state = TinyNet().state_dict()
    del state["mix.weight"]
    with pytest.raises(
        ArchitectureError, match=r"[0-9]+% of the weights are not in the file, which may hold a part of the network only"
    ):
        load_encoder(ModelRequest(saved(tmp_path / "m.pt", state), arch=factory, allow_missing=True))


def test_modules_whose_sizes_are_not_known_are_refused():
    with pytest.raises(ArchitectureError, match="found lazy ones; run the module once on an image first"):
        load_encoder(ModelRequest(nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3))))


@pytest.mark.parametrize("name", ["test_resnet", "tresnet_m", "csatv2"])
def test_channels_are_those_that_the_network_takes(name):
    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    module = timm.create_model(name)
    assert load_encoder(ModelRequest(module, changes={"input_size": (64, 64)})).preprocessing.input_size[0] == 3


def test_weights_that_do_not_make_the_logits_are_not_the_heads():
    assert load_encoder(ModelRequest(TinyNet())).head_weight() is not None
    for name in ("levit_128s", "deit_tiny_distilled_patch16_224"):
        module = timm.create_model(name).eval()
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm1d):
                norm.running_mean.uniform_(-1, 1)
        assert load_encoder(ModelRequest(module)).head_weight() is None, name
    assert load_encoder(ModelRequest(timm.create_model("test_resnet"))).head_weight() is not None


def test_the_norms_of_timms_script_are_used(tmp_path):
    state = timm.create_model("test_resnet").state_dict()
    options = argparse.Namespace(model="test_resnet", bn_eps=0.1)
    found = load_encoder(ModelRequest(saved(tmp_path / "m.pt", {"state_dict": state, "args": options})))
    eps = {module.eps for module in found.module.modules() if isinstance(module, nn.BatchNorm2d)}
    assert eps == {0.1}


def test_a_mean_of_pixels_from_0_to_255_is_told():
    changes = {"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)}
    (warning,) = load_encoder(ModelRequest(TinyNet(), changes=changes)).warnings
    assert "look like those of pixels from 0 to 255" in warning.message


def test_options_that_cannot_be_used_are_told(tmp_path, factory):
    options = argparse.Namespace(model="test_resnet", gp="max", bn_eps=0.1)
    path = saved(tmp_path / "m.pt", {"state_dict": TinyNet().state_dict(), "args": options})
    (warning,) = load_encoder(ModelRequest(path, arch=factory)).warnings
    assert (warning.kind, warning.first) == ("unused-options", ("global_pool", "bn_eps"))

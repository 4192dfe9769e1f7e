"""What is assumed, chosen or left unused on the way from a file to an encoder is a warning, or is refused."""

import argparse
import warnings

import pytest
import timm
import torch
import torchvision
from cases import TinyNet
from torch import nn

from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest
from gcaudit.errors import ArchitectureError, RequestError


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
        "the weights under 'state_dict' were taken, of 1 more sets there (state_dict_ema); --ema takes the averaged ones, "
        "--weights-key another"
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
    named, warning = load_encoder(ModelRequest(path, arch=factory)).warnings
    assert (named.kind, warning.kind, warning.first) == ("architecture", "unused-options", ("global_pool", "bn_eps"))


class Dropping(TinyNet):
    def features(self, x):
        return nn.functional.dropout(super().features(x), 0.3)


class Counting(TinyNet):
    calls = 0

    def features(self, x):
        self.calls += 1
        return super().features(x) * self.calls


class Centred(TinyNet):
    def forward(self, x):
        found = self.features(x)
        return self.head(found - found.mean(0) if len(found) > 1 else found)


class Paired(TinyNet):
    def forward(self, x):
        found = self.features(x)
        return self.head(found), found


class Doubled(TinyNet):
    def forward(self, x):
        return (super().forward(x) + super().forward(x.flip(-1))) / 2


def unnormed():
    module = TinyNet()
    module.bn = nn.BatchNorm2d(5, track_running_stats=False)
    return module


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (Dropping(), "another embedding each time"),
        (Counting(), "another embedding each time"),
        (Centred(), "depends on the images beside it"),
        (unnormed(), "depends on the images beside it"),
        (Doubled(), "head is called 2 times for an image, of which the last was taken"),
        (Paired(), "has 2 outputs, of which the first was taken"),
    ],
)
def test_networks_that_are_no_function_of_an_image_are_told(module, told):
    torch.manual_seed(0)
    (warning,) = [warning for warning in load_encoder(ModelRequest(module)).warnings if warning.kind == "network"]
    assert told in warning.message


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_rounding_is_no_dependence(kind):
    torch.manual_seed(0)
    module = timm.create_model("test_vit").to(kind)
    assert "network" not in kinds(load_encoder(ModelRequest(module)))


def test_weights_of_a_module_that_are_not_finite_are_refused():
    module = TinyNet()
    module.head.bias.data[1] = float("nan")
    with pytest.raises(ArchitectureError, match=r"expected finite weights of cases\.TinyNet, found NaN or inf in head\.bias"):
        load_encoder(ModelRequest(module))


def test_a_program_of_torchscript_is_refused():
    with warnings.catch_warnings(action="ignore"):  # that it is old
        program = torch.jit.trace(TinyNet(), torch.zeros(1, 3, 8, 8))
    with pytest.raises(RequestError, match="found a TorchScript program"):
        load_encoder(ModelRequest(program))


def test_an_architecture_that_the_checkpoint_contradicts_is_told(tmp_path, factory):
    content = {"state_dict": TinyNet().state_dict(), "arch": "resnet18"}
    path = saved(tmp_path / "m.pt", content)
    (warning,) = load_encoder(ModelRequest(path, arch=factory)).warnings
    assert (warning.kind, "the checkpoint names resnet18" in warning.message) == ("architecture", True)
    state = {"state_dict": timm.create_model("test_resnet").state_dict(), "arch": "test_resnet"}
    path = saved(tmp_path / "same.pt", state)
    assert "architecture" not in kinds(load_encoder(ModelRequest(path, arch="timm:test_resnet.r160_in1k")))


@pytest.mark.parametrize("names", [("head.0.weight", "head.2.weight"), ("head.weight_orig", "head.weight_mask"), ("head.scale",)])
def test_a_head_that_is_left_out_is_told(tmp_path, factory, names):
    state = {name: tensor for name, tensor in TinyNet().state_dict().items() if not name.startswith("head")}
    state |= {name: torch.ones(4, 6) for name in names}
    (warning,) = load_encoder(ModelRequest(saved(tmp_path / "m.pt", state), arch=factory)).warnings
    assert (warning.kind, warning.first) == ("weights", names)


def with_options(**content):
    return {"state_dict": TinyNet().state_dict()} | content


SIZED = {"mean": [0.1] * 3, "std": [0.2] * 3, "input_size": [3, 8, 8]}


@pytest.mark.parametrize("place", [None, "args", "hyper_parameters", "config", "cfg", "opt", "pretrained_cfg"])
def test_preprocessing_is_read_wherever_scripts_leave_it(tmp_path, factory, place):
    content = with_options(**(SIZED if place is None else {place: SIZED}))
    found = load_encoder(ModelRequest(saved(tmp_path / "m.pt", content), arch=factory))
    assert (found.preprocessing.mean, found.preprocessing.std) == ((0.1,) * 3, (0.2,) * 3)


def test_preprocessing_that_a_file_says_twice_is_told_where_it_differs(tmp_path, factory):
    content = with_options(args=SIZED, config=SIZED | {"mean": [0.3] * 3})
    found = load_encoder(ModelRequest(saved(tmp_path / "m.pt", content), arch=factory))
    assert found.preprocessing.mean == (0.1,) * 3
    assert "differently; taken was mean [0.1, 0.1, 0.1]" in found.warnings[0].message
    assert load_encoder(ModelRequest(saved(tmp_path / "m.pt", with_options(args=SIZED, config=SIZED)), arch=factory)).warnings == ()


def test_options_that_change_labels_or_pixels_are_told(tmp_path, factory):
    options = SIZED | {"class_map": "map.txt", "input_img_mode": "L", "epochs": 3}
    (warning,) = load_encoder(ModelRequest(saved(tmp_path / "m.pt", with_options(args=options)), arch=factory)).warnings
    assert (warning.kind, warning.first) == ("unused-options", ("class_map", "input_img_mode"))


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("ema.shadow", lambda state: {"ema": {"shadow": state}}),
        ("model_ema.state_dict", lambda state: {"model_ema": {"state_dict": state, "decay": 0.9}}),
        ("callbacks.EMA.ema_weights", lambda state: {"callbacks": {"EMA": {"ema_weights": list(state.values())}}}),
        ("average_model", lambda state: {"average_model": {f"_orig_mod.{key}": tensor for key, tensor in state.items()}}),
    ],
)
def test_further_weights_at_any_depth_are_told(tmp_path, factory, name, wrap):
    content = with_options(**wrap(TinyNet(seed=1).state_dict()), optimizer={"state": {0: {"exp_avg": torch.ones(2)}}})
    (warning,) = load_encoder(ModelRequest(saved(tmp_path / "m.pt", content), arch=factory)).warnings
    assert (warning.kind, warning.first) == ("averaged-weights", (name,))

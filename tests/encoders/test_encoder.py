import threading

import pytest
import torch
from cases import TinyNet
from torch import nn

from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest
from gcaudit.encoders.weights import state_digest
from gcaudit.errors import ArchitectureError, RequestError


def test_own_module():
    model = TinyNet().eval()
    encoder = load_encoder(ModelRequest(model))
    assert (encoder.dim, encoder.head_outputs, encoder.arch, encoder.spec) == (6, 4, "cases.TinyNet", "cases.TinyNet")
    assert encoder.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert encoder.sha256 == state_digest(model)
    assert (encoder.checkpoint, encoder.warnings) == (None, ())
    assert encoder.preprocessing.input_size == (3, 8, 8)


def test_own_module_is_left_as_it_was():
    model = TinyNet().double().train()
    model.bn.eval()
    model.conv.weight.requires_grad_(False)
    model.head.bias.grad = torch.ones(4, dtype=torch.float64)
    before = state_digest(model)
    encoder = load_encoder(ModelRequest(model))
    with torch.enable_grad():
        pixels = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
        encoder.embed(pixels).sum().backward()
    assert pixels.grad.abs().sum() > 0
    assert model.training
    assert not model.bn.training
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {"conv.weight"}
    assert torch.equal(model.head.bias.grad, torch.ones(4, dtype=torch.float64))
    assert all(p.grad is None for name, p in model.named_parameters() if name != "head.bias")
    assert state_digest(model) == before
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_encoder_is_frozen_and_in_eval_mode():
    encoder = load_encoder(ModelRequest(TinyNet().train()))
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())
    assert not any(module.training for module in encoder.module.modules())
    assert encoder.module.conv.weight.data_ptr() != TinyNet().conv.weight.data_ptr()


def test_embedding_takes_pixels_and_encoding_takes_inputs():
    model = TinyNet().eval()
    encoder = load_encoder(ModelRequest(model))
    pixels = torch.rand(2, 3, 8, 8)
    inputs = (pixels - 0.4) / 0.2
    assert torch.allclose(encoder.embed(pixels), model.features(inputs), atol=1e-6)
    assert torch.equal(encoder.encode(inputs)[0], encoder.embed(pixels))
    assert encoder.encode(inputs)[1] is None
    assert torch.allclose(encoder.encode(inputs, logits=True)[1], model(inputs), atol=1e-6)


def test_changes_reach_the_encoder():
    encoder = load_encoder(ModelRequest(TinyNet(), changes={"mean": (0.0,), "std": (1.0,)}))
    pixels = torch.rand(2, 3, 8, 8)
    assert torch.equal(encoder.embed(pixels), encoder.encode(pixels)[0])
    assert encoder.preprocessing.origin == "architecture, command line"


def test_assumed_preprocessing_is_a_warning():
    model = TinyNet()
    model.pretrained_cfg = {"input_size": (3, 8, 8)}
    (warning,) = load_encoder(ModelRequest(model)).warnings
    assert (warning.kind, warning.message) == (
        "preprocessing",
        "preprocessing was assumed: mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225; if training used others, pass --mean and --std",
    )
    settled = {"mean": (0.5,), "std": (0.5,), "input_size": (8, 8)}
    assert load_encoder(ModelRequest(model, changes=settled)).warnings == ()


def test_channels_of_the_network_win():
    model = TinyNet(channels=1)
    model.pretrained_cfg = {"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert load_encoder(ModelRequest(model)).preprocessing.input_size == (1, 8, 8)


def test_preprocessing_in_the_file_wins_over_the_architecture(tmp_path):
    (tmp_path / "nets.py").write_text("from cases import TinyNet\n\n\ndef tiny(): return TinyNet()\n")
    torch.save({"state_dict": TinyNet().state_dict(), "args": {"mean": [0.1] * 3, "crop_pct": 0.5}}, tmp_path / "m.pt")
    encoder = load_encoder(ModelRequest(str(tmp_path / "m.pt"), arch=f"{tmp_path / 'nets.py'}:tiny"))
    found = encoder.preprocessing
    assert (found.mean, found.crop_pct, found.std, found.input_size) == ((0.1,) * 3, 0.5, (0.2,) * 3, (3, 8, 8))
    assert (found.origin, found.assumed) == ("checkpoint", ())
    assert encoder.sha256 == encoder.checkpoint.sha256
    assert encoder.spec == str(tmp_path / "m.pt")


def test_averaged_weights_reach_the_encoder(tmp_path):
    (tmp_path / "nets.py").write_text("from cases import TinyNet\n\n\ndef tiny(): return TinyNet(seed=9)\n")
    content = {"state_dict": TinyNet(seed=1).state_dict(), "state_dict_ema": TinyNet(seed=2).state_dict()}
    torch.save(content, tmp_path / "m.pt")
    arch = f"{tmp_path / 'nets.py'}:tiny"
    for ema, seed in [(False, 1), (True, 2)]:
        encoder = load_encoder(ModelRequest(str(tmp_path / "m.pt"), arch=arch, ema=ema))
        assert state_digest(encoder.module) == state_digest(TinyNet(seed=seed))


def test_input_of_the_wrong_size_is_told():
    message = (
        r"expected cases\.TinyNet to take one 3x9x20 image, found RuntimeError: .*; it takes one of 3x8x8; pass --input-size 8x8"
    )
    with pytest.raises(ArchitectureError, match=message) as e:
        load_encoder(ModelRequest(TinyNet(), changes={"input_size": (9, 20)}))
    assert "\n" not in str(e.value)


def test_layer_is_asked_for():
    encoder = load_encoder(ModelRequest(TinyNet(), layer="conv"))
    assert (encoder.dim, encoder.tap.layer, encoder.tap.side, encoder.head_outputs) == (5, "conv", "output", 4)
    with pytest.raises(ArchitectureError, match="expected the name of a layer"):
        load_encoder(ModelRequest(TinyNet(), layer="nothing"))


class Body(nn.Module):
    """A network without a classifier."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, x):
        return torch.tanh(self.conv(x))


def test_network_without_a_classifier_needs_a_layer():
    with pytest.raises(ArchitectureError, match="found none; name the layer: --layer conv"):
        load_encoder(ModelRequest(Body(), changes={"input_size": (8, 8)}))
    encoder = load_encoder(ModelRequest(Body(), layer="conv", changes={"input_size": (8, 8)}))
    assert (encoder.dim, encoder.head_outputs) == (5, None)


def test_module_that_cannot_be_copied():
    model = TinyNet()
    model.lock = threading.Lock()
    with pytest.raises(RequestError, match="expected a module that can be copied, found TypeError: cannot pickle"):
        load_encoder(ModelRequest(model))


def test_gradients_flow_to_the_pixels_alone():
    encoder = load_encoder(ModelRequest(TinyNet()))
    pixels = torch.rand(1, 3, 8, 8, requires_grad=True)
    encoder.embed(pixels)[0, 0].backward()
    assert pixels.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in encoder.module.parameters())

import json

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from gcaudit.encoders.layers import list_layers
from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest
from gcaudit.errors import ArchitectureError


class Shared(nn.Module):
    """A network that calls one layer twice and another never."""

    def __init__(self):
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, 8, 8)}
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU()
        self.idle = nn.Linear(2, 2)
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        return self.fc(self.act(self.act(self.conv(x)).mean((2, 3))))


def test_layers_are_listed_with_what_they_give():
    found = {layer.name: (layer.kind, layer.shape, layer.calls) for layer in list_layers(load_encoder(ModelRequest(Shared())))}
    assert found == {
        "conv": ("Conv2d", (4, 8, 8), 1),
        "act": ("ReLU", (4,), 2),
        "idle": ("Linear", None, 0),
        "fc": ("Linear", (5,), 1),
    }


@pytest.mark.parametrize("name", ["layer", "timm:test_vit"])
def test_every_layer_that_is_called_can_be_named(tmp_path, name):
    spec = Shared() if name == "layer" else None
    if spec is None:
        import timm

        spec = timm.create_model("test_vit")
    for layer in list_layers(load_encoder(ModelRequest(spec))):
        if layer.calls and layer.shape and len(layer.shape) in (1, 2, 3) and "attn" not in layer.name:
            encoder = load_encoder(ModelRequest(spec, layer=layer.name))
            assert encoder.dim == layer.shape[-1 if len(layer.shape) < 3 else 0], layer


def test_the_command_prints_a_tree_and_json(run):
    code, out, _ = run("inspect", "demo", "--layers")
    lines = out.splitlines()
    assert (code, lines[0].split()) == (0, ["layer", "class", "output"])
    assert any(line.startswith("  conv1.1 ") and line.endswith("16x14x14") for line in lines)
    told = json.loads(run("inspect", "demo", "--layers", "--format", "json")[1])
    assert {"name": "fc", "kind": "Linear", "shape": [5], "calls": 1} in told


def test_a_wrong_name_is_answered_with_the_nearest(run):
    code, out, err = run("inspect", "demo", "--layer", "layer1.0.conv")
    assert (code, out) == (2, "")
    assert "did you mean" in err
    assert "--layers lists them" in err


def test_torchvisions_node_names_are_taken():
    network = torchvision.models.resnet18().eval()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for name in ("flatten", "layer1.0.relu_1", "layer2.1.add", "layer4.1.relu_0"):
        encoder = load_encoder(ModelRequest(network, layer=name, changes={"input_size": (64, 64)}))
        plain = create_feature_extractor(network, {name.removesuffix("_0"): "wanted"})
        if name == "layer2.1.add":  # what is returned would be changed in place by the activation
            plain.layer2.get_submodule("1").relu.inplace = False
        with torch.no_grad():
            wanted = plain(image)["wanted"]
            found, _ = encoder.tap(encoder.module, image)
        assert torch.equal(found, wanted.flatten(2).mean(2) if wanted.ndim == 4 else wanted), name
        assert (encoder.tap.name, encoder.head_outputs) == (name, 1000)
        assert f"output of {name}" in encoder.tap.describe()
        assert [warning for warning in encoder.warnings if warning.kind == "network"] == []


def test_a_call_that_there_is_not_is_named():
    with pytest.raises(ArchitectureError, match=r"expected a call of act from act_0 to act_1, found 'act_2'"):
        load_encoder(ModelRequest(Shared(), layer="act_2"))
    with pytest.raises(ArchitectureError, match=r"found 'layer2\.1\.ad'; did you mean .*layer2\.1\.add"):
        load_encoder(ModelRequest(torchvision.models.resnet18(), layer="layer2.1.ad"))


def test_a_layer_that_is_called_twice_tells_which_call_was_taken():
    (told,) = [str(w) for w in load_encoder(ModelRequest(Shared(), layer="act")).warnings if "called" in str(w)]
    assert "act is called 2 times for an image, of which the last was taken" in told
    assert "act_0 for the first" in told


def test_the_listing_comes_with_the_models_warnings(run, tmp_path):
    torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "model.pt")
    code, out, err = run("inspect", str(tmp_path / "model.pt"), "--arch", "torchvision:squeezenet1_1", "--layers")
    assert (code, out.splitlines()[0].split()) == (0, ["layer", "class", "output"])
    assert err.startswith("gcaudit: warning: ")


class Mixed(nn.Module):
    """A network whose activation is a layer, a function, and the layer again; torchvision numbers all three together."""

    def __init__(self):
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, 8, 8)}
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.relu = nn.ReLU()
        self.fc = nn.Linear(3, 5)

    def forward(self, x):
        x = self.second(self.relu(self.first(x)))
        x = self.third(nn.functional.relu(x))
        return self.fc(self.relu(x).mean((2, 3)))


def test_calls_are_numbered_as_torchvision_does():
    network, image = Mixed().eval(), torch.rand(1, 3, 8, 8)
    for name in ("relu_1", "relu_2"):
        encoder = load_encoder(ModelRequest(network, layer=name))
        with torch.no_grad():
            wanted = create_feature_extractor(network, {name: "wanted"})(image)["wanted"]
            assert torch.equal(encoder.tap(encoder.module, image)[0], wanted.mean((2, 3)))

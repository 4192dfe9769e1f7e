import json

import pytest
from torch import nn

from gcaudit.encoders.layers import list_layers
from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest


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

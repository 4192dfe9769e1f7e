import sys

import pytest
import torch
import torchvision
from torch import nn

from gcaudit.encoders.architectures import build_architecture
from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest
from gcaudit.errors import ArchitectureError


def test_torchvision_weights_that_differ_in_preprocessing_are_a_warning(tmp_path):
    torch.save(torchvision.models.get_model("mobilenet_v2", weights=None).state_dict(), tmp_path / "m.pt")
    found = load_encoder(ModelRequest(str(tmp_path / "m.pt"), arch="torchvision:mobilenet_v2"))
    assert found.preprocessing.assumed
    assert (
        "--arch torchvision:mobilenet_v2:IMAGENET1K_V1 or --arch torchvision:mobilenet_v2:IMAGENET1K_V2"
        in found.warnings[0].message
    )
    named = load_encoder(ModelRequest(str(tmp_path / "m.pt"), arch="torchvision:mobilenet_v2:IMAGENET1K_V1"))
    assert not named.preprocessing.assumed
    assert named.warnings == ()
    assert int(224 / named.preprocessing.crop_pct) == 256


def test_torchvision_weights_that_agree_are_none():
    assert build_architecture("torchvision:resnet18", {}).doubt == ""


@pytest.mark.parametrize("place", ["import", "factory"])
def test_a_file_that_exits_does_not_end_the_program(tmp_path, place):
    path = tmp_path / "mine.py"
    path.write_text("import sys\n" + ("sys.exit(0)\n" if place == "import" else "def net():\n    sys.exit(0)\n"))
    with pytest.raises(ArchitectureError, match="SystemExit"):
        build_architecture(f"{path}:net", {})
    sys.modules.pop("mine", None)


class Overwritten(nn.Module):
    """Works in place on the output of a layer, as residual networks do."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(12, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        y = self.first(x.flatten(1))
        y += 100
        return self.head(torch.relu_(y))


def test_a_layers_output_is_taken_before_others_change_it():
    net = Overwritten()
    net.pretrained_cfg = {"input_size": (3, 2, 2), "mean": (0.0,) * 3, "std": (1.0,) * 3}
    x = torch.rand(4, 3, 2, 2)
    found = load_encoder(ModelRequest(net, layer="first")).embed(x)
    torch.testing.assert_close(found, net.first(x.flatten(1)))


def test_a_factorys_file_may_import_files_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_the_factory.py").write_text("CLASSES = 3\n")
    (tmp_path / "mine.py").write_text(
        "from torch import nn\ndef net():\n    import beside_the_factory\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, beside_the_factory.CLASSES))\n"
    )
    built = build_architecture(f"{tmp_path / 'mine.py'}:net", {})
    assert built.module[2].out_features == 3

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import gcaudit
from gcaudit.cli import main

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.pop("COLUMNS", None)  # what is printed into pipes is as wide as it is everywhere
# threads of small networks wait for each other far longer than they work when the cores are shared
torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="device for the tests that run a network, such as cuda")


@pytest.fixture
def device(request):
    return request.config.getoption("--device")


@pytest.fixture(scope="session")
def shared():
    """Real data and checkpoints that lie beside the repository."""
    folder = Path(os.environ.get("GCAUDIT_SHARED", ROOT.parent / "shared"))
    if not (folder / "checkpoints").is_dir():
        pytest.skip(f"no real data and checkpoints at {folder}")
    return folder


@pytest.fixture(scope="session")
def repository():
    return ROOT


STUCK = """
import time
from pathlib import Path
from types import SimpleNamespace
from torch import nn

class Stuck(nn.Module):
    pretrained_cfg = {"input_size": (1, 28, 28), "mean": (0.5,), "std": (0.5,), "crop_pct": 1.0, "interpolation": "bilinear"}

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(784, 5)

    def forward(self, x):
        while len(x) > 2:  # a batch of the audit, not a trial run
            (Path(__file__).parent / "reached").touch()
            time.sleep(0.02)
        return self.fc(x.flatten(1))
"""


@pytest.fixture
def stuck(tmp_path):
    """A checkpoint whose network never comes to the end of its first batch, and whether it is there."""
    folder = tmp_path / "stuck"
    folder.mkdir()
    (folder / "net.py").write_text(STUCK)
    torch.save({"fc.weight": torch.ones(5, 784), "fc.bias": torch.zeros(5)}, folder / "net.pt")
    model = (str(folder / "net.pt"), "--arch", f"{folder / 'net.py'}:Stuck")
    return SimpleNamespace(model=model, reached=(folder / "reached").exists)


@pytest.fixture(scope="session")
def demo():
    """The report of `gcaudit demo`, with its evidence."""
    return gcaudit.score("demo", "demo", "demo")


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["gcaudit", *(str(argument) for argument in arguments)])
        code = main.run()
        return code, *capsys.readouterr()

    return call

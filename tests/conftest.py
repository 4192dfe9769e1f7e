import os
import sys
from pathlib import Path

import pytest
import torch

from gcaudit.cli import main

os.environ.setdefault("HF_HUB_OFFLINE", "1")
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


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["gcaudit", *(str(argument) for argument in arguments)])
        code = main.run()
        return code, *capsys.readouterr()

    return call

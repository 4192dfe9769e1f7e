import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(max(1, min(2, os.cpu_count() or 1)))

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="device for the tests that run a network, such as cuda")


@pytest.fixture
def device(request):
    return request.config.getoption("--device")


@pytest.fixture
def shared():
    """Real data and checkpoints that lie beside the repository."""
    folder = Path(os.environ.get("GCAUDIT_SHARED", ROOT.parent / "shared"))
    if not (folder / "checkpoints").is_dir():
        pytest.skip(f"no real data and checkpoints at {folder}")
    return folder


@pytest.fixture
def repository():
    return ROOT

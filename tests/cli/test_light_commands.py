"""Commands that read JSON, SQLite and text alone import nothing of what runs networks."""

import json
import subprocess
import sys

import pytest

import gcaudit

HEAVY = {
    "torch",
    "timm",
    "torchvision",
    "pandas",
    "scipy",
    "sklearn",
    "pyarrow",
    "datasets",
    "huggingface_hub",
    "matplotlib",
    "ray",
}
CHECK = """
import json, sys
from gcaudit.cli.main import run
sys.argv = ["gcaudit", *sys.argv[1:]]
code = run()
print(json.dumps([code, sorted(name for name in sys.modules if "." not in name)]), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a report, its evidence, and a store."""
    from gcaudit.cli import main

    place = tmp_path_factory.mktemp("light")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name in ("new.json", "old.json"):
            patch.setattr(
                sys, "argv", ["gcaudit", "score", "demo", "-s", "demo", "-t", "demo", "--save-evidence", "-q", "-o", name]
            )
            assert main.run() == 0
        gcaudit.compare("demo", "demo", "demo", metrics="cdnv,probe_accuracy", episodes=5)
    return place


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "score --help",
        "compare --help",
        "gate --help",
        "gate new.json -r source.cdnv<=1 -r warning:shared --junit gate.xml",
        "gate new.json --baseline old.json --max-regression 2% -f json",
        "gate new.json --baseline old.json -f markdown",
        "power new.json",
        "power new.json --baseline old.json",
        "metrics",
        "metrics gc",
        "metrics -f json",
        "datasets",
        "datasets -f json",
        "results",
        "results list --where seed=0",
        "results prune --failed --dry-run",
        "results export all.json",
        "results repair",
        "schema report",
        "schema gate",
        "schema ranking",
        "schema zoo",
    ],
)
def test_nothing_heavy_is_imported(folder, command):
    done = subprocess.run([sys.executable, "-c", CHECK, *command.split()], cwd=folder, capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    assert done.stdout or command.startswith("results export")
    assert not HEAVY & set(modules)


@pytest.mark.parametrize(
    "command",
    ["--help", "metrics", "datasets", "gate new.json -r source.cdnv<=1", "power new.json", "results list", "schema report"],
)
def test_arrays_are_for_comparisons_alone(folder, command):
    """Evidence lies beside both reports; without a baseline nobody asks for it."""
    done = subprocess.run([sys.executable, "-c", CHECK, *command.split()], cwd=folder, capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    assert "numpy" not in modules

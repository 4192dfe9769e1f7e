"""CPU seconds of commands that run no network, against importing Typer with its help alone. Run with `-s` to see them."""

import os
import subprocess
import sys

import pytest

RUNS = 7
BASE = [sys.executable, "-c", "import typer, typer.rich_utils"]
COMMANDS = (
    *(
        "--help",
        "score --help",
        "gate r.json -r source.cdnv<=1",
        "gate r.json --baseline r.json --max-regression 2%",
        "power r.json",
    ),
    *("metrics", "metrics gc", "datasets", "results list", "schema report", "schema zoo"),
)


def cpu_seconds(command, folder):
    """The least of several runs: what other processes add is no part of it."""
    found = []
    for _ in range(RUNS):
        before = os.times()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = os.times()
        found.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("light")
    program = [sys.executable, "-m", "gcaudit"]
    subprocess.run(
        [*program, "score", "demo", "-s", "demo", "-t", "demo", "--save-evidence", "-q", "-o", "r.json"], cwd=place, check=True
    )
    subprocess.run(
        [*program, "compare", "demo", "-s", "demo", "-t", "demo", "-q"], cwd=place, check=True, stdout=subprocess.DEVNULL
    )
    return place


@pytest.mark.parametrize("command", COMMANDS)
def test_cpu_seconds(folder, command):
    base = cpu_seconds(BASE, folder)
    own = cpu_seconds([sys.executable, "-m", "gcaudit", *command.split()], folder)
    print(f"\n{command}: {own:.2f} s of CPU, {own / base:.2f} times importing Typer and its help ({base:.2f} s)")
    assert own < 10 * base

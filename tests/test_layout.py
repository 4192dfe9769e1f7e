"""The picture of the code, kept true: a house of rooms, whose imports point down, to the faces of rooms on floors below."""

import ast
import importlib
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gcaudit

PACKAGE = Path(gcaudit.__file__).parent
FLOORS = (
    {"__main__"},
    {"cli"},
    {"render", "__init__"},
    {"zoo"},
    {"store"},
    {"audit"},
    {"passes", "regularizers"},
    {"gate", "encoders"},
    {"metrics", "data"},
    {"geometry", "report", "checkpoints"},
    {"files"},
    {"errors", "progress", "bundled"},
)
"""From the roof to the ground."""
LIBRARIES = {
    "timm": {"encoders"},
    "torchvision": {"encoders", "data"},
    "torchvision.models": {"encoders"},
    "torchvision.datasets": {"data"},
    "safetensors": {"store"},
    "datasets": {"data"},
    "pyarrow": {"data"},
    "huggingface_hub": {"data", "encoders"},
    "pandas": {"zoo", "render"},
    "scipy": {"metrics", "geometry"},
    "sklearn": {"metrics", "geometry"},
    "ray": {"zoo"},
    "sqlite3": {"store"},
    "transformers": {"encoders"},
    "typer": {"cli"},
    "rich": {"progress"},
    "matplotlib": {"render"},
    "jinja2": {"render"},
    "pydantic": {"render", "report", "zoo"},
    "yaml": {"files", "zoo"},
}
"""Where a library may be imported; the standard library, torch, numpy and PIL may be everywhere but in `geometry`, which has torch alone."""
FACE = ["import lazy_loader", "__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)"]
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists())


def floor_of(room):
    """Count floors from the roof down."""
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def imports_of(tree):
    """What a module imports anywhere in it, also for type checkers only; of relative imports there are none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield node.module


def modules():
    """Every module that is no face, as (name, room, syntax tree)."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1] != "__init__":
            yield ".".join(parts), parts[0], ast.parse(path.read_text(encoding="utf-8"))


def stub_of(room):
    """The names that a room hands on, each with the module that defines it."""
    tree = ast.parse((PACKAGE / room / "__init__.pyi").read_text(encoding="utf-8"))
    assert all(isinstance(node, ast.ImportFrom) and node.level == 1 for node in tree.body)
    return {alias.name: node.module for node in tree.body for alias in node.names}


MODULES = list(modules())
each_module = pytest.mark.parametrize(("name", "room", "tree"), MODULES, ids=[name for name, _, _ in MODULES])
each_room = pytest.mark.parametrize("room", ROOMS)


def test_the_house_has_these_rooms_and_nothing_beside_them():
    assert {room for rooms in FLOORS for room in rooms} == {*ROOMS, "__init__", "__main__", "errors", "progress", "regularizers"}
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files == {"__init__.py", "__init__.pyi", "__main__.py", "errors.py", "progress.py", "py.typed", "regularizers.py"}
    assert len(FLOORS) <= 12


@each_module
def test_imports_point_down_to_the_faces_of_rooms(name, room, tree):
    for wanted in imports_of(tree):
        top, _, inner = wanted.partition(".")
        other, _, deeper = inner.partition(".")
        if top == "gcaudit" and other != room:
            assert other, f"gcaudit.{name} imports the package's public names"
            assert floor_of(other) > floor_of(room), f"gcaudit.{name} imports {wanted}, which is not below it"
            assert not deeper, f"gcaudit.{name} imports {wanted} past the face of its room"


@each_room
def test_no_circles_within_a_room(room):
    graph = {}
    for name, own, tree in MODULES:
        if own == room:
            inside = {wanted.removeprefix("gcaudit.") for wanted in imports_of(tree) if wanted.startswith(f"gcaudit.{room}.")}
            graph[name] = inside
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"modules that import each other: {error.args[1]}") from None


@each_room
def test_a_face_says_what_the_room_is_for_and_defines_nothing(room):
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert [ast.unparse(node) for node in tree.body[1:]] == FACE


@each_room
def test_a_face_hands_on_what_others_use_and_nothing_else(room):
    used = {"program"} if room == "cli" else set()
    for _, own, tree in MODULES:
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == f"gcaudit.{room}" and own != room:
                used |= {alias.name for alias in node.names}
    face = stub_of(room)
    assert set(face) == used
    for name, module in face.items():
        there = importlib.import_module(f"gcaudit.{room}.{module}")
        assert getattr(importlib.import_module(f"gcaudit.{room}"), name) is getattr(there, name)


@each_module
def test_libraries_stay_in_their_rooms(name, room, tree):
    for wanted in imports_of(tree):
        parts = wanted.split(".")
        for depth in range(1, len(parts) + 1):
            rooms = LIBRARIES.get(".".join(parts[:depth]))
            assert rooms is None or room in rooms, f"gcaudit.{name} imports {wanted}"


def test_geometry_knows_only_mathematics():
    for name, room, tree in MODULES:
        if room == "geometry":
            outside = {wanted.split(".")[0] for wanted in imports_of(tree)} - set(sys.stdlib_module_names)
            assert outside <= {"torch", "gcaudit", "scipy", "sklearn"}, name


def test_help_imports_nothing_heavy():
    code = "import sys, gcaudit.cli.main; print(sorted({'torch', 'timm', 'numpy', 'pydantic', 'datasets'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


AUDIT = """
import sys, torch, gcaudit
from torch import nn
net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 2))
net.pretrained_cfg = {"input_size": (3, 2, 2), "mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 1.0, "interpolation": "nearest"}
images, labels = torch.rand(20, 3, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
data = (images, labels) if len(sys.argv) == 1 else sys.argv[1]
report = gcaudit.score(net, data, data, n_way=2, n_shot=1, n_query=3, episodes=5)
assert report.source.metrics["gc"].value > 0 and report.target.metrics["probe_accuracy"].value is not None
print(sorted({"pyarrow", "pandas", "datasets", "sklearn", "scipy", "matplotlib", "rich", "sqlite3", "ray"} & set(sys.modules)))
"""


@pytest.mark.parametrize("kind", ["tensors", "folders"])
def test_an_audit_of_tensors_or_folders_needs_no_library_for_tables(kind, tmp_path):
    if kind == "folders":
        for number in range(20):
            (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 255, (2, 2, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "ab"[number % 2] / f"{number}.png")
    command = [sys.executable, "-W", "ignore", "-c", AUDIT, *([str(tmp_path)] if kind == "folders" else [])]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[]"


def test_no_module_outgrows_a_head():
    long = {path.name: n for path in PACKAGE.rglob("*.py") if (n := len(path.read_text(encoding="utf-8").splitlines())) > 420}
    assert not long


def test_what_tests_and_examples_and_the_readme_import_is_there(repository):
    """Also in programs that are strings, and in benchmarks, which a plain run does not collect."""
    places = [repository / "README.md", *(path for part in ("tests", "examples") for path in (repository / part).rglob("*.py"))]
    for path in places:
        for module, names in re.findall(
            r"^\s*from (gcaudit[.\w]*) import ([\w, ]+)$", path.read_text(encoding="utf-8"), re.MULTILINE
        ):
            for name in names.split(", "):
                found = importlib.import_module(module)
                assert hasattr(found, name.split(" as ")[0]) or importlib.import_module(f"{module}.{name.split(' as ')[0]}"), path


def test_names_at_the_top_are_what_they_say():
    for name in gcaudit.__all__:
        assert name == "METRICS" or getattr(gcaudit, name).__name__.removeprefix("gcaudit.") == name
    assert len(gcaudit.METRICS) > 5
    assert set(gcaudit.__all__) <= set(dir(gcaudit))
    with pytest.raises(AttributeError, match="No gcaudit attribute nothing"):
        _ = gcaudit.nothing


def test_the_function_gate_wins_over_the_room_of_its_name():
    code = "from gcaudit.gate import parse_name; import gcaudit.gate.judge, gcaudit; print(gcaudit.gate is gcaudit.gate.__globals__['gate'])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "True", found.stderr


def test_the_readme_lists_every_warning(repository):
    from gcaudit.report.warnings import WARNINGS

    text = (repository / "README.md").read_text(encoding="utf-8")
    for kind, meaning in WARNINGS.items():
        assert f"| `{kind}` | {meaning} |" in text
    used = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    for kind in set(WARNINGS) - {"other"}:
        assert f'warn("{kind}"' in used or f'("{kind}", "' in used or f'        "{kind}",\n' in used, kind


def test_the_tests_that_the_readme_names_are_there(repository):
    text = (repository / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_/0-9]+/test_[a-z_0-9]+\.py)`", text))
    assert len(named) > 15
    lost = [name for name in named if not (repository / name).is_file() and not (repository / "tests" / name).is_file()]
    assert lost == []

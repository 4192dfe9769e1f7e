"""The picture of the code, kept true: imports point strictly down, and heavy libraries stay in their rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gcaudit

PACKAGE = Path(gcaudit.__file__).parent
LAYERS = [
    {"errors", "bundled", "splits", "hub", "progress"},
    {"geometry"},
    {"report.evidence"},
    {"metrics", "checkpoints", "data", "report.schema", "batchsize", "embeddings", "heap", "claims"},
    {"encoders"},
    {"runner"},
    {"sink"},
    {"observe"},
    {"spec"},
    {"blocks"},
    {"audit", "rules", "zoo_text"},
    {"zoo"},
    {"comparable", "kept", "store"},
    {"identity"},
    {"engine"},
    {"engine_ray"},
    {"cells"},
    {"ranking", "truth"},
    {"gates"},
    {"report"},
    {"console"},
    {"rank_zoo"},
    {"options"},
    {"cli"},
    {"__main__"},
]
ROOMS = {
    "timm": {"encoders"},
    "safetensors": {"checkpoints", "kept"},
    "datasets": {"data"},
    "pyarrow": {"data"},
    "typer": {"cli", "options"},
    "pydantic": {"report.schema", "zoo", "zoo_text"},
}


def layer_of(name):
    for number, rooms in enumerate(LAYERS):
        if any(name == room or name.startswith(f"{room}.") for room in sorted(rooms, key=len, reverse=True)):
            if name in ("report.schema", "report.evidence") and name not in rooms:
                continue
            return number
    raise AssertionError(f"gcaudit.{name} has no place in the picture of the code")


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize(("name", "tree"), list(modules()), ids=[name for name, _ in modules()])
def test_imports_point_down(name, tree):
    room = name.split(".")[0]
    for wanted in imports(tree):
        inner = wanted.removeprefix("gcaudit.")
        if wanted.startswith("gcaudit.") and inner.split(".")[0] != room:
            assert layer_of(inner) < layer_of(name), f"gcaudit.{name} imports {wanted}"


@pytest.mark.parametrize(("name", "tree"), list(modules()), ids=[name for name, _ in modules()])
def test_libraries_stay_in_their_rooms(name, tree):
    for wanted in imports(tree):
        rooms = ROOMS.get(wanted.split(".")[0])
        assert rooms is None or any(name == room or name.startswith(f"{room}.") for room in rooms), (
            f"gcaudit.{name} imports {wanted}"
        )


def test_geometry_knows_only_mathematics():
    for name, tree in modules():
        if name.startswith("geometry"):
            outside = {wanted.split(".")[0] for wanted in imports(tree)} - set(sys.stdlib_module_names)
            assert outside <= {"torch", "gcaudit", "scipy", "sklearn"}, name


def test_help_imports_nothing_heavy():
    code = "import sys, gcaudit.cli; print(sorted({'torch', 'timm', 'numpy', 'pydantic', 'datasets'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_no_module_outgrows_a_head():
    long = {path.name: n for path in PACKAGE.rglob("*.py") if (n := len(path.read_text(encoding="utf-8").splitlines())) > 420}
    assert not long


def test_names_at_the_top_are_what_they_say():
    for name in gcaudit.__all__:
        assert name == "METRICS" or getattr(gcaudit, name).__name__ == name
    assert len(gcaudit.METRICS) > 5
    assert set(gcaudit.__all__) <= set(dir(gcaudit))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gcaudit.nothing

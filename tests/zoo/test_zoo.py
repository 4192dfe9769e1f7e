import re
from pathlib import Path

import pytest

from gcaudit.errors import RequestError
from gcaudit.zoo.names import resolve_models
from gcaudit.zoo.zoo import ZooData, expand_models, read_zoo


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "runs").mkdir()
    for name in ("runs/a.pt", "runs/b.pt", "runs/.hidden.pt", "weights.pth", "nets.py", "images.parquet"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "photos").mkdir()
    return tmp_path


def read(folder, text, name="zoo.yaml"):
    (folder / name).write_text(text)
    return read_zoo(folder / name)


FULL = """\
models:
  - runs/*.pt
  - model: weights.pth
    name: mine
    arch: nets.py:make
    arch-args: {num_classes: 10, in_chans: 1}
    mean: [0.5, 0.4, 0.3]
    input-size: 32
    allow_missing: true
sources:
  - cifar10
  - data: images.parquet
    name: pictures
    split: test
    classes: 0-9
    max-images: 2000
target: photos
settings:
  n-shot: [1, 5]
  n_query: all
  batch-size: auto
  metrics: all
  gc-rtol: 0.05
  seed: 3
"""


def test_all_that_a_file_may_say(folder):
    zoo = read(folder, FULL)
    assert [model.name for model in zoo.models] == ["a", "b", "mine"]
    assert zoo.models[0].fields == {"model": str(folder / "runs" / "a.pt")}
    assert zoo.models[2].fields == {
        "model": str(folder / "weights.pth"),
        "arch": f"{folder / 'nets.py'}:make",
        "arch_args": {"num_classes": 10, "in_chans": 1},
        "mean": (0.5, 0.4, 0.3),
        "input_size": (32, 32),
        "allow_missing": True,
    }
    assert zoo.sources == (ZooData("cifar10", "cifar10"), ZooData("pictures", str(folder / "images.parquet"), "test", "0-9", 2000))
    assert zoo.targets == (ZooData("photos", str(folder / "photos")),)
    expected = {"n_shot": (1, 5), "n_query": None, "batch_size": None, "metrics": ("all",), "gc_rtol": 0.05, "seed": 3}
    assert dict(zoo.settings) == expected
    assert zoo.sources[1].fields("target") == {
        "target": str(folder / "images.parquet"),
        "target_split": "test",
        "target_classes": "0-9",
        "target_max_images": 2000,
    }


def test_paths_stay_as_typed_in_the_working_folder(folder, monkeypatch):
    (folder / "zoo.yaml").write_text("models: [weights.pth]\nsource: photos\n")
    monkeypatch.chdir(folder)
    zoo = read_zoo(Path("zoo.yaml"))
    assert zoo.models[0].fields["model"] == "weights.pth"
    assert zoo.sources[0].spec == "photos"
    assert zoo.targets == ()


def test_names_that_are_no_paths_stay_as_they_are(folder):
    (folder / "cifar10").mkdir()
    zoo = read(folder, "models: [demo, 'timm:resnet18', 'hf-hub:a/b', /abs/x.pt]\nsources: [cifar10, 'hf:a/b', 'disk:photos']\n")
    assert [model.fields["model"] for model in zoo.models] == ["demo", "timm:resnet18", "hf-hub:a/b", "/abs/x.pt"]
    assert [data.spec for data in zoo.sources] == ["cifar10", "hf:a/b", f"disk:{folder / 'photos'}"]


def test_an_explicit_entry_wins_over_a_glob(folder):
    zoo = read(folder, "models:\n  - runs/*.pt\n  - {model: runs/a.pt, layer: fc}\nsource: photos\n")
    assert [(model.name, model.fields.get("layer")) for model in zoo.models] == [("b", None), ("a", "fc")]


def test_files_of_one_name_are_told_apart_by_their_folders(folder):
    (folder / "more").mkdir()
    (folder / "more" / "a.pt").write_bytes(b"")
    found = expand_models([str(folder / "runs" / "*.pt"), str(folder / "more" / "a.pt")], {"arch": "timm:resnet18"})
    assert [model.name for model in found] == ["runs/a", "runs/b", "more/a"]
    assert {model.fields["arch"] for model in found} == {"timm:resnet18"}


def test_globs_of_published_names():
    names = resolve_models("timm:resnet18.a*")
    assert "timm:resnet18.a1_in1k" in names
    assert names == sorted(names)
    assert resolve_models("torchvision:resnet1*") == ["torchvision:resnet101", "torchvision:resnet152", "torchvision:resnet18"]


M = "models: [demo]\n"
S = "source: demo\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("models: [demo\n", 2, "expected YAML"),
        ("a: b: c\n", 1, "expected YAML"),
        ("- demo\n", 1, "expected the keys models, sources, targets and settings, found list"),
        (S, 1, "expected the key 'models', found none"),
        ("models: []\n" + S, 1, "at least 1 item"),
        (M + "model: x\n" + S, 2, "found 'model'; did you mean models"),
        (M + S + "source: demo\n", 3, "expected each key once, found 'source' again"),
        (M + S + "sources: [demo]\n", 2, "expected one of source and sources"),
        (M + S + "settings:\n  sed: 1\n", 4, "found 'sed'; did you mean seed"),
        (M + S + "settings:\n  seed: a\n", 4, "expected for 'seed'"),
        (M + S + "settings:\n  n-shot: x\n", 4, "n-shot"),
        (M + S + "settings:\n  episodes: 1\n  gc: foo\n", 5, "expected --gc of"),
        (M + S + "settings:\n  n-way: 1\n", 4, "expected"),
        (M + S + "settings:\n  metrics: [cdnv, nothing]\n", 4, "name of a metric, found 'nothing'"),
        (M + S + "settings:\n  arch: timm:x\n", 4, "which belongs under models"),
        (M + S + "settings:\n  source-split: test\n", 4, "which belongs under sources or targets"),
        ("models:\n  - demo\n  - model: demo\n    arhc: x\n" + S, 4, "found 'arhc'; did you mean arch"),
        ("models:\n  - demo\n  - demo\n" + S, 3, "expected each model once, found that of line 2 again"),
        (
            "models:\n  - {model: demo, name: x}\n  - {model: weights.pth, name: x}\n" + S,
            3,
            "expected names that differ, found 'x'",
        ),
        ("models:\n  - {model: 'runs/*.pt', name: x}\n" + S, 2, "expected a name for one model, found 2"),
        ("models:\n  - nothing/*.pt\n" + S, 2, "expected models that match"),
        ("models:\n  - name: x\n" + S, 2, "expected the key 'model', found none"),
        (M + "sources:\n  - demo\n  - {data: demo, max-images: many}\n", 4, "max-images"),
        (M + "sources:\n  - demo\n  - demo\n", 4, "expected names that differ, found 'demo' twice"),
        ("models: [!!python/object:os.system {}]\n" + S, 1, "expected plain YAML, found the tag"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(folder, text, line, message):
    with pytest.raises(RequestError) as caught:
        read(folder, text)
    said = str(caught.value)
    assert said.startswith(f"{folder / 'zoo.yaml'}, line {line}: "), said
    assert re.search(re.escape(message), said), said
    assert "\n" not in said


def test_large_files_and_aliases_that_explode_are_refused(folder):
    with pytest.raises(RequestError, match="at most 1 MiB"):
        read(folder, "# " + "x" * 2**20)
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(RequestError, match="expected at most 100000 parts"):
        read(folder, bomb)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RequestError, match="expected a file of models at"):
        read_zoo(tmp_path / "no.yaml")


def test_a_zoo_on_the_command_line(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo.yaml").write_text(
        "models:\n  - demo\n  - {model: demo, name: earlier, layer: layer3}\nsource: {data: demo, max-images: 50}\n"
        "target: {data: demo, max-images: 100}\nsettings: {episodes: 20, metrics: [cdnv, probe_accuracy]}\n"
    )
    code, out, err = run("compare", "zoo.yaml")
    assert code == 0, err
    assert "earlier" in out
    assert "2 cells: 2 measured" in err
    code, out, err = run("compare", "zoo.yaml", "--metrics", "cdnv", "--format", "csv")
    assert "target.cdnv" in out
    assert "probe_accuracy" not in out
    assert run("compare", "zoo.yaml", "demo")[0] == 2

import json
from pathlib import Path

import pytest
import typer

import gcaudit
from gcaudit.audit.option_values import read_value
from gcaudit.audit.options import OPTIONS
from gcaudit.audit.spec import AuditSpec
from gcaudit.cli.main import app
from gcaudit.errors import RequestError
from gcaudit.zoo.option_file import project_options, read_option_file

BY_NAME = {option.name: option for option in OPTIONS}


def every_option(command=None, name="gcaudit"):
    command = command or typer.main.get_command(app)
    for sub_name, sub in getattr(command, "commands", {}).items():
        yield from every_option(sub, f"{name} {sub_name}")
    yield from ((name, parameter) for parameter in command.params if parameter.param_type_name == "option")


@pytest.mark.parametrize(("command", "option"), list(every_option()), ids=lambda value: getattr(value, "name", value))
def test_every_default_is_shown(command, option):
    if option.is_eager or option.name in ("help", "install_completion", "show_completion"):
        return
    told = option.show_default
    assert isinstance(told, str) or (told and option.default is not None and (option.default is not False or option.secondary_opts))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("mean", "0.485,0.456,0.406", (0.485, 0.456, 0.406)),
        ("mean", [0.5], (0.5,)),
        ("mean", 0.5, (0.5,)),
        ("n_shot", "1,5", (1, 5)),
        ("n_shot", 5, (5,)),
        ("n_query", "all", None),
        ("n_query", "7", 7),
        ("batch_size", "auto", None),
        ("gc_images", "all", None),
        ("gc_rtol", "0.1", 0.1),
        ("max_images", "100", 100),
        ("input_size", "224x160", (224, 160)),
        ("input_size", "224", (224, 224)),
        ("input_size", 224, (224, 224)),
        ("input_size", [96], (96, 96)),
        ("input_size", (96, 64), (96, 64)),
        ("metrics", "gc,cdnv", ("gc", "cdnv")),
        ("metrics", "all", ("all",)),
        ("arch_args", "in_chans=1", {"in_chans": 1}),
        ("arch_args", ["in_chans=1", "act=relu", "pre=True"], {"in_chans": 1, "act": "relu", "pre": True}),
        ("arch_args", {"in_chans": 1}, {"in_chans": 1}),
        ("source_split", "test", "test"),
        ("ema", True, True),
    ],
)
def test_values_are_read_alike_wherever_they_are_typed(name, text, value):
    assert read_value(BY_NAME[name], text) == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mean", "red", "expected --mean of numbers such as 0.485,0.456,0.406, found 'red'"),
        ("mean", ",", "expected --mean of numbers"),
        ("n_shot", "1,five", "expected --n-shot of numbers such as 1,5,20"),
        ("n_query", "some", "expected --n-query of a number or 'all', found 'some'"),
        ("max_images", "many", "expected --max-images of a whole number, found 'many'"),
        ("crop_pct", "wide", "expected --crop-pct of a number, found 'wide'"),
        ("input_size", "224x", "expected --input-size such as 224 or 224x160"),
        ("input_size", "3x224x224", "expected --input-size such as 224 or 224x160"),
        ("input_size", (0,), "expected --input-size such as 224 or 224x160"),
        ("arch_args", "in-chans=1", "expected --arch-arg KEY=VALUE such as in_chans=1"),
    ],
)
def test_text_that_is_no_value_is_told(name, text, message):
    with pytest.raises(RequestError, match=message):
        read_value(BY_NAME[name], text)


def test_python_takes_what_the_command_line_takes():
    spec = AuditSpec.from_options(
        *("m", "s", "t"), mean="0.5,0.25,1", max_images="9", n_shot="1,5", gc_images="all", input_size="32", metrics="gc,cdnv"
    )
    assert spec.model.changes["mean"] == (0.5, 0.25, 1.0)
    assert (spec.source.max_images, spec.target.max_images) == (9, 9)
    assert (spec.probe.n_shot, spec.passes.gc_images, spec.metrics) == ((1, 5), None, ("gc", "cdnv"))
    assert spec.model.changes["input_size"] == (32, 32)


YAML = """
source: photos
target: demo
arch: nets.py:make
mean: "0.5,0.25,1"
n_shot: [1, 5]
max-images: 9
target-max-images: 3
metrics: gc,cdnv
n-query: all
"""
TOML = """
[project]
name = "x"

[tool.gcaudit.score]
source = "photos"
target = "demo"
arch = "nets.py:make"
mean = [0.5, 0.25, 1.0]
n-shot = "1,5"
max_images = 9
target_max_images = 3
metrics = ["gc", "cdnv"]
n-query = "all"
"""


@pytest.mark.parametrize(("name", "text"), [("audit.yaml", YAML), ("pyproject.toml", TOML)])
def test_options_are_read_from_files(tmp_path, name, text):
    (tmp_path / "photos").mkdir()
    (tmp_path / "nets.py").touch()
    (tmp_path / name).write_text(text)
    found = read_option_file(tmp_path / name)
    spec = AuditSpec.from_options("m", **found.options)
    assert (spec.source.spec, spec.target.spec) == (str(tmp_path / "photos"), "demo")
    assert spec.model.arch == f"{tmp_path / 'nets.py'}:make"
    assert spec.model.changes["mean"] == (0.5, 0.25, 1.0)
    assert (spec.source.max_images, spec.target.max_images) == (9, 3)
    assert (spec.probe.n_shot, spec.probe.n_query, spec.metrics) == ((1, 5), None, ("gc", "cdnv"))
    assert found.told.startswith(f"options of {tmp_path / name}: ")


def test_a_project_without_options_has_none(tmp_path):
    assert project_options(tmp_path).options == {}
    (tmp_path / "pyproject.toml").write_text("[tool]\n")
    assert project_options(tmp_path).options == {}
    (tmp_path / "pyproject.toml").write_text("[tool.gcaudit.score]\nseed = 3\n")
    assert project_options(tmp_path).options == {"seed": 3}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "n-shot: 5\nsed: 1\n", r"a\.yaml, line 2: expected a key that is known, found 'sed'; did you mean seed\?"),
        ("a.toml", "[tool.gcaudit.score]\n\nsed = 1\n", r"a\.toml, line 3: expected a key that is known, found 'sed'"),
        ("a.yaml", "seed: x\n", r"line 1: expected for 'seed': a whole number; found 'x'"),
        ("a.yaml", "episodes: -1\n", "line 1: .*episodes"),
        ("a.yaml", "seed:\n", "line 1: expected a value for 'seed', found none"),
        ("a.yaml", "seed: 1\nseed: 2\n", "line 2: expected each key once, found 'seed' again"),
        ("a.yaml", "- seed\n", "line 1: expected options such as n-shot: 5, found list"),
        ("a.toml", "[tool.other]\nseed = 1\n", r"expected a table \[tool\.gcaudit\.score\], found none"),
        ("a.toml", "seed = ", r"a\.toml: expected TOML"),
        ("a.yaml", "models: [a]\n", "found 'models'"),
        ("b.yaml", None, r"expected a file of options at .*: No such file"),
    ],
)
def test_files_of_options_that_are_wrong_are_told(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(RequestError, match=message):
        read_option_file(tmp_path / name)


def test_typed_options_win_over_a_file_and_that_wins_over_the_project(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text('[tool.gcaudit.score]\nsource = "demo"\ntarget = "demo"\nseed = 3\nepisodes = 9\n')
    Path("audit.yaml").write_text("source: demo\nmax-images: 100\nseed: 4\nmetrics: cdnv\n")

    def settings(*typed):
        code, out, err = run("score", "demo", "-f", "json", *typed)
        assert code == 0, err
        return json.loads(out), err

    report, err = settings()
    assert (report["settings"]["seed"], report["settings"]["episodes"], report["target"]["spec"]) == (3, 9, "demo")
    assert "gcaudit: options of pyproject.toml: source, target, episodes, seed" in err
    report, err = settings("--config", "audit.yaml", "--seed", "5", "--source-max-images", "50")
    assert (report["settings"]["seed"], report["settings"]["episodes"], report["target"]) == (5, 1000, None)
    assert report["source"]["images"] == 50
    assert "options of audit.yaml" in err
    code, _, err = run("score", "demo", "--no-project-options", "-q")
    assert code == 2
    assert "expected --source DATA, the data the model was trained on, found none" in err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["score", "demo", "-s", "demo", "--source", "cifar10"], "--source"),
        (["score", "demo", "-s", "demo", "-t", "demo", "-t", "demo"], "--target"),
        (["score", "demo", "-s", "demo", "--seed", "1", "--seed", "2"], "--seed"),
        (["gate", "r.json", "--baseline", "a.json", "--baseline", "b.json"], "--baseline"),
        (["compare", "demo", "-s", "demo", "--truth", "a.csv", "--truth", "b.csv"], "--truth"),
    ],
)
def test_an_option_of_one_value_is_not_given_twice(run, arguments, name):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert f"expected {name} once, found it 2 times; remove all but one" in err
    assert len(err.splitlines()) == 1


def test_options_that_may_be_repeated_are(run, tmp_path, monkeypatch, demo):
    monkeypatch.chdir(tmp_path)
    Path("r.json").write_text(demo.to_json())
    Path("a.yaml").write_text("- source.cdnv <= 1\n")
    Path("b.yaml").write_text("- source.gc <= 1\n")
    code, out, _ = run(
        "gate", "r.json", "--rules", "a.yaml", "--rules", "b.yaml", "-r", "source.cdnv <= 2", "-r", "source.cdnv <= 3"
    )
    assert code == 1
    assert [line.split()[0] for line in out.splitlines() if line[0] in "PF"] == ["PASS", "PASS", "PASS", "FAIL"]


def test_a_zoo_takes_max_images_as_the_command_line_does(tmp_path):
    (tmp_path / "zoo.yaml").write_text(
        "models: [demo]\nsource: {data: demo, max-images: 50}\ntarget: demo\n"
        "settings: {max-images: 40, n-shot: '1,5', metrics: 'cdnv,probe_accuracy', episodes: 5}\n"
    )
    found = gcaudit.compare(tmp_path / "zoo.yaml", store=tmp_path / "x.db")
    (row,) = found.ranking.tables[0].rows
    assert (row.report.source.images, row.report.target.images) == (50, 40)
    assert [point.n_shot for point in row.report.target.metrics["probe_accuracy"].curve] == [1, 5]

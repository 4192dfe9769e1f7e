import gzip
import re
import runpy
import shlex
import struct
import sys
from importlib import import_module

import numpy as np
import pytest
from cases import decode

import gcaudit
from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest
from gcaudit.report.schema import Report


def start(monkeypatch, path, *arguments):
    monkeypatch.setattr(sys, "argv", [str(path), *(str(argument) for argument in arguments)])
    runpy.run_path(str(path), run_name="__main__")


def test_the_python_calls_work(repository, monkeypatch, capsys):
    start(monkeypatch, repository / "examples" / "python_api.py")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    sketch, exact = re.findall(r"(\d+\.\d) with", lines[3])
    assert float(sketch) == pytest.approx(float(exact), rel=0.3)


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_study_of_estimators_agrees_with_the_library(repository, monkeypatch, capsys, tmp_path, suffix):
    figure = tmp_path / f"study.{suffix}"
    path = repository / "examples" / "estimator_study.py"
    start(
        monkeypatch, path, "demo", "--data", "demo", "--images", 5, "--repeats", 6, "--copies", 40, "--device", "cpu", "-o", figure
    )
    out = capsys.readouterr().out
    encoder = load_encoder(ModelRequest("demo"))
    images = open_data(DataRequest("demo", "source", max_images=5))
    pixels = decode(encoder, images) / 255
    exact = gcaudit.energies(encoder.embed, pixels, estimator="exact")
    assert float(re.search(r"exact GC (\S+),", out)[1]) == pytest.approx(float(exact.mean()), rel=1e-4)
    panels = {}
    for line in out.splitlines()[1:]:
        if found := re.match(r"  (images|random vectors|outputs|Jacobian entries)\b", line):
            panels[found[1]] = rows = {}
        elif found := re.match(r"\s+(\d+)\s+(\S+)\s+(\S+)$", line):
            rows[int(found[1])] = float(found[2]), float(found[3])
    assert [len(panel) for panel in panels.values()] == [4, 8, 8, 13]
    assert panels["images"][5] == panels["outputs"][96] == (1.0, 0.0)
    assert panels["random vectors"][96][1] < 0.05 < panels["random vectors"][1][1] < panels["outputs"][1][1]
    # the library's own estimates of the same images, seeds and vectors
    own = [float(gcaudit.energies(encoder.embed, pixels, seed=seed, index=images.index).mean()) for seed in range(6)]
    assert panels["random vectors"][1][0] == pytest.approx(np.mean(own) / float(exact.mean()), abs=2e-3)
    own = [
        float(gcaudit.energies(encoder.embed, pixels, seed=s, index=images.index, estimator="entries", vectors=8).mean())
        for s in range(6)
    ]
    assert panels["Jacobian entries"][8][1] == pytest.approx(np.std(own, ddof=1) / float(exact.mean()), abs=2e-3)
    assert float(re.search(r"outputs over sketch.*: (\S+)", out)[1]) > 1
    assert figure.read_bytes().startswith(b"\x89PNG" if suffix == "png" else b"<?xml")


@pytest.mark.parametrize(
    ("options", "message"),
    [(("-o", "study.pdf"), r"\.png or \.svg"), (("--images", 1), "at least 2"), (("--data", "nowhere"), "'nowhere'")],
)
def test_wrong_requests_of_the_study_are_told(repository, monkeypatch, capsys, options, message):
    with pytest.raises(SystemExit) as found:
        start(monkeypatch, repository / "examples" / "estimator_study.py", "demo", "--data", "demo", *options)
    assert found.value.code == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.fixture
def fashion_mnist(tmp_path):
    """A few bright and dark squares in Fashion-MNIST's format."""
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for stem, count in (("train", 80), ("t10k", 20)):
        labels = np.arange(10 * count, dtype=np.uint8) % 10
        pixels = (rng.integers(0, 60, size=(len(labels), 28, 28)) + 19 * labels[:, None, None]).astype(np.uint8)
        header = struct.pack(">IIII", 0x803, len(labels), 28, 28)
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pixels.tobytes()))
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(struct.pack(">II", 0x801, len(labels)) + labels.tobytes())
        )
    return folder


def test_the_demo_can_be_made_again(repository, monkeypatch, capsys, tmp_path, fashion_mnist):
    made = tmp_path / "bundled"
    options = ("--data", fashion_mnist, "--output", made, "--epochs", 1, "--per-class", 8)
    start(monkeypatch, repository / "examples" / "train_demo.py", *options)
    assert "accuracy on the test images of the source classes" in capsys.readouterr().out
    report = gcaudit.score(str(made / "demo-model"), str(made / "demo-train.parquet"), str(made / "demo-test.parquet"), n_shot=(2,))
    assert report.model.arch == "timm:test_resnet"
    assert report.source.class_names == ("T-shirt/top", "Trouser", "Coat", "Sneaker", "Bag")
    assert report.target.class_names == ("Pullover", "Dress", "Sandal", "Shirt", "Ankle boot")
    assert report.source.metrics["head_accuracy"].value is not None


def test_what_is_bundled_is_small_balanced_and_really_trained(repository):
    folder = repository / "gcaudit" / "bundled"
    assert (folder / "demo-model" / "model.safetensors").stat().st_size <= 2_000_000
    assert sum(path.stat().st_size for path in folder.glob("*.parquet")) <= 1_000_000
    assert "MIT License" in (folder / "NOTICE.md").read_text(encoding="utf-8")
    for role in ("source", "target"):
        assert open_data(DataRequest("demo", role)).counts.tolist() == [100] * 5
    report = gcaudit.score("demo", "demo", "demo", episodes=200)
    assert report.source.metrics["head_accuracy"].value > 0.97
    assert 0.6 < report.target.metrics["probe_accuracy"].value < 0.8
    assert report.source.metrics["cdnv"].value < report.target.metrics["cdnv"].value
    assert report.warnings == ()


def readme_blocks(repository, language):
    text = (repository / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_python_of_the_readme_runs(repository):
    blocks = readme_blocks(repository, "python")
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_commands_of_the_readme_parse(repository, monkeypatch, capsys):
    """Every line that starts with gcaudit has options that exist; nothing is run."""
    from gcaudit.cli import main

    for room in ("audit", "gate", "store", "zoo"):  # before anything is replaced, of which they would keep the replacement
        import_module(f"gcaudit.{room}")
    from gcaudit.zoo import plan_comparison  # noqa: F401

    class ParsedError(Exception):
        pass

    def stop(*_arguments, **_options):
        raise ParsedError

    for name in (
        "gcaudit.audit.AuditSpec.from_options",
        "gcaudit.audit.model_request",
        "gcaudit.zoo.plan_comparison",
        "gcaudit.store.Store",
    ):
        monkeypatch.setattr(name, stop)
    monkeypatch.setattr(Report, "read", staticmethod(stop))
    for name in ("gcaudit.cli.audits.write_stdout", "gcaudit.cli.listing.write_stdout", "gcaudit.cli.zoo.write_stdout"):
        monkeypatch.setattr(name, stop)
    monkeypatch.setattr(sys.modules["gcaudit.gate"], "gate_request", stop)  # by its dotted name this is the function gcaudit.gate
    monkeypatch.setattr("gcaudit.cli.audits.choose_format", lambda name, _output, _formats=None: name or "json")
    monkeypatch.setenv("GCAUDIT_DEBUG", "1")
    lines = [line for block in readme_blocks(repository, "(?:sh|console)") for line in block.replace("\\\n", " ").splitlines()]
    lines = [line.removeprefix("$ ").split(" #")[0] for line in lines if line.removeprefix("$ ").startswith("gcaudit ")]
    assert len(lines) >= 5
    for line in lines:
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        assert main.run() == 3
        assert capsys.readouterr().err.endswith("ParsedError\n"), line


def test_the_report_shown_in_the_readme_is_the_demos(repository):
    """The numbers in README are what `gcaudit demo` prints, to rounding of the last digit."""
    (shown,) = [block for block in readme_blocks(repository, "text") if "$ gcaudit demo\n" in block]
    report = Report.from_json(gcaudit.score("demo", "demo", "demo").to_json())
    cdnv = report.source.metrics["cdnv"].value
    probe = report.target.metrics["probe_accuracy"].value
    (row,) = [line for line in shown.splitlines() if line.strip().startswith("CDNV ")]
    assert float(re.findall(r"\d+\.\d+", row)[0]) == pytest.approx(cdnv, abs=2e-4)
    (row,) = [line for line in shown.splitlines() if "few-shot" in line]
    assert float(re.findall(r"\d+\.\d+", row)[0]) == pytest.approx(probe, abs=2e-3)

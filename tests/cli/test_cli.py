import io
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import TinyNet
from PIL import Image
from processes import GUARD_SECONDS, finished, started, until

from gcaudit.cli.console import choose_format, write_atomically, write_stderr
from gcaudit.errors import AuditError, RequestError
from gcaudit.render.formats import RANKING_FORMATS
from gcaudit.report.schema import Report

PROGRAM = [sys.executable, "-m", "gcaudit"]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    generator = torch.Generator().manual_seed(0)
    for number in range(6):
        (folder / f"class{number}").mkdir(parents=True)
        for image in range(8):
            pixels = (torch.rand(8, 8, 3, generator=generator) * 128 + 20 * number).byte().numpy()
            Image.fromarray(pixels).save(folder / f"class{number}" / f"{image}.png")
    return folder


@pytest.fixture
def model(tmp_path, monkeypatch, repository):
    """A state dict and the factory that goes with it."""
    monkeypatch.syspath_prepend(str(repository / "tests"))
    torch.save({"state_dict": TinyNet().state_dict()}, tmp_path / "tiny.ckpt")
    return tmp_path / "tiny.ckpt", "--arch", "cases:TinyNet"


def one_line(err):
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1, err
    return lines[0]


def test_score_writes_the_report_to_stdout_and_the_rest_to_stderr(run, model, photos):
    code, out, err = run("score", *model, "-s", photos, "-t", photos, "--n-query", 3, "--episodes", 20)
    assert code == 0
    assert "few-shot probe accuracy, 5-way 5-shot" in out
    assert "\nwarning: source and target share 48 images" in out
    assert "gcaudit: warning: source and target share 48 images" in err
    assert "images/s" in err
    assert "\x1b" not in out


def test_json_is_a_whole_report(run, model, photos):
    code, out, _ = run("score", *model, "-s", photos, "-f", "json", "--quiet")
    report = Report.from_json(out)
    assert code == 0
    assert report.source.images == 48
    assert report.model.container == "state_dict"
    assert report.source.metrics["head_accuracy"].reason.startswith("the model's head has 4 classes")


def test_options_reach_the_audit(run, model, photos):
    options = [
        *("--gc", "outputs", "--vectors", 2, "--gc-images", "all", "--target-gc", "--input-space", "normalized"),
        *("--n-way", 3, "--n-shot", "1,2", "--n-query", "all", "--episodes", 7, "--ridge", 0.5),
        *("--metrics", "gc, probe_accuracy", "--precision", "float64", "--batch-size", 5, "--workers", 0, "--seed", 3),
        *("--source-classes", "0-1,class4", "--target-max-images", 30, "--source-max-images", 20),
        *("--mean", "0.5", "--std", "0.25,0.25,0.2", "--input-size", "8x8", "--crop-pct", 1, "--interpolation", "nearest"),
        *("--arch-arg", "dim=6", "--arch-arg", "seed=1"),
    ]
    code, out, err = run("score", *model, "-s", photos, "-t", photos, "-f", "json", *options)
    assert code == 0, err
    report = Report.from_json(out)
    gc, probe = report.source.metrics["gc"], report.target.metrics["probe_accuracy"]
    assert (gc.estimator, gc.vectors, gc.n) == ("outputs", 2, 20)
    assert list(report.source.metrics) == ["gc"]
    assert report.source.class_names == ("class0", "class1", "class4")
    assert report.target.metrics["gc"].n == 30
    assert [point.n_shot for point in probe.curve] == [1, 2]
    assert (probe.n_way, probe.n_query, probe.episodes, probe.ridge) == (3, "all", 7, 0.5)
    pre = report.model.preprocessing
    assert (pre.mean, pre.std, pre.crop_pct, pre.interpolation) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.2), 1.0, "nearest")
    assert (pre.input_space, pre.origin) == ("normalized", "architecture, command line")
    assert report.settings["arch_args"] == {"dim": 6, "seed": 1}
    assert (report.settings["precision"], report.settings["seed"]) == ("float64", 3)


def test_max_images_holds_for_both(run, model, photos):
    _, out, _ = run("score", *model, "-s", photos, "-t", photos, "--max-images", 24, "--n-way", 2, "--n-shot", 1, "-f", "json")
    report = Report.from_json(out)
    assert (report.source.images, report.target.images) == (24, 24)


@pytest.mark.parametrize(("name", "start"), [("r.json", "{"), ("r.md", "## gcaudit"), ("r.txt", "demo"), ("r", "demo")])
def test_the_suffix_chooses_the_format(run, tmp_path, name, start):
    code, out, err = run("demo", "-o", tmp_path / name)
    assert (code, out) == (0, "")
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)
    assert f"report in {tmp_path / name}" in err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_demo_prints_the_report_and_the_next_command(run):
    code, out, err = run("demo")
    assert code == 0
    assert "geometric collapse" in out
    assert "gcaudit: on your own files: gcaudit score model.ckpt" in err


def test_inspect_says_what_the_file_is(run, model):
    code, out, _ = run("inspect", *model)
    assert code == 0
    assert "torch.save (zip)" in out
    assert "state_dict" in out
    code, out, _ = run("inspect", *model, "-f", "json")
    assert json.loads(out)["embedding_dim"] == 6


def test_lists(run):
    assert "geometric_collapse_refined" in run("metrics")[1]
    assert "cifar-fs: CIFAR-FS" in run("datasets")[1]
    assert run("--version")[1].startswith("gcaudit 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score"], "Missing argument 'MODEL'"),
        (["scor"], "No such command 'scor'"),
        (["score", "m", "--sorce", "x"], "No such option"),
        (["score", "demo"], "expected --source DATA"),
        (["score", "demo", "-s", "demo", "--seed", "x"], "Invalid value for '--seed'"),
        (["score", "demo", "-s", "demo", "--format", "pdf"], "--format of table, json, markdown"),
        (["score", "demo", "-s", "demo", "-o", "/no/such/folder/r.json"], "--output in a folder that exists"),
        (["score", "demo", "-s", "demo", "-o", "."], "--output to be a file"),
        (["score", "demo", "-s", "demo", "--mean", "a,b"], "--mean of numbers"),
        (["score", "demo", "-s", "demo", "--n-shot", ","], "--n-shot of numbers"),
        (["score", "demo", "-s", "demo", "--input-size", "0"], "--input-size such as 224"),
        (["score", "demo", "-s", "demo", "--input-size", "big"], "--input-size such as 224"),
        (["score", "demo", "-s", "demo", "--batch-size", "many"], "--batch-size of a number or 'auto'"),
        (["score", "demo", "-s", "demo", "--arch-arg", "x"], "--arch-arg KEY=VALUE"),
        (["score", "demo", "-s", "demo", "--metrics", "cdvn"], "did you mean cdnv"),
        (["score", "demo", "-s", "nowhere/"], "found no file or folder 'nowhere/'"),
        (["score", "no/such.ckpt", "-s", "demo"], "no/such.ckpt"),
        (["score", "", "-s", "demo"], "found an empty name"),
        (["score", "demo", "-s", "demo", "--metrics", "probe_accuracy"], "expected --target for probe_accuracy"),
        (["score", "demo", "-s", "demo", "-t", "demo", "--n-way", "6"], "at least 6 target classes"),
        (["score", "demo", "-s", "demo", "--device", "quantum"], "--device auto"),
        (["score", "timm:resnet18", "-s", "demo", "--arch", "timm:resnet18"], "--arch with a file only"),
        (["inspect", "demo", "--format", "markdown"], "--format of table, json"),
    ],
)
def test_wrong_requests_are_one_line_and_exit_2(run, arguments, message):
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    line = one_line(err)
    assert line.startswith("gcaudit: error: ")
    assert message in line


def test_no_arguments_show_the_help_and_exit_2(run):
    code, out, err = run()
    assert code == 2
    assert "Commands" in out + err


def test_what_an_audit_could_not_complete_exits_3(run, model, photos, tmp_path):
    net = TinyNet()
    net.mix.weight.data.mul_(1e38).add_(3e38)
    net.mix.weight.data.clamp_(-3e38, 3e38)
    torch.save(net.state_dict(), tmp_path / "huge.pt")
    net_arch = ("--arch", "cases:TinyNet", "--layer", "mix")
    code, out, err = run("score", tmp_path / "huge.pt", *net_arch, "-s", photos, "-o", tmp_path / "r.json")
    assert (code, out) == (3, "")
    assert "NaN or inf" in one_line(err)
    assert not (tmp_path / "r.json").exists()


def test_defects_exit_3_and_ask_for_a_report(run, monkeypatch):
    monkeypatch.setattr("gcaudit.audit.run_audit", lambda *_: 1 / 0)
    code, _, err = run("demo")
    assert code == 3
    assert "internal error: ZeroDivisionError: division by zero; set GCAUDIT_DEBUG=1" in one_line(err)
    monkeypatch.setenv("GCAUDIT_DEBUG", "1")
    code, _, err = run("demo")
    assert code == 3
    assert "Traceback" in err
    assert "ZeroDivisionError" in err


def test_an_abort_exits_2(run, monkeypatch):
    import typer

    def abort(*_):
        raise typer.Abort

    monkeypatch.setattr("gcaudit.audit.run_audit", abort)
    assert run("demo")[0] == 2


def test_files_are_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "r.json"
    path.write_text("old")
    path.chmod(0o640)
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(AuditError, match="expected to write"):
        write_atomically(tmp_path / "gone" / "r.json", "new")


def test_links_are_followed_and_devices_written_to(tmp_path):
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    write_atomically(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"
    command = [*PROGRAM, "demo", "-q", "-f", "json", "-o", "/dev/stdout"]
    with (tmp_path / "out.json").open("w") as out:
        found = finished(command, stdout=out)
    assert (found.returncode, found.stderr) == (0, "")
    assert Report.from_json((tmp_path / "out.json").read_text()).model.spec == "demo"
    assert Path("/dev/stdout").is_symlink()


def shell(arguments, **options):
    return finished([*PROGRAM, *arguments], **options)


def test_help_takes_less_than_half_a_second_of_cpu():
    shell(["--help"])
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert shell(["--help"]).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.5


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m gcaudit demo -q | head -c 10; echo ${{PIPESTATUS[0]}}"
    found = finished(["bash", "-c", command])
    assert found.stdout.endswith("0\n")
    assert found.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_exits_3():
    with Path("/dev/full").open("w") as full:
        found = finished([*PROGRAM, "demo", "-q"], stdout=full)
    assert found.returncode == 3
    assert one_line(found.stderr).startswith("gcaudit: error: expected to write to standard output")


def test_closed_streams_are_no_defect(tmp_path):
    command = f"{sys.executable} -m gcaudit demo -q -o {tmp_path / 'r.json'} >&- 2>&-"
    assert finished(["bash", "-c", command]).returncode == 0
    assert Report.read(tmp_path / "r.json").model.spec == "demo"


def test_ascii_terminals_get_ascii():
    found = shell(["demo", "-q"], env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert found.returncode == 0
    assert found.stdout.isascii()
    assert "?" not in found.stdout


def test_ctrl_c_exits_130_and_writes_nothing(tmp_path, stuck):
    (tmp_path / "out").mkdir()
    command = [*PROGRAM, "score", *stuck.model, "-s", "demo", "--batch-size", "8", "--workers", "2"]
    with started([*command, "-o", str(tmp_path / "out" / "r.json")], stderr=subprocess.PIPE, text=True) as process:
        until(stuck.reached)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=GUARD_SECONDS)
    assert process.returncode == 130
    assert one_line(err) == "gcaudit: interrupted; nothing was written"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_suffix_that_says_nothing_of_the_format(tmp_path):
    with pytest.raises(RequestError, match=r"expected --output to end in \.txt, \.json, \.md; found .*r\.html; add --format table"):
        choose_format(None, tmp_path / "r.html")
    assert choose_format("json", tmp_path / "r.html") == "json"
    assert choose_format(None, tmp_path / "r.CSV", RANKING_FORMATS) == "csv"
    with pytest.raises(RequestError, match=r"\.parquet; found .*r\.html"):
        choose_format(None, tmp_path / "r.html", RANKING_FORMATS)
    assert choose_format(None, tmp_path / "report") == "table"


def test_names_with_line_breaks_stay_on_one_line(run, model, photos, tmp_path):
    (photos / "class0").rename(photos / "two\nlines")
    (photos / "two\nlines" / "bad.png").write_bytes(b"no picture")
    code, _, err = run("score", *model, "-s", photos)
    assert code == 2
    assert "two\\nlines" in one_line(err)
    code, out, err = run("score", *model, "-s", photos, "--skip-bad-images", "--metrics", "cdnv", "-f", "json", "-q")
    assert code == 0
    report = Report.from_json(out)
    assert "two\\nlines" in report.source.class_names
    assert {warning.kind for warning in report.warnings} == {"renamed", "left-out"}
    assert len(err.splitlines()) == 2


def test_strict_exits_2_and_writes_nothing(run, model, photos, tmp_path):
    (photos / "class0" / "notes.txt").write_text("no picture")
    code, out, err = run("score", *model, "-s", photos, "--strict", "-o", tmp_path / "r.json")
    assert (code, out) == (2, "")
    assert "1 files in class folders that are no pictures were left out (class0/notes.txt); leave --strict out" in one_line(err)
    assert not (tmp_path / "r.json").exists()


def test_a_gate_can_fail_on_warnings(run, model, photos, tmp_path):
    (photos / "class0" / "notes.txt").write_text("no picture")
    assert run("score", *model, "-s", photos, "-q", "-o", tmp_path / "r.json")[0] == 0
    assert run("gate", tmp_path / "r.json", "-r", "source.gc <= 1e9")[0] == 0
    code, out, _ = run("gate", tmp_path / "r.json", "-r", "source.gc <= 1e9", "--no-warnings")
    assert code == 1
    assert "FAIL       warning of left-out: source: 1 files in class folders that are no pictures" in out


def test_what_code_of_the_user_prints_does_not_get_into_the_report(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = ["from torch import nn", "print('imported')", "def make():", "    print('made')"]
    lines += ["    return nn.Sequential(nn.Flatten(), nn.Linear(2352, 7), nn.ReLU(), nn.Linear(7, 5))"]
    (tmp_path / "nets.py").write_text("\n".join(lines))
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2352, 7), torch.nn.ReLU(), torch.nn.Linear(7, 5))
    torch.save(network.state_dict(), "a.pt")
    how = ["--arch", "nets.py:make", "--input-size", "28", "--mean", "0.5", "--std", "0.5"]
    for command in (["score", "a.pt", "-s", "demo", "-q"], ["inspect", "a.pt"], ["compare", "a.pt", "-s", "demo", "-q"]):
        code, out, err = run(*command, *how, "-f", "json")
        assert code == 0, err
        assert json.loads(out)
        assert "made" in err


def test_a_terminal_gets_messages_broken_between_words(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "40")
    text = "gcaudit: error: expected --max-regression such as 2% or 0.02, found '2' in [0.12345, 0.23456]"
    for stream, lines in ((Terminal(), 3), (io.StringIO(), 1)):
        monkeypatch.setattr(sys, "stderr", stream)
        write_stderr(text)
        found = stream.getvalue()
        assert " ".join(found.split()) == text
        assert len(found.splitlines()) == lines
        assert lines == 1 or max(map(len, found.splitlines())) <= 40

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from processes import finished
from reports import changed, make_worse

PROGRAM = [sys.executable, "-m", "gcaudit"]


def test_a_perturbed_checkpoint_fails_everywhere_and_another_seed_passes(run, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    make_worse(tmp_path / "worse", 3)
    data = ["-s", "demo", "-t", "demo", "--save-evidence", "-q"]
    assert run("score", "demo", *data, "-o", tmp_path / "old.json")[0] == 0
    assert run("score", "demo", *data, "--seed", 3, "-o", tmp_path / "again.json")[0] == 0
    assert run("score", tmp_path / "worse", *data, "-o", tmp_path / "worse.json")[0] == 0
    judged = ["--baseline", tmp_path / "old.json", "--max-regression", "2%"]
    code, out, err = run("gate", tmp_path / "again.json", *judged)
    assert code == 0, out
    assert err.startswith("::notice title=gcaudit gate::UNDECIDED: target.probe_accuracy")
    assert "gate passed" in out
    code, out, err = run("gate", tmp_path / "worse.json", *judged, "--junit", tmp_path / "gate.xml")
    assert code == 1
    assert "FAIL       target.probe_accuracy" in out
    assert "is worse by more than the allowed 2%" in out
    assert "::error title=gcaudit gate::target.probe_accuracy" in err
    assert "is worse by more" in ElementTree.parse(tmp_path / "gate.xml").find(".//failure").get("message")
    assert "| FAIL |" in (tmp_path / "summary.md").read_text()
    code, out, err = run("score", tmp_path / "worse", "-s", "demo", "-t", "demo", "-q", *judged)
    assert code == 1
    assert "few-shot probe accuracy" in out
    assert "gate FAILED" in err


@pytest.mark.parametrize("name", ["table", "json", "junit", "markdown"])
def test_each_format_can_be_printed_or_written(run, tmp_path, demo, name):
    (tmp_path / "r.json").write_text(demo.to_json())
    code, out, _ = run("gate", tmp_path / "r.json", "-r", "source.cdnv <= 1", "-f", name)
    assert code == 0
    assert "source.cdnv" in out
    written = run("gate", tmp_path / "r.json", "-r", "source.cdnv <= 1", "-f", name, "-o", tmp_path / "out")
    assert written[:2] == (0, "")
    assert "PASS       source.cdnv = " in written[2]
    assert "gate passed: " in written[2]
    assert (tmp_path / "out").read_text(encoding="utf-8") == out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gate", "none.json", "-r", "source.gc <= 1"], "expected a report at none.json"),
        (["gate", "r.json", "-r", "gc"], "expected a rule such as"),
        (["gate", "r.json"], "expected rules, found none"),
        (["gate", "r.json", "--gate", "source.gc <= 1"], "did you mean --rule RULE or --rules FILE? see gcaudit gate --help"),
        (["score", "demo", "-s", "demo", "--rules", "g.yaml"], "did you mean --gate FILE? see gcaudit score --help"),
        (["gate", "none.json"], "expected a report at none.json"),
        (["gate", "r.json", "-r", "source.gc <= 1", "-o", "r.json"], "--output to leave REPORT as it is, found r.json for both"),
        (["gate", "r.json", "-r", "source.gc <= 1", "-o", "./link.json"], "--output to leave REPORT as it is"),
        (["gate", "r.json", "--rules", "g.yaml", "-f", "json", "-o", "g.yaml"], "--output to leave --rules as it is"),
        (["gate", "r.json", "-r", "source.gc <= 1", "-o", "x.xml", "--junit", "x.xml"], "--junit to leave --output as it is"),
        (["gate", "r.json", "--baseline", "other.json", "--junit", "other.json"], "--junit to leave --baseline as it is"),
        (
            ["gate", "r.json", "-r", "source.gc <= 1", "--junit", "r.evidence.npz"],
            "--junit to leave the evidence beside a report as it is",
        ),
        (["score", "model", "-s", "demo", "-o", "model/config.json"], "found model/config.json, a file of it"),
        (["power", "r.json", "-o", "r.json"], "--output to leave REPORT as it is"),
        (["score", "r.json", "-s", "demo", "-o", "r.json"], "--output to leave MODEL as it is"),
        (["score", "demo", "-s", "demo", "-o", "other.json", "--baseline", "other.json"], "--output to leave --baseline as it is"),
        (
            ["score", "demo", "-s", "demo", "-t", "demo", "--n-way", 4, "--baseline", "r.json"],
            "--n-way as in the baseline (5), found 4",
        ),
        (
            ["score", "demo", "-s", "demo", "--max-images", 99, "--baseline", "r.json"],
            "--source-max-images as in the baseline (500 images), found 99",
        ),
        (["gate", "r.json", "-r", "source.gc <= 1", "-f", "pdf"], "--format of table, json, junit, markdown"),
        (["gate", "r.json", "-r", "source.gc <= 1", "--junit", "/no/x.xml"], "--junit in a folder that exists"),
        (["gate", "r.json", "--max-regression", "1%"], "expected --baseline"),
        (["gate", "r.json", "--baseline", "other.json", "--max-regression", "1%"], "may be compared"),
        (["score", "demo", "-s", "demo", "--save-evidence"], "--save-evidence with --output FILE.json"),
        (["score", "demo", "-s", "demo", "--gate", "nonsense"], "expected a rule such as"),
        (["score", "demo", "-s", "demo", "--junit", "gate.xml"], "expected rules, found none"),
        (["score", "demo", "-s", "demo", "--baseline", "none.json", "--max-regression", "0"], "expected a report at none.json"),
    ],
)
def test_wrong_requests_exit_2(run, tmp_path, monkeypatch, demo, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("r.json").write_text(demo.to_json())
    Path("other.json").write_text(changed(demo, "source", fingerprint="x").to_json())
    Path("g.yaml").write_text("rules: [source.cdnv <= 1]\n")
    Path("link.json").symlink_to("r.json")
    if "r.evidence.npz" in arguments:
        Path("r.evidence.npz").write_bytes(b"PK")
    Path("model").mkdir()
    Path("model/config.json").write_text("{}")
    before = Path("r.json").read_bytes()
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert Path("r.json").read_bytes() == before


@pytest.mark.parametrize(("name", "start"), [("a.json", "{"), ("a.xml", "<?xml"), ("a.md", "### gate"), ("a.txt", "PASS")])
def test_the_suffix_of_a_file_says_the_format(run, tmp_path, demo, name, start):
    (tmp_path / "r.json").write_text(demo.to_json())
    assert run("gate", tmp_path / "r.json", "-r", "source.cdnv <= 1", "-o", tmp_path / name)[0] == 0
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)
    code, _, err = run("gate", tmp_path / "r.json", "-r", "source.cdnv <= 1", "-o", tmp_path / "a.csv")
    assert (code, "expected --output to end in .txt, .json, .md, .xml" in err) == (2, True)
    if name != "a.xml":
        assert run("power", tmp_path / "r.json", "-o", tmp_path / name)[0] == 0
        assert not (tmp_path / name).read_text(encoding="utf-8").startswith("PASS")


def test_exit_codes_of_the_process(tmp_path, demo):
    (tmp_path / "r.json").write_text(demo.to_json())
    for rule, code in (("source.cdnv <= 1", 0), ("source.cdnv <= 0.001", 1), ("source.cdnv", 2)):
        command = [*PROGRAM, "gate", str(tmp_path / "r.json"), "--rule", rule]
        assert finished(command).returncode == code

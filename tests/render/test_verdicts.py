import json
from xml.etree import ElementTree

import pytest

from gcaudit.gate.verdict import GateResult, Verdict
from gcaudit.render.paper import Paper, paper_of
from gcaudit.render.verdicts import render_annotations, render_junit, render_summary, render_verdicts, render_verdicts_json


def verdict(status, message="m", number=0, **means):
    outcome = {"passed": "passed", "undecided": "unsure", "warned": "failed", "failed": "failed", "off": "off"}[status]
    means = {"fails": status == "failed", "warns": status == "warned"} | means
    return Verdict(f"source.gc <= {number}", "source.gc", "error", outcome, status, 1.0, None, None, "interval", message, **means)


def result_of(*verdicts, warnings=()):
    return GateResult(tuple(verdicts), tuple(warnings), "model|<b>.pt", None)


def test_junit_is_a_test_a_rule():
    result = result_of(verdict("passed"), verdict("failed", 'a < b & "c" \x00\x1b\ud800'), verdict("warned"), verdict("off"))
    root = ElementTree.fromstring(render_junit(result))
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("4", "1", "1")
    cases = root.findall("./testsuite/testcase")
    assert cases[1].find("failure").get("message") == 'a < b & "c" '
    assert cases[2].find("system-out").text.startswith("WARN")
    assert cases[3].find("skipped") is not None


def test_annotations_are_escaped_and_bounded():
    lines = render_annotations(result_of(verdict("failed", "50%\nof it"), verdict("warned", "careful"), verdict("passed")))
    assert lines == ["::error title=gcaudit gate::50%25%0Aof it", "::warning title=gcaudit gate::careful"]
    many = render_annotations(result_of(*[verdict("failed", str(n)) for n in range(30)], warnings=["w"] * 12))
    assert len(many) == 20
    assert many[9].endswith("and 21 more; see the log")
    assert many[19].endswith("and 3 more; see the log")


def test_summaries_are_escaped_and_bounded_with_failures_first():
    text = render_summary(result_of(verdict("passed", "fine"), verdict("failed", "a|b <script>\nc")))
    rows = text.splitlines()[4:]
    assert rows[0].startswith("| FAIL |")
    assert r"a\|b &lt;script> c" in rows[0]
    assert "model\\|&lt;b>.pt" in text
    long = render_summary(result_of(*[verdict("passed", "é" * 300, n) for n in range(500)]))
    assert len(long.encode()) <= 64 * 1024
    assert "more |" in long.splitlines()[-1]


def test_json_verdicts_are_whole():
    content = json.loads(render_verdicts_json(result_of(verdict("failed"), warnings=["w"])))
    assert content["schema"] == "gcaudit.gate/2"
    assert content["passed"] is False
    assert content["verdicts"][0]["outcome"] == "failed"
    assert content["warnings"] == ["w"]


def test_people_see_one_line_a_rule():
    lines = render_verdicts(result_of(verdict("failed", "bad"), verdict("passed", "good"))).splitlines()
    assert lines == ["FAIL       bad", "PASS       good", "gate FAILED: model|<b>.pt: 1 passed, 1 failed"]


def test_undecided_is_a_verdict_of_its_own_in_every_format():
    found = verdict("undecided", "close", needed=1200, unit="images", origin="gate.yaml")
    result = result_of(verdict("passed", "good"), found)
    assert render_verdicts(result).splitlines()[1:] == [
        "UNDECIDED  close (gate.yaml)",
        "gate passed: model|<b>.pt: 1 passed, 1 undecided (needs about 1,200 images)",
    ]
    assert json.loads(render_verdicts_json(result))["verdicts"][1]["status"] == "undecided"
    root = ElementTree.fromstring(render_junit(result))
    assert (root.get("failures"), root.get("skipped")) == ("0", "1")
    assert root.findall(".//skipped")[0].get("message") == "UNDECIDED: close (gate.yaml)"
    assert render_annotations(result) == ["::notice title=gcaudit gate::UNDECIDED: close"]
    assert "| UNDECIDED | source.gc \\<= 0 | gate.yaml | close |".replace("\\<", "&lt;") in render_summary(result)
    failing = result_of(verdict("undecided", "close", fails=True))
    root = ElementTree.fromstring(render_junit(failing))
    assert (root.get("failures"), root.get("skipped")) == ("1", "0")
    assert root.find(".//failure").get("type") == "unsure"
    assert render_annotations(failing) == ["::error title=gcaudit gate::UNDECIDED: close"]
    assert render_verdicts(failing).endswith("gate FAILED: model|<b>.pt: 1 undecided (no number of images would decide it)\n")
    assert render_annotations(result_of(verdict("undecided", "c", warns=True))) == ["::warning title=gcaudit gate::UNDECIDED: c"]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_lines_break_between_words_never_in_numbers(width):
    message = (
        "source.geometric_collapse = 7.208 against 7.208 (+0%) is too close: excess -0.1442 [-0.9519, 0.6635]; about 15,593 images"
    )
    text = render_verdicts(result_of(verdict("undecided", " ".join([message] * 3))), Paper(width))
    assert all(len(line) <= width for line in text.splitlines())
    assert " ".join(text.split()).count("[-0.9519, 0.6635]") == 3
    assert all(line.count("[") == line.count("]") for line in text.splitlines())


def test_colours_are_for_terminals_that_want_them(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    result = result_of(verdict("failed", "bad"))
    assert paper_of(terminal=False) == Paper(None, colours=False)
    assert "\x1b[31mFAIL\x1b[0m       bad" in render_verdicts(result, paper_of(terminal=True))
    monkeypatch.setenv("TERM", "dumb")
    assert not paper_of(terminal=True).colours
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in render_verdicts(result, paper_of(terminal=True))
    monkeypatch.setenv("COLUMNS", "80")
    assert paper_of(terminal=False).width == 80

import json
from xml.etree import ElementTree

from gcaudit.gate.judge import GateResult, Verdict
from gcaudit.render.verdicts import render_annotations, render_junit, render_summary, render_verdicts, render_verdicts_json


def verdict(status, message="m", number=0):
    outcome = {"passed": "passed", "warned": "unsure", "failed": "failed", "off": "off"}[status]
    return Verdict(f"source.gc <= {number}", "source.gc", "error", outcome, status, 1.0, None, None, "interval", message)


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
    assert content["schema"] == "gcaudit.gate/1"
    assert content["passed"] is False
    assert content["verdicts"][0]["outcome"] == "failed"
    assert content["warnings"] == ["w"]


def test_people_see_one_line_a_rule():
    lines = render_verdicts(result_of(verdict("failed", "bad"), verdict("passed", "good"))).splitlines()
    assert lines == ["FAIL  bad", "PASS  good", "gate FAILED: model|<b>.pt: 1 passed, 1 failed"]

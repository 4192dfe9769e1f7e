import csv
import io
import json
import re
from xml.etree import ElementTree as ET

import pytest
from reports import VALUE, make

from gcaudit.gate.verdict import GateResult, Verdict
from gcaudit.render.escapes import csv_text, json_text, log_text, markdown_text
from gcaudit.render.export import export_cells
from gcaudit.render.listing import render_cells, render_model
from gcaudit.render.report import render_report
from gcaudit.render.verdicts import render_annotations, render_gate
from gcaudit.report.schema import Report
from gcaudit.report.warnings import ReportWarning
from gcaudit.store.cells import Cell

HOSTILE = "a\n::error::b\x1b[31m <script>alert(1)</script> =1+1 [x](javascript:1) | `c` ##[error]d ##vso[x]"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", r"a\|b"),
        ("<img src=x>", "&lt;img src=x>"),
        ("&#124;", "&amp;#124;"),
        ("[x](http://y)", r"[x\](http://y)"),
        ("![x](y)", r"\![x\](y)"),
        ("`rm`", r"\`rm\`"),
        ("*a* _b_ c_d", r"\*a\* \_b\_ c_d"),
        ("# a", r"\# a"),
        ("1. a", "1\\. a"),
        ("> a", "&gt; a"),
        ("- a", r"\- a"),
        ("a\nb", "a b"),
        ("0.333 [0.310, 0.350]", "0.333 [0.310, 0.350]"),
        ("-0.5 [-1, 0]", "-0.5 [-1, 0]"),
        ("target.probe_accuracy", "target.probe_accuracy"),
    ],
)
def test_markdown_shows_text_as_it_is(text, shown):
    assert markdown_text(text) == shown


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1"])
def test_a_spreadsheet_takes_no_text_for_a_formula(text):
    assert csv_text(text) == f"'{text}"
    assert csv_text("runs/a.pt") == "runs/a.pt"


def test_logs_hold_no_commands():
    assert log_text("::error::x\n  ::stop-commands::y\nstd::vector a ::b") == (
        "\\x3a:error::x\n  \\x3a:stop-commands::y\nstd::vector a ::b"
    )
    assert log_text("a ##[error]b") == "a \\x23#[error]b"
    assert log_text("##vso[task.x]1") == "\\x23#vso[task.x]1"
    text = json.dumps({"a": "##[error]b ##vso[task.x]1"})
    assert re.search(r"##\w*\[", json_text(text)) is None
    assert json.loads(json_text(text)) == json.loads(text)


@pytest.fixture
def hostile():
    """A report as somebody may write it by hand."""
    content = json.loads(make(target={"cdnv": VALUE}).to_json())
    content["model"] |= {"spec": HOSTILE, "arch": HOSTILE, "container": HOSTILE, "sha256": HOSTILE, "embedding": HOSTILE}
    content["source"] |= {"spec": HOSTILE, "split": HOSTILE}
    content["source"]["metrics"] |= {HOSTILE: {"value": None, "stderr": None, "ci95": None, "n": 0, "reason": HOSTILE}}
    content["settings"] |= {"device": HOSTILE, "precision": HOSTILE}
    content["warnings"] = [{"kind": "other", "message": HOSTILE, "first": [HOSTILE]}, HOSTILE + "x" * 10**6]
    return Report.from_json(json.dumps(content))


def lines_are_plain(text):
    for line in text.splitlines():
        assert line.isprintable()
        assert not line.strip().startswith("::")
        assert re.search(r"##\w*\[", line) is None
        assert len(line) < 20_000


@pytest.mark.parametrize("name", ["table", "markdown", "json"])
def test_a_hostile_report_is_shown_and_not_obeyed(hostile, name):
    text = render_report(hostile, name)
    lines_are_plain(text)
    if name == "markdown":
        assert "<script" not in text
        assert re.search(r"(?<!\\)\]\(", text) is None


def test_what_a_report_holds_is_one_printable_line(hostile):
    assert hostile.model.spec == HOSTILE.replace("\n", r"\n").replace("\x1b", r"\x1b")
    assert isinstance(hostile.warnings[1], ReportWarning)
    assert len(str(hostile.warnings[1])) < 3000


def test_a_hostile_report_in_a_store_is_listed_and_exported(hostile):
    cells = [Cell("k" * 64, "2026", hostile.model.spec, HOSTILE, HOSTILE, hostile, None)]
    cells += [Cell("l" * 64, "2026", "=cmd()", "@x", None, None, HOSTILE)]
    lines_are_plain(render_cells(cells))
    lines_are_plain(render_model(hostile.model))
    rows = list(csv.DictReader(io.StringIO(export_cells(cells, "csv").decode())))
    assert (rows[1]["model"], rows[1]["source"]) == ("'=cmd()", "'@x")


@pytest.mark.parametrize("name", ["table", "markdown", "json", "junit"])
def test_hostile_verdicts_are_shown_and_not_obeyed(hostile, name):
    why = f"why {hostile.model.spec}"
    verdict = Verdict("source.gc <= 0", "source.gc", "error", "failed", "failed", 1.0, None, None, "interval", why, fails=True)
    result = GateResult((verdict,), (str(hostile.warnings[0]),), hostile.model.spec, hostile.model.spec)
    text = render_gate(result, name)
    lines_are_plain(text)
    if name == "markdown":
        assert "<script" not in text
    if name == "junit":
        assert ET.fromstring(text).find(".//failure").get("message") == why
    assert len([line for line in render_annotations(result) if line.startswith("::")]) == 2

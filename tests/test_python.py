"""What Python callers see: text, warnings, names."""

import warnings

import pytest

import gcaudit
from gcaudit.render.report import render_report


def test_a_printed_report_is_the_table(demo):
    assert str(demo) == render_report(demo).rstrip("\n")
    assert "few-shot probe accuracy" in str(demo)
    assert str(gcaudit.gate(demo, ["source.cdnv <= 1"])).startswith("PASS       source.cdnv = ")


def test_a_printed_comparison_is_the_ranking(tmp_path):
    found = gcaudit.compare("demo", "demo", store=tmp_path / "x.db", metrics="cdnv")
    assert str(found).startswith("demo\n")
    assert "source.cdnv" in str(found)


def test_warnings_of_a_report_are_pythons(tmp_path):
    with pytest.warns(gcaudit.GcauditWarning, match="source and target share 5 classes") as caught:
        report = gcaudit.score("demo", "demo", "demo", target_split="train", metrics="cdnv")
    assert sorted(str(one.message) for one in caught) == sorted(map(str, report.warnings))
    assert {one.filename for one in caught} == {__file__}
    with pytest.warns(gcaudit.GcauditWarning, match="demo: source and target share 5 classes") as caught:
        gcaudit.compare("demo", "demo", "demo", target_split="train", metrics="cdnv", store=tmp_path / "x.db")
    assert {one.filename for one in caught} == {__file__}
    with pytest.warns(gcaudit.GcauditWarning, match="forbids what is good"):
        gcaudit.gate(report, ["source.cdnv >= 1e-9"])


def test_without_warnings_there_are_none(demo):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gcaudit.score("demo", "demo", metrics="cdnv")
        gcaudit.gate(demo, ["source.cdnv <= 1"])


@pytest.mark.parametrize("name", sorted(gcaudit.__all__))
def test_public_names_say_what_they_are(name):
    assert len((getattr(gcaudit, name).__doc__ or "").strip()) > 20

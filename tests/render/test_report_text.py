import json
import re

import pytest
from reports import VALUE, make

from gcaudit.metrics.table import METRICS
from gcaudit.render.listing import metrics_json, render_metric, render_metrics
from gcaudit.render.markdown import render_markdown
from gcaudit.render.paper import Paper, paper_of
from gcaudit.render.report import render_report
from gcaudit.render.rows import format_value, report_notes, report_rows
from gcaudit.report.schema import MetricValue


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"value": 5918.3037, "stderr": 126.35, "ci95": (5670.65, 6165.95), "n": 1}, "5918 [5671, 6166]"),
        ({"value": 0.475379, "stderr": 0.01198, "ci95": (0.4519, 0.49886), "n": 1}, "0.475 [0.452, 0.499]"),
        ({"value": 0.8676, "stderr": None, "ci95": None, "n": 1, "reason": "r"}, "0.8676"),
        ({"value": 0.0, "stderr": 0.0, "ci95": (0.0, 0.1), "n": 1}, "0.000 [0.000, 0.100]"),
        ({"value": 3e-12, "stderr": 1e-13, "ci95": (2.8e-12, 3.2e-12), "n": 1}, "3e-12 [2.8e-12, 3.2e-12]"),
        ({"value": None, "stderr": None, "ci95": None, "n": 1, "reason": "r"}, "—"),
        ({"value": 123456789.0, "stderr": 1e7, "ci95": (1e8, 1.4e8), "n": 1}, "1.235e+08 [1e+08, 1.4e+08]"),
        ({"value": 12345678.0, "stderr": 1e6, "ci95": (1e7, 1.4e7), "n": 1}, "12345678 [10000000, 14000000]"),
    ],
)
def test_values_are_written_to_the_digits_they_support(value, text):
    assert format_value(MetricValue(**value)) == text


def test_rows_come_in_the_order_of_the_metrics_with_one_a_shot():
    probe = {**VALUE, "n_way": 5, "n_shot": 1}
    curve = [probe, {**probe, "n_shot": 5, "value": 0.5}]
    report = make({"cdnv": VALUE, "gc": VALUE}, {"probe_accuracy": {**probe, "curve": curve}})
    titles = [row.title for row in report_rows(report)]
    assert titles == [
        "geometric complexity (GC)",
        "CDNV",
        "few-shot probe accuracy, 5-way 1-shot",
        "few-shot probe accuracy, 5-way 5-shot",
    ]
    assert report_rows(report)[3].cells == ("", "0.500 [0.310, 0.350]")


def test_reasons_become_notes():
    report = make({"cdnv": {"value": None, "stderr": None, "ci95": None, "n": 3, "reason": "one class"}})
    assert report_notes(report) == ["source.cdnv: one class"]
    assert "— source.cdnv: one class" in render_report(report, "table")


def test_tables_in_pipes_carry_no_escapes_and_lose_no_text():
    text = render_report(make(target={"cdnv": VALUE}), "table")
    assert "\x1b" not in text
    assert "0.333 [0.310, 0.350]" in text
    assert "…" not in text


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_terminals_of_any_width_lose_no_digits(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    metrics = {"nearest": VALUE, "cdnv": VALUE, "ncm_accuracy": {**VALUE, "stderr": 1e-4, "ci95": (0.3331, 0.3335)}}
    text = render_report(make(metrics, metrics), "table", paper_of(terminal=True))
    assert text.count("0.33333 [0.33310, 0.33350]") == 2
    assert text.count("0.333 [0.310, 0.350]") == 2


def test_markdown_escapes_what_would_break_its_tables():
    text = render_markdown(make(target={"cdnv": VALUE}))
    assert r"s\|x train" in text
    assert "| CDNV | ↓ | 0.333 [0.310, 0.350] | 0.333 [0.310, 0.350] |" in text
    assert "**Warnings**" in text
    assert "- careful" in text


def test_the_list_of_metrics_names_each():
    text = render_metrics()
    assert all(metric.name in text for metric in METRICS)
    assert [line.split()[0] for line in text.splitlines()[1 : len(METRICS) + 1]] == [metric.name for metric in METRICS]
    narrow = render_metrics(Paper(80))
    assert all(len(line) <= 80 for line in narrow.splitlines())
    assert all(metric.name in narrow for metric in METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_each_metric_is_explained_with_its_reference(metric):
    text = render_metric(metric, Paper(80))
    words = " ".join(text.split())
    assert metric.title in words
    assert f"unit {metric.unit or 'none'}" in words
    assert "Args:" not in text
    assert re.search(r"\b(19|20)\d\d\b", text), "no reference"
    prose = [line for line in text.splitlines() if not line.startswith(" ")]
    assert all(len(line) <= 80 for line in prose)
    (entry,) = json.loads(metrics_json([metric]))
    assert (entry["name"], entry["direction"]) == (metric.name, metric.direction)
    assert entry["definition"] in text or len(entry["definition"]) > 100

import io
import json

import numpy as np
import pandas as pd
import pytest

from gcaudit.audit.run import run_audit
from gcaudit.audit.spec import AuditSpec
from gcaudit.errors import RequestError
from gcaudit.render.export import frame_bytes
from gcaudit.render.paper import Paper
from gcaudit.render.ranking import ranking_json, render_ranking, render_ranking_markdown
from gcaudit.render.rows import format_value
from gcaudit.report.evidence import ReportEvidence
from gcaudit.report.warnings import warn
from gcaudit.zoo.cells import CellRequest, CellResult
from gcaudit.zoo.frames import ranking_frame
from gcaudit.zoo.ranking import parse_sort, rank


@pytest.fixture(scope="module")
def report():
    return run_audit(
        AuditSpec.from_options(model="demo", source="demo", target="demo", source_max_images=50, target_max_images=100, episodes=20)
    )


def with_value(report, role, name, value, stderr, shift=None, **model):
    """The report with another value of one metric; `shift` seeds the part of its influence that other models do not share."""
    block = report.blocks()[role]
    entry = block.metrics[name].model_copy(
        update={"value": value, "stderr": stderr, "ci95": (value - 2 * stderr, value + 2 * stderr)}
    )
    block = block.model_copy(update={"metrics": {**block.metrics, name: entry}})
    found = report.model_copy(update={role: block, "model": report.model.model_copy(update=model)})
    if shift is None:
        return found.with_evidence(None)
    common = np.random.default_rng(0).normal(size=20)
    own = np.random.default_rng(shift).normal(size=20)
    influence = stderr * (0.999 * common / np.linalg.norm(common) + 0.001 * own / np.linalg.norm(own))
    return found.with_evidence(ReportEvidence({f"{role}.{name}": influence}, {}))


def result(name, report, reason=None, target="demo"):
    spec = AuditSpec.from_options(model=name, source="demo", target=target)
    return CellResult(CellRequest(name, "demo", target, spec), report, reason, fresh=True)


SORT = parse_sort(None, with_target=True, measured=None)


def test_the_best_comes_first_and_close_neighbours_share_a_letter(report):
    values = {"low": 0.50, "mid": 0.52, "high": 0.80}
    found = rank([result(n, with_value(report, "target", "probe_accuracy", v, 0.01)) for n, v in values.items()], SORT)
    (table,) = found.tables
    assert [(row.rank, row.model, row.groups) for row in table.rows] == [(1, "high", "a"), (2, "mid", "b"), (3, "low", "b")]
    assert not table.paired
    assert (found.sort, found.direction) == ("target.probe_accuracy", "higher")


def test_paired_evidence_tells_neighbours_apart(report):
    values = {"low": 0.50, "mid": 0.52, "high": 0.80}
    reports = [with_value(report, "target", "probe_accuracy", v, 0.01, shift=k) for k, v in enumerate(values.values(), 1)]
    (table,) = rank([result(name, each) for name, each in zip(values, reports, strict=True)], SORT).tables
    assert [row.groups for row in table.rows] == ["a", "b", "c"]
    assert table.paired


def test_lower_is_better_where_the_metric_says_so(report):
    rule = parse_sort("source.cdnv", with_target=True, measured=None)
    cells = [result(n, with_value(report, "source", "cdnv", v, 0.01)) for n, v in (("a", 0.9), ("b", 0.1))]
    assert [row.model for row in rank(cells, rule).tables[0].rows] == ["b", "a"]


def test_what_may_not_be_compared_is_in_tables_of_its_own(report):
    rule = parse_sort("source.geometric_collapse", with_target=True, measured=None)
    large = report.model.preprocessing.model_copy(update={"input_size": (1, 56, 56)})
    cells = [
        result("small", with_value(report, "source", "geometric_collapse", 5.0, 0.1)),
        result("large", with_value(report, "source", "geometric_collapse", 1.0, 0.1, preprocessing=large)),
    ]
    tables = rank(cells, rule).tables
    assert [[row.model for row in table.rows] for table in tables] == [["small"], ["large"]]
    assert ["input 1x28x28" in tables[0].condition, "input 1x56x56" in tables[1].condition] == [True, True]
    assert len(rank(cells, SORT).tables) == 1
    rule = parse_sort("source.gc", with_target=True, measured=None)
    cells = [result("a", report), result("b", with_value(report, "source", "gc", 5.0, 0.1, arch="timm:other"))]
    assert len(rank(cells, rule).tables) == 2


def test_missing_values_come_last_and_failures_apart(report):
    gone = report.target.metrics["probe_accuracy"].model_copy(update={"value": None, "reason": "equal embeddings"})
    block = report.target.model_copy(update={"metrics": {"probe_accuracy": gone}})
    cells = [
        result("null", report.model_copy(update={"target": block})),
        result("good", report),
        result("bad", None, "no such file"),
    ]
    found = rank(cells, SORT)
    assert [(row.rank, row.model, row.reason) for row in found.tables[0].rows] == [
        (1, "good", None),
        (None, "null", "equal embeddings"),
    ]
    assert [cell.reason for cell in found.failed] == ["no such file"]


def test_equal_values_have_equal_ranks(report):
    cells = [result(n, with_value(report, "target", "probe_accuracy", v, 0.0)) for n, v in (("a", 0.5), ("b", 0.5), ("c", 0.4))]
    assert [(row.rank, row.groups) for row in rank(cells, SORT).tables[0].rows] == [(1, "a"), (1, "a"), (3, "b")]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("cdnv", {}, "expected --sort such as"),
        ("source.cdvn", {}, "did you mean cdnv"),
        ("source.poincare_lower_bound", {}, "has a better side"),
        ("target.probe_accuracy", {"with_target": False}, "expected --target to sort by"),
        ("source.gc", {"measured": ["cdnv"]}, "a metric that is measured"),
    ],
)
def test_wrong_sorts_are_told(text, options, message):
    with pytest.raises(RequestError, match=message):
        parse_sort(text, **{"with_target": True, "measured": None, **options})


def test_the_default_sort_is_one_that_is_measured():
    assert parse_sort(None, with_target=False, measured=None).name == "source.geometric_collapse"
    assert parse_sort(None, with_target=True, measured=["cdnv"]).name == "target.cdnv"
    assert parse_sort("target.probe_accuracy@5", with_target=True, measured=None).shot == 5


def test_every_format_says_the_same(report):
    cells = [result("good|bad", report), result("lost", None, "no such file")]
    found = rank(cells, SORT)
    value = report.target.metrics["probe_accuracy"]
    held = json.loads(ranking_json(found))
    assert held["schema"] == "gcaudit.ranking/1"
    assert held["tables"][0]["rows"][0]["report"]["target"]["metrics"]["probe_accuracy"]["value"] == value.value
    assert held["failed"] == [{"model": "lost", "source": "demo", "target": "demo", "reason": "no such file"}]
    frame = ranking_frame(found)
    for read in (pd.read_csv(io.BytesIO(frame_bytes(frame, "csv"))), pd.read_parquet(io.BytesIO(frame_bytes(frame, "parquet")))):
        assert read["target.probe_accuracy"][0] == value.value
        assert read["target.probe_accuracy.low"][0] == value.ci95[0]
        assert read["reason"][1] == "no such file"
    text = render_ranking(found)
    assert format_value(value) in text
    assert "lost: demo -> demo: no such file" in text
    assert r"good\|bad" in render_ranking_markdown(found)


def warned(report, *lines):
    return report.model_copy(update={"warnings": tuple(lines)})


SHARED = warn("shared", "source and target share 3 classes (a, b, c)")
ASSUMED = warn("preprocessing", "input size was assumed")


def test_a_ranking_says_in_its_first_line_who_was_trained_on_the_target(report):
    cells = [result("a", warned(report, SHARED, ASSUMED)), result("b", warned(report, ASSUMED)), result("c", report)]
    found = rank(cells, SORT)
    line = "demo -> demo: a was trained on classes or images of the target, so this is not transfer"
    assert render_ranking(found).splitlines()[0] == line
    assert render_ranking_markdown(found).splitlines()[0] == f"### {line}".replace(">", "&gt;").replace("-&gt;", "->")
    everyone = rank([result(name, warned(report, SHARED)) for name in "ab"], SORT)
    assert ": all models were trained on classes or images of the target" in render_ranking(everyone).splitlines()[0]
    assert render_ranking(rank([result("c", report)], SORT)).splitlines()[0] == "demo -> demo"
    held = json.loads(ranking_json(found))["tables"][0]["rows"]
    assert {row["model"]: row["trained_on_target"] for row in held} == {"a": True, "b": False, "c": False}


def test_each_warning_is_told_once_with_the_models_it_concerns(report):
    found = rank([result("a", warned(report, SHARED, ASSUMED)), result("b", warned(report, ASSUMED))], SORT)
    lines = ["a: source and target share 3 classes (a, b, c)", "all models: input size was assumed"]
    assert list(found.warnings) == lines
    text, markdown = render_ranking(found), render_ranking_markdown(found)
    assert all(text.count(f"warning: {line}") == 1 and markdown.count(f"- {line}") == 1 for line in lines)
    frame = ranking_frame(found).set_index("model")
    assert frame["warnings"]["a"] == "source and target share 3 classes (a, b, c) | input size was assumed"
    assert frame["trained_on_target"].to_dict() == {"a": True, "b": False}


def test_a_warning_of_some_targets_names_them(report):
    cells = [
        result("a", warned(report, ASSUMED)),
        result("b", report),
        result("a", warned(report, ASSUMED, SHARED), target="photos"),
    ]
    assert rank(cells, SORT).warnings == (
        "a: input size was assumed",
        "a on demo -> photos: source and target share 3 classes (a, b, c)",
    )


def test_how_models_were_read_is_a_column_where_it_differs_and_a_note_where_not(report):
    alike = rank([result(name, report) for name in "ab"], SORT)
    assert "— of every model: input 1x28x28, layer fc, weights file" in render_ranking(alike)
    assert "layer" not in render_ranking(alike).splitlines()[2]
    other = report.model_copy(update={"model": report.model.model_copy(update={"layer": "layer4", "container": "state_dict_ema"})})
    mixed = render_ranking(rank([result("a", report), result("b", other)], SORT))
    assert mixed.splitlines()[2].split()[-2:] == ["layer", "weights"]
    assert "layer4" in mixed
    assert "state_dict_ema" in mixed
    assert "— of every model: input 1x28x28\n" in mixed
    frame = ranking_frame(rank([result("a", report), result("b", other)], SORT)).set_index("model")
    assert (frame["weights"]["b"], frame["layer"]["b"], frame["input_size"]["b"]) == ("state_dict_ema", "layer4", "1x28x28")


def test_narrow_rankings_are_a_block_a_model(report):
    found = rank([result("a", report), result("b", report)], SORT)
    text = render_ranking(found, Paper(60))
    assert all(len(line) <= 60 for line in text.splitlines())
    value = format_value(report.target.metrics["probe_accuracy"])
    assert text.count(f"  target.probe_accuracy ↑: {value}") == 2

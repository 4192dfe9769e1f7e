"""`gcaudit.compare` from Python."""

import json

import pytest

import gcaudit
from gcaudit.render.comparison import CellLines, comparison_summary, render_comparison
from gcaudit.store.results import Store
from gcaudit.zoo.compare import CompareRequest, plan_comparison, run_comparison

SMALL = {"source_max_images": 50, "target_max_images": 100, "episodes": 20}


def test_it_is_what_the_command_line_does(tmp_path):
    store = tmp_path / "gcaudit.db"
    found = gcaudit.compare(
        ["demo", tmp_path / "missing.pt"], "demo", "demo", store=store, metrics="cdnv", sort="source.cdnv", **SMALL
    )
    frame = found.frame()
    assert list(frame["model"]) == ["demo", "missing"]
    truth = gcaudit.score("demo", source="demo", target="demo", metrics=("cdnv",), **SMALL)
    assert frame["source.cdnv"][0] == truth.source.metrics["cdnv"].value
    assert frame["target.cdnv"][0] == truth.target.metrics["cdnv"].value
    assert "missing.pt" in found.ranking.failed[0].reason
    assert json.loads(render_comparison(found, "json"))["sort"] == "source.cdnv"
    assert len(Store(store).cells()) == 2
    again = gcaudit.compare("demo", "demo", ["demo"], store=store, metrics="cdnv", sort="source.cdnv", **SMALL)
    assert "0 measured, 1 from" in comparison_summary(again)


def test_reports_carry_what_is_ranked_by_alone(tmp_path):
    found = gcaudit.compare("demo", "demo", store=tmp_path / "gcaudit.db", metrics=("cdnv", "nc1"), sort="source.nc1", **SMALL)
    (row,) = found.ranking.tables[0].rows
    assert list(row.report.evidence.influences) == ["source.nc1"]


def test_what_is_typed_for_both_data_sets_wins_over_a_file(tmp_path):
    (tmp_path / "zoo.yaml").write_text("models: [demo]\nsources: [{data: demo, max-images: 70}]\ntargets: [demo]\n")
    for options, counts in (
        ({"max_images": 20}, (20, 20)),
        ({"max_images": 20, "target_max_images": 30}, (20, 30)),
        ({}, (70, None)),
    ):
        plan = plan_comparison(CompareRequest((str(tmp_path / "zoo.yaml"),), options={**options, "metrics": ("cdnv",)}))
        assert (plan.cells[0].spec.source.max_images, plan.cells[0].spec.target.max_images) == counts


def test_a_store_that_cannot_be_made_is_told(tmp_path):
    with pytest.raises(gcaudit.GcauditError, match=r"expected --store in a folder that exists, found no .*nowhere; make it first"):
        gcaudit.compare("demo", "demo", store=tmp_path / "nowhere" / "x.db", metrics="cdnv", **SMALL)


def test_unknown_option(tmp_path):
    with pytest.raises(gcaudit.GcauditError, match="found 'n_shots'; did you mean n_shot"):
        gcaudit.compare("demo", "demo", store=tmp_path / "gcaudit.db", n_shots=1)
    assert not (tmp_path / "gcaudit.db").exists()


def test_one_reason_for_many_cells_is_told_once(tmp_path):
    said = []
    lines = CellLines()
    request = CompareRequest(
        models=("demo", "lost.pt"), sources=("nowhere/",), targets=("demo", "demo"), options=SMALL, store=tmp_path / "gcaudit.db"
    )
    found = run_comparison(plan_comparison(request), note=lambda *cell: said.append(lines.line(*cell)))
    text = render_comparison(found, "markdown")
    assert len(found.ranking.failed) == 4
    assert text.count("found no file or folder 'nowhere/'") == 1
    assert "- demo: nowhere/ -> demo, demo: nowhere/ -> demo: expected a data set" in text
    assert [line.count("the same reason") for line in said] == [0, 1, 0, 1]

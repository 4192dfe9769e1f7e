"""Accuracies to compare scores with: from a CSV, or a metric."""

import json
from pathlib import Path

import pandas as pd
import pytest
from reports import VALUE, changed, make, with_value

import gcaudit
from gcaudit.audit.spec import AuditSpec
from gcaudit.errors import RequestError
from gcaudit.gate.rules import parse_name
from gcaudit.geometry.agreement import agreement
from gcaudit.render.predictions import predictions_json, predictions_markdown, render_predictions
from gcaudit.zoo.accuracies import read_accuracies
from gcaudit.zoo.cells import CellRequest, CellResult
from gcaudit.zoo.compare import CompareRequest, plan_comparison
from gcaudit.zoo.frames import predictions_frame
from gcaudit.zoo.truth import LeftOut, Truth, metric_truth, predictions

DATA = ("--source", "demo", "--target", "demo", "--max-images", "50", "--episodes", "20", "--metrics", "cdnv")


def cell(model, target="birds", source="cifar10", spec=None, target_spec=None):
    options = {"model": spec or f"runs/{model}.pt", "source": source}
    options |= {} if target is None else {"target": target_spec or target}
    return CellRequest(model, source, target, AuditSpec.from_options(**options))


@pytest.fixture
def read(tmp_path):
    def call(text, cells, truth_for=None):
        path = tmp_path / "acc.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_accuracies(path, cells, truth_for)

    return call


ONE = [cell("resnet18"), cell("resnet50"), cell("vit")]
TWO = [cell(model, target) for model in ("resnet18", "resnet50") for target in ("birds", "cars")]
ROWS = "model,accuracy\nresnet18,0.7\nresnet50,0.8\n"


def test_models_go_by_name_spec_file_and_stem(read):
    cells = [cell("a", spec="runs/x.pt"), cell("b", spec="runs/y.pt"), cell("c", spec="runs/z.pt"), cell("d", spec="runs/w.pt")]
    found = read("model,accuracy\n a ,0.1\nruns/y.pt,0.2\nz.pt,0.3\n\nw,0.4\n", cells)
    assert found.accuracies == {("cifar10", "birds", name): value for name, value in zip("abcd", (0.1, 0.2, 0.3, 0.4), strict=True)}
    assert found.warnings == ()
    assert found.rule is None


def test_a_name_wins_over_a_stem_and_the_bytes_of_a_mark_do_not_matter(read):
    cells = [cell("x", spec="runs/other.pt"), cell("y", spec="runs/x.pt")]
    assert read(b"\xef\xbb\xbfmodel,accuracy\r\nx,0.5\r\n", cells).accuracies == {("cifar10", "birds", "x"): 0.5}


def test_names_that_tables_read_as_nothing_are_names(read):
    assert read("model,accuracy\nNA,0.5\n", [cell("NA")]).accuracies == {("cifar10", "birds", "NA"): 0.5}


def test_one_target_needs_no_column(read):
    assert read(ROWS + "vit,0.9\n", ONE).warnings == ()
    assert read("model,target,accuracy\nvit,,0.9\n", ONE).accuracies == {("cifar10", "birds", "vit"): 0.9}
    assert read("model,accuracy\nvit,0.9\n", [cell("vit", None)]).accuracies == {("cifar10", None, "vit"): 0.9}


def test_several_targets_need_a_column_or_the_name_of_one(read):
    with pytest.raises(
        RequestError, match=r"expected a column target, as there are 2 targets \(birds, cars\), found model, accuracy; add it, or"
    ):
        read(ROWS, TWO)
    found = read(ROWS, TWO, "cars")
    assert found.accuracies == {("cifar10", "cars", "resnet18"): 0.7, ("cifar10", "cars", "resnet50"): 0.8}
    assert found.warnings == ()
    found = read("model,target,accuracy\nresnet18,birds,0.1\nresnet18,cars,0.2\n", TWO)
    assert found.accuracies == {("cifar10", "birds", "resnet18"): 0.1, ("cifar10", "cars", "resnet18"): 0.2}
    assert found.warnings[0].endswith("has no accuracy for resnet50: cifar10 -> birds, resnet50: cifar10 -> cars")
    with pytest.raises(RequestError, match=r"line 3: expected the name of a target \(birds, cars\), found nothing; add it"):
        read("model,target,accuracy\nresnet18,birds,0.1\nresnet18,,0.2\n", TWO)


def test_accuracies_hold_for_all_sources(read):
    cells = [cell("vit", source=source) for source in ("cifar10", "cifar100")]
    assert read("model,accuracy\nvit,0.9\n", cells).accuracies == {(s, "birds", "vit"): 0.9 for s in ("cifar10", "cifar100")}
    found = read("model,source,accuracy\nvit,cifar100,0.9\n", cells)
    assert found.accuracies == {("cifar100", "birds", "vit"): 0.9}


@pytest.mark.parametrize(
    ("text", "cells", "truth_for", "message"),
    [
        (ROWS, TWO, "car", r"expected --truth-for of a target \(birds, cars\), found 'car'; did you mean cars\?"),
        (ROWS, TWO, "xyz", r"found 'xyz'; name one of them"),
        (ROWS, [cell("vit", None)], "cars", "expected --target with --truth-for, found none; add --target cars"),
        ("model,target,accuracy\nvit,birds,0.9\n", ONE, "birds", "that name no target, found a column target in .*; leave one"),
        ("model,accuracy\nvit,inf\n", ONE, None, "line 2: expected a finite number as accuracy, found 'inf'"),
        ("model,accuracy\nvit,nan\n", ONE, None, "line 2: expected a number as accuracy, found nothing"),
        ("model,accuracy\nvit,93%\n", ONE, None, "line 2: expected a number as accuracy, found '93%'; write it as 93"),
        ("model,accuracy\n\n\nvit,\n", ONE, None, "line 4: expected a number as accuracy, found nothing"),
        ("model,accuracy\n,0.9\n", ONE, None, "line 2: expected the name of a model, found nothing"),
        ("model,accuracy\nvit,0.9,1\n", ONE, None, r"line 2: expected 2 cells \(model, accuracy\), found 3; quote"),
        ("model,model,accuracy\n", ONE, None, "expected columns model and accuracy, found model, model, accuracy"),
        ("", ONE, None, "expected columns model and accuracy, found nothing"),
        (b"model,accuracy\n\xff,1\n", ONE, None, "expected accuracies in .*; see --truth"),
        ('model,accuracy\n"vit,1\n', ONE, None, "expected accuracies in .*; see --truth"),
        (ROWS + "vit,81\n", ONE, None, "all accuracies as shares or all in per cent, found 0.7 on line 2 and 81 on line 4; divide"),
        (ROWS + "resnet18,0.7\n", ONE, None, "line 4: expected one accuracy for resnet18: .* found another on line 2"),
        ("model,accuracy\nresnet5,0.9\n", ONE, None, r"found none: 1 line names no model .* 'resnet5' on line 2 \(did you mean resnet50"),
        (
            "model,accuracy\nx,0.9\n",
            [cell("a", spec="runs/a/x.pt"), cell("b", spec="runs/b/x.pt")],
            None,
            "line 2: expected the name of one model, found 'x', which may be a, b; name one",
        ),
        (
            "model,target,accuracy\nvit,demo,0.9\n",
            [cell("vit", "first", target_spec="demo"), cell("vit", "second", target_spec="demo")],
            None,
            "line 2: expected the name of one target, found 'demo', which may be first, second",
        ),
        (
            "model,accuracy\nvit,0.9\n",
            [cell("vit", "first", target_spec="demo"), cell("vit", "second", target_spec="demo")],
            "demo",
            "found 'demo'; it may be first or second: name one",
        ),
    ],
)  # fmt: skip
def test_wrong_accuracies_are_told(read, text, cells, truth_for, message):
    with pytest.raises(RequestError, match=message):
        read(text, cells, truth_for)


def test_no_file(tmp_path):
    with pytest.raises(RequestError, match=r"expected --truth to be a CSV file, found no .*x\.csv; check the path"):
        read_accuracies(tmp_path / "x.csv", ONE)


def test_scales_are_looked_at_for_each_target_and_what_is_beyond_them_is_told(read):
    text = "model,target,accuracy\nresnet18,birds,0.1\nresnet50,birds,0\nresnet18,cars,20\nresnet50,cars,0\n"
    assert read(text, TWO).warnings == ()
    (line,) = read("model,accuracy\nresnet18,70\nresnet50,-3\nvit,80\n", ONE).warnings
    assert "-3 on line 3 is neither a share nor a per cent" in line


def test_lines_that_match_nothing_are_named(read):
    lines = "".join(f"other{n},birds,cifar10,0.5\n" for n in range(5))
    text = (
        "model,target,source,accuracy\nvit,birds,cifar10,0.9\nresnet81,birds,cifar10,0.5\nvit,bird,cifar10,0.1\nvit,birds,mnist,0.1\n"
        + lines
    )
    first, second, third, lacking = read(text, ONE).warnings
    assert "6 lines name no model that is compared: 'resnet81' on line 3 (did you mean resnet18?), 'other0' on line 6" in first
    assert first.endswith(" and 3 more")
    assert second.endswith("1 line names no target that is compared: 'bird' on line 4 (did you mean birds?)")
    assert third.endswith("1 line names no source that is compared: 'mnist' on line 5")
    assert "has no accuracy for resnet18: cifar10 -> birds, resnet50" in lacking


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (None, "expected --truth FILE.csv with --truth-for birds, found none; add it or leave --truth-for out"),
        ("target.cdnv", "expected --truth FILE.csv with --truth-for birds, found target.cdnv; add it"),
    ],
)
def test_a_target_of_accuracies_needs_accuracies(truth, message):
    with pytest.raises(RequestError, match=message):
        plan_comparison(CompareRequest(("demo",), ("demo",), ("demo",), truth=truth, truth_for="birds"))


PROBE = {**VALUE, "n_way": 5, "n_shot": 1, "n_query": 15, "episodes": 10, "ridge": 1.0}


def zoo(*pairs):
    """Cells of models with these CDNVs and probe accuracies, and GC of them by the sketch."""
    base = make({"cdnv": VALUE, "gc": {**VALUE, "estimator": "sketch"}}, {"probe_accuracy": PROBE, "cdnv": VALUE})
    found = []
    for number, (score, accuracy) in enumerate(pairs):
        report = with_value(base, "source.cdnv", score, score - 0.1, score + 0.1)
        report = with_value(report, "target.probe_accuracy", accuracy, accuracy - 0.02, accuracy + 0.03)
        found.append(CellResult(cell(f"m{number}"), report, None, fresh=True))
    return found


RULE = parse_name("target.probe_accuracy", "a metric")


def find(found, metric):
    return next(entry for entry in found if entry.metric == metric)


def test_a_metric_as_truth_has_intervals_and_says_how_it_was_measured():
    results = zoo((1.0, 0.9), (2.0, 0.8), (3.0, 0.5))
    truth = metric_truth(RULE, results)
    assert truth.intervals["cifar10", "birds", "m2"] == (pytest.approx(0.48), pytest.approx(0.53))
    assert truth.how == "5-way 1-shot"
    found = predictions(results, truth)
    entry = find(found, "source.cdnv")
    assert entry.agreement.weighted_tau.value == pytest.approx(1)
    assert entry.score_intervals[1] == (pytest.approx(1.9), pytest.approx(2.1))
    assert entry.accuracy_intervals[1] == truth.intervals["cifar10", "birds", "m1"]
    assert (entry.left_out, entry.condition, entry.how) == ((), "", "")
    assert find(found, "source.gc").how == "sketch estimator, pixel space"
    assert all(each.metric != "target.probe_accuracy" for each in found)


def test_a_truth_that_is_better_when_lower_turns_the_sign():
    results = zoo((1.0, 0.9), (2.0, 0.8), (3.0, 0.5))
    entry = find(predictions(results, metric_truth(parse_name("source.cdnv", "a metric"), results)), "target.probe_accuracy")
    assert entry.agreement == agreement((0.9, 0.8, 0.5), (-1.0, -2.0, -3.0), "higher")
    assert entry.agreement.spearman.value == pytest.approx(1)
    assert entry.accuracies == (1.0, 2.0, 3.0)


def test_models_that_do_not_count_are_named_with_reasons():
    results = zoo((1.0, 0.9), (2.0, 0.8), (3.0, 0.5), (4.0, 0.4), (5.0, 0.3))
    large = changed(results[1].report, "model.preprocessing", input_size=[3, 384, 384])
    null = changed(results[2].report, "source.metrics.gc", value=None, stderr=None, ci95=None, reason="no gradient")
    blind = changed(results[3].report, "target.metrics.probe_accuracy", value=None, stderr=None, ci95=None, reason="too few images")
    results[1] = CellResult(results[1].request, large, None, fresh=True)
    results[2] = CellResult(results[2].request, null, None, fresh=True)
    results[3] = CellResult(results[3].request, blind, None, fresh=True)
    results.append(CellResult(cell("lost"), None, "no such file", fresh=True))
    entry = find(predictions(results, metric_truth(RULE, results)), "source.gc")
    assert entry.models == ("m0", "m4")
    assert "input 3x224x224" in entry.condition
    assert entry.left_out == (
        LeftOut("m1", "may not be compared with the others: input 3x384x384"),
        LeftOut("m2", "no source.gc: no gradient"),
        LeftOut("m3", "no target.probe_accuracy: too few images"),
        LeftOut("lost", "it could not be done: no such file"),
    )
    (some,) = [e for e in predictions(results, Truth("a.csv", {("cifar10", "birds", "m0"): 0.5})) if e.metric == "source.cdnv"]
    assert some.left_out[0] == LeftOut("m1", "no accuracy in a.csv")


def test_every_format_has_the_coefficients_with_intervals_and_who_does_not_count():
    results = [*zoo((1.0, 0.9), (2.0, 0.8), (3.0, 0.85)), CellResult(cell("lost"), None, "no such file", fresh=True)]
    truth = metric_truth(RULE, results)
    found = predictions(results, truth)
    entry = find(found, "source.cdnv")
    held = predictions_json(found, truth)
    json.dumps(held, allow_nan=False)
    first = next(each for each in held["predictions"] if each["metric"] == "source.cdnv")
    assert first["score_intervals"][0] == entry.score_intervals[0]
    assert first["accuracy_intervals"] == entry.accuracy_intervals
    assert first["left_out"] == [{"model": "lost", "reason": "it could not be done: no such file"}]
    frame = predictions_frame(found, truth.title).set_index("metric")
    for name in ("weighted_tau", "spearman", "pearson"):
        estimate = getattr(entry.agreement, name)
        assert first[name]["value"] == frame[name]["source.cdnv"] == estimate.value
        assert (frame[f"{name}.low"]["source.cdnv"], frame[f"{name}.high"]["source.cdnv"]) == estimate.ci95
        assert frame[f"{name}.stderr"]["source.cdnv"] == estimate.stderr
    assert tuple(frame.loc["source.cdnv", ["source", "target", "truth", "models", "left_out"]]) == (
        "cifar10",
        "birds",
        truth.title,
        3,
        1,
    )
    assert frame["reason"]["source.gc"] == "all 3 scores are equal: they order nothing"
    text = render_predictions(found, truth)
    marked = predictions_markdown(found, truth)
    for told in (text, marked):
        assert "all scores: without lost: it could not be done: no such file" in told
        assert "all 3 scores are equal: they order nothing" in told
        assert f"{entry.agreement.pearson.value:.2f}"[:3] in told
    assert list(predictions_frame([], "").columns) == list(predictions_frame(found, "").columns)


def test_correlations_lie_beside_csv_and_parquet(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("acc.csv").write_text("model,accuracy\ndemo,0.9\nnobody,0.8\n")
    truth = ("--truth", "acc.csv")
    code, out, err = run("compare", "demo", *DATA, *truth, "-o", "r.csv", "--scatter", "source.cdnv=p.svg")
    assert (code, out) == (0, ""), err
    assert err.splitlines()[-1].endswith("; ranking in r.csv, correlations in r.predictions.csv, plot of source.cdnv in p.svg")
    assert "warning: acc.csv: 1 line names no model that is compared: 'nobody' on line 3" in err
    assert Path("p.svg").read_bytes().startswith(b"<?xml")
    assert run("compare", "demo", *DATA, *truth, "-o", "r.parquet")[0] == 0
    frame = pd.read_csv("r.predictions.csv")
    assert list(frame["metric"]) == ["source.cdnv", "target.cdnv"]
    assert set(frame["reason"]) == {"a correlation needs at least 3 models, found 1"}
    assert list(pd.read_parquet("r.predictions.parquet").columns) == list(frame.columns)
    code, out, err = run("compare", "demo", *DATA, *truth, "--format", "csv", "--quiet")
    assert out.startswith("model,")
    assert "warning: correlations are no part of this csv; add -o FILE.csv to have them beside it" in err
    assert run("compare", "demo", *DATA, "-o", "s.csv")[0] == 0
    assert run("compare", "demo", *DATA, *truth, "-o", "s.json")[0] == 0
    assert not list(tmp_path.glob("s.predictions*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "taken.csv"), "expected the file of correlations beside --output to be a file, found the folder taken.predictions.csv"),
        (("-o", "acc.csv"), "expected --output to leave --truth as it is, found acc.csv for both; choose another file"),
        (("--target", "demo", "--truth-for", "dem", "-o", "x.csv"), "expected --truth-for of a target (demo), found 'dem'; did you mean demo?"),
    ],
)  # fmt: skip
def test_what_would_go_wrong_in_the_end_is_told_first(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("acc.csv").write_text("model,accuracy\ndemo,0.9\n")
    Path("taken.predictions.csv").mkdir()
    code, out, err = run("compare", "demo", *DATA, "--truth", "acc.csv", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert not Path("gcaudit.db").exists()


def test_from_python(tmp_path):
    (tmp_path / "acc.csv").write_text("model,accuracy\ndemo,0.9\n")
    small = {"max_images": 50, "episodes": 20, "metrics": "cdnv", "store": tmp_path / "gcaudit.db"}
    found = gcaudit.compare("demo", "demo", "demo", truth=tmp_path / "acc.csv", truth_for="demo", **small)
    assert list(found.predictions_frame()["metric"]) == ["source.cdnv", "target.cdnv"]
    assert gcaudit.compare("demo", "demo", "demo", **small).predictions_frame().empty

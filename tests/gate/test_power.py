import json

import numpy as np
import pytest
from reports import changed, make_worse, with_value

import gcaudit
from gcaudit.audit.blocks import metric_value
from gcaudit.gate.contrast import contrast_error, joint_covariance
from gcaudit.gate.power import CHANGES, power_rows
from gcaudit.gate.regression import holm
from gcaudit.gate.rules import parse_rule
from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.ridge import ProbeSettings, probe_accuracy
from gcaudit.render.power import render_power
from gcaudit.report.evidence import ReportEvidence


def by_name(rows):
    return {row.metric: row for row in rows}


def test_needed_images_see_the_change_in_four_of_five_cases(demo):
    report = with_value(demo, "source.cdnv", 1.0, 0.9, 1.1, n=500)
    row = by_name(power_rows(report))["source.cdnv"]
    assert (row.have, row.unit, row.paired) == (500, "images", False)
    rng = np.random.default_rng(0)
    for change, needed in zip(CHANGES, row.needed, strict=True):
        error = 0.1 / 1.959964 * (2 * 500 / needed) ** 0.5
        assert np.mean(rng.normal(change, error, 20_000) > 1.959964 * error) == pytest.approx(0.8, abs=0.01)


def test_the_probe_needs_images_and_given_the_pool_episodes(demo):
    rows = by_name(power_rows(demo))
    images, episodes = rows["target.probe_accuracy"], rows["target.probe_accuracy given the pool"]
    assert (images.unit, episodes.unit) == ("images", "episodes")
    assert episodes.have == 1000
    assert all(a is None or a > b for a, b in zip(images.needed, images.needed[1:], strict=False))
    few = by_name(power_rows(changed(demo, "target.metrics.probe_accuracy", pool_stderr=0.02)))["target.probe_accuracy"]
    assert few.needed[0] is None


def test_pairing_needs_fewer(demo, tmp_path):
    make_worse(tmp_path / "other", 0.3)
    other = gcaudit.score(str(tmp_path / "other"), "demo", "demo")
    alone, paired = by_name(power_rows(demo)), by_name(power_rows(demo, other))
    assert paired["source.gc"].paired
    assert paired["source.gc"].needed[1] < alone["source.gc"].needed[1] / 2
    bare = by_name(power_rows(demo, other.with_evidence(None)))["source.gc"]
    assert not bare.paired


def test_reasons(demo):
    nothing = changed(demo, "source.metrics.cdnv", value=None, stderr=None, ci95=None, reason="because")
    assert by_name(power_rows(nothing))["source.cdnv"].reason == "because"
    zero = with_value(demo, "source.cdnv", 0.0, -0.1, 0.1)
    assert "no share of 0" in by_name(power_rows(zero))["source.cdnv"].reason
    other = changed(demo, "source", fingerprint="x")
    assert "source images" in by_name(power_rows(demo, other))["source.cdnv"].reason
    withheld = with_value(demo, "source.gc", 5.0, reason="heavy tail")
    assert by_name(power_rows(withheld))["source.gc"].reason == "heavy tail"


def test_formats(demo):
    rows = power_rows(demo)
    content = json.loads(render_power(rows, "json"))
    assert content["schema"] == "gcaudit.power/1"
    assert [row["metric"] for row in content["rows"]] == [row.metric for row in rows]
    table = render_power(rows, "table")
    assert "target.probe_accuracy given the pool" in table
    assert "1,000 episodes" in table
    assert render_power(rows, "markdown").count("\n| ") == len(rows) + 1
    poor = with_value(demo, "source.gc", 5.0, reason="heavy tail")
    assert "source.gc: heavy tail" in render_power(power_rows(poor), "table")


def test_the_command(run, demo, tmp_path):
    (tmp_path / "r.json").write_text(demo.to_json())
    code, out, err = run("power", tmp_path / "r.json")
    assert (code, err) == (0, "")
    assert "for 1%" in out
    assert run("power", tmp_path / "r.json", "-f", "json", "-o", tmp_path / "p.json")[0] == 0
    assert json.loads((tmp_path / "p.json").read_text())["power"] == 0.8
    code, _, err = run("power", tmp_path / "r.json", "-f", "csv")
    assert (code, err.strip()) == (2, "gcaudit: error: expected --format of table, json, markdown; found 'csv'")
    assert run("power", tmp_path / "none.json")[0] == 2


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_holds_the_family():
    rng = np.random.default_rng(0)
    false = sum(min(holm(rng.random(8))) < 0.025 for _ in range(4000))
    assert false <= 0.034 * 4000
    assert sum(min(rng.random(8)) < 0.025 for _ in range(4000)) > 0.15 * 4000


def test_several_regressions_share_one_chance(demo):
    old = with_value(demo, "source.cdnv", 1.0, 0.9, 1.1)
    new = with_value(demo, "source.cdnv", 1.15, 1.05, 1.25)  # 2.08 standard errors
    alone = gcaudit.gate(new, ["source.cdnv regression <= 0%"], old)
    assert [verdict.outcome for verdict in alone.verdicts] == ["failed"]
    together = gcaudit.gate(
        new, ["source.cdnv regression <= 0%", "source.gc regression <= 0%", "target.cdnv regression <= 0%"], old
    )
    first = together.verdicts[0]
    assert first.outcome == "unsure"
    assert first.p_value == pytest.approx(3 * alone.verdicts[0].p_value)
    assert "by Holm over 3 regressions" in first.message


def test_a_value_without_an_interval_is_not_judged(demo):
    old = with_value(demo, "source.gc", 5.0, reason="the energies have a heavy tail")
    for report, baseline, where in (
        (demo, old, "in the baseline, it has no standard error"),
        (old, demo, "it has no standard error"),
    ):
        (verdict,) = gcaudit.gate(report, ["source.gc regression <= 2%"], baseline).verdicts
        assert (verdict.outcome, verdict.status) == ("missing", "failed")
        assert f"{where} (the energies have a heavy tail)" in verdict.message


def test_rules_given_the_pool_judge_these_images(demo):
    value = demo.target.metrics["probe_accuracy"]
    limit = (value.value + value.ci95[0]) / 2
    assert gcaudit.gate(demo, [f"target.probe_accuracy >= {limit}"]).verdicts[0].outcome == "unsure"
    (verdict,) = gcaudit.gate(demo, [f"target.probe_accuracy >= {limit} given the pool"]).verdicts
    assert verdict.outcome == "passed"
    assert verdict.ci95 == value.pool_ci95
    assert verdict.message.endswith("given the pool")


def test_scores_that_depend_on_dimensions_are_not_compared_across_them(demo):
    rng = np.random.default_rng(0)
    images = rng.random((60, 1, 28, 28)).astype(np.float32)
    labels = np.arange(60) % 3
    report = gcaudit.score("demo", "demo", (images, labels), metrics=("logme",))
    other = changed(report, "model", embedding_dim=12)
    with pytest.raises(gcaudit.errors.RequestError, match=r"number of dimensions, for target.logme: 96 against 12"):
        gcaudit.gate(report, ["target.logme regression <= 2%"], other)
    assert "repeatability" in report.target.metrics["logme"].interval


def test_a_paired_error_of_few_episodes_is_never_less_than_that_of_the_draw():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 40)
    centres = rng.normal(size=(5, 8))
    settings = ProbeSettings(episodes=20)
    template = gcaudit.score("demo", "demo", "demo", episodes=20)
    rule, pool = (parse_rule(f"target.probe_accuracy regression <= 0%{end}") for end in ("", " given the pool"))
    for _ in range(30):
        reports = []
        for _ in range(2):
            found = probe_accuracy(evidence_of(centres[labels] + 1.5 * rng.normal(size=(200, 8)), labels), settings)
            target = template.target.model_copy(update={"metrics": {"probe_accuracy": metric_value(found)}})
            episodes = {"target.probe_accuracy": found.given_pool.influence.numpy()}
            evidence = ReportEvidence({"target.probe_accuracy": found.influence.numpy()}, {}, episodes)
            reports.append(template.model_copy(update={"target": target}).with_evidence(evidence))
        pair = [report.target.metrics["probe_accuracy"] for report in reports]
        whole, drawn = (contrast_error(*reports, each, 1.0, pair)[0] for each in (rule, pool))
        assert whole > drawn > 0
        covariance, _ = joint_covariance(reports, rule, pair)
        assert np.linalg.eigvalsh(covariance).min() >= -1e-15
        assert (np.diagonal(covariance) > 0.999 * np.array([value.stderr**2 for value in pair])).all()


def test_probes_of_older_versions_are_those_of_the_pool(demo):
    old = changed(demo, "target.metrics.probe_accuracy", pool_stderr=None, pool_ci95=None, curve=None)
    with pytest.raises(gcaudit.errors.RequestError, match=r"interval of target.probe_accuracy: for the distribution against these"):
        gcaudit.gate(demo, ["target.probe_accuracy regression <= 2%"], old)
    assert (
        gcaudit.gate(demo, ["target.probe_accuracy regression <= 2% given the pool"], old).verdicts[0].outcome == "unsure"
    )  # not paired
    row = by_name(power_rows(old))["target.probe_accuracy"]
    assert "score again" in row.reason


def test_the_name_of_before_is_told():
    with pytest.raises(gcaudit.errors.RequestError, match="did you mean cdnv"):
        parse_rule("source.cdnv_debiased <= 1")


def test_rows_of_other_versions_and_odd_numbers_break_nothing(demo):
    odd = changed(demo, "source.metrics", cdnv_debiased={"value": 1.0, "stderr": 0.1, "ci95": [0.8, 1.2], "n": 5})
    assert "source.cdnv_debiased" not in by_name(power_rows(odd))
    for value, low, high in ((1e160, 0.9e160, 1.1e160), (1e-157, -1.0, 1.0), (1.0, 1.0, 1.0)):
        row = by_name(power_rows(with_value(demo, "source.cdnv", value, low, high)))["source.cdnv"]
        assert row.reason is not None or row.needed[0] > 1


def test_few_images_make_students_distribution_of_the_normal(demo):
    old = with_value(demo, "source.cdnv", 1.0, 0.9, 1.1, student=4.303)
    new = with_value(demo, "source.cdnv", 1.16, 1.06, 1.26, student=4.303)
    assert gcaudit.gate(new, ["source.cdnv regression <= 0%"], old).verdicts[0].outcome == "unsure"

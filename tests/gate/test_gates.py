import dataclasses
import json
import os
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from processes import finished

import gcaudit
from gcaudit.errors import RequestError
from gcaudit.gate.judge import GateResult, Verdict, gate_request
from gcaudit.gate.rules import parse_rule, parse_share, project_rules, read_rules
from gcaudit.render.verdicts import render_annotations, render_junit, render_summary, render_verdicts, render_verdicts_json
from gcaudit.report.evidence import ReportEvidence, evidence_path, load_evidence, save_evidence
from gcaudit.report.schema import Report

PROGRAM = [sys.executable, "-m", "gcaudit"]


@pytest.fixture(scope="module")
def demo():
    return gcaudit.score("demo", "demo", "demo")


def changed(report, path, **values):
    """A copy with other values at `source.metrics.gc` or `model.preprocessing` and the like."""
    content = json.loads(report.to_json())
    place = content
    for key in path.split("."):
        place = place[key]
    place.update(values)
    return Report.from_json(json.dumps(content)).with_evidence(report.evidence)


def with_value(report, name, value, low=None, high=None, **more):
    role, metric = name.split(".")
    ci95 = None if low is None else [low, high]
    stderr = None if low is None else (high - low) / 2 / 1.959963984540054
    return changed(report, f"{role}.metrics.{metric}", value=value, stderr=stderr, ci95=ci95, **more).with_evidence(None)


def only(result):
    (verdict,) = result.verdicts
    return verdict


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("target.probe_accuracy >= 0.6", "target.probe_accuracy >= 0.6"),
        ("  source.gc<1e4 ", "source.gc < 10000.0"),
        ("warn: source.cdnv <= .5", "source.cdnv <= 0.5"),
        ("target.probe_accuracy@5 > 60%", "target.probe_accuracy@5 > 0.6"),
        ("source.cdnv regression <= 5%", "source.cdnv regression <= 5%"),
        ("off:target.probe_accuracy regression <= 0.02", "target.probe_accuracy regression <= 2%"),
    ],
)
def test_rules_are_read(text, shown):
    rule = parse_rule(text)
    assert rule.text == shown
    assert parse_rule(rule.text) == dataclasses.replace(rule, level="error")
    assert rule.level == (text.split(":")[0].strip() if ":" in text else "error")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("probe_accuracy >= 0.6", "expected a rule such as"),
        ("source.gc", "expected a rule such as"),
        ("source.gc = 3", "expected a rule such as"),
        ("source.cdnv@5 <= 1", "@N_SHOT with probe_accuracy only"),
        ("source.gc >= nan", "expected a rule such as"),
        ("source.cdvn <= 3", "did you mean cdnv"),
        ("source.gc regression >= 2%", "'regression <= SHARE'"),
        ("source.gc regression <= -2%", "'regression <= SHARE'"),
        ("source.poincare_lower_bound regression <= 2%", "metric that has a better side"),
    ],
)
def test_rules_that_cannot_be_read_are_told(text, message):
    with pytest.raises(RequestError, match=message):
        parse_rule(text)


@pytest.mark.parametrize(("text", "share"), [("2%", 0.02), ("0.02", 0.02), (0, 0.0), (" 0 %", 0.0)])
def test_shares_are_read(text, share):
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["-1%", "two", "", "nan"])
def test_shares_that_cannot_be_read_are_told(text):
    with pytest.raises(RequestError, match="--max-regression such as 2%"):
        parse_share(text)


@pytest.mark.parametrize(
    ("rule", "low", "high", "outcome"),
    [
        (">= 0.6", 0.61, 0.7, "passed"),
        (">= 0.6", 0.6, 0.7, "passed"),
        ("> 0.6", 0.6, 0.7, "unsure"),
        (">= 0.6", 0.5, 0.7, "unsure"),
        (">= 0.6", 0.5, 0.6, "unsure"),
        ("> 0.6", 0.5, 0.6, "failed"),
        (">= 0.6", 0.5, 0.59, "failed"),
        ("<= 0.6", 0.5, 0.6, "passed"),
        ("< 0.6", 0.5, 0.6, "unsure"),
        ("<= 0.6", 0.5, 0.61, "unsure"),
        ("<= 0.6", 0.61, 0.62, "failed"),
        ("< 0.6", 0.6, 0.62, "failed"),
        (">= 0.6", None, None, "passed"),
        (">= 0.7", None, None, "failed"),
    ],
)
def test_the_interval_decides(demo, rule, low, high, outcome):
    report = with_value(demo, "source.cdnv", 0.65 if low is None else (low + high) / 2, low, high)
    assert only(gcaudit.gate(report, [f"source.cdnv {rule}"])).outcome == outcome


@pytest.mark.parametrize(
    ("level", "unsure", "outcome", "status"),
    [
        ("error", "pass", "passed", "passed"),
        ("error", "pass", "unsure", "passed"),
        ("error", "warn", "unsure", "warned"),
        ("error", "fail", "unsure", "failed"),
        ("error", "pass", "failed", "failed"),
        ("warn", "fail", "unsure", "warned"),
        ("warn", "pass", "unsure", "passed"),
        ("warn", "pass", "failed", "warned"),
        ("off", "fail", "failed", "off"),
    ],
)
def test_levels_and_doubt(demo, level, unsure, outcome, status):
    interval = {"passed": (0.1, 0.2), "unsure": (0.25, 0.35), "failed": (0.4, 0.5)}[outcome]
    report = with_value(demo, "source.cdnv", sum(interval) / 2, *interval)
    result = gcaudit.gate(report, [f"{level}: source.cdnv <= 0.3"], when_unsure=unsure)
    assert only(result).status == status
    assert result.passed == (status != "failed")


def test_messages_show_enough_digits_to_see_why(demo):
    report = with_value(demo, "target.probe_accuracy", 0.59999997, 0.59999996, 0.59999998)
    verdict = only(gcaudit.gate(report, ["target.probe_accuracy >= 0.6"]))
    assert verdict.outcome == "failed"
    assert "0.59999997 [0.59999996, 0.59999998] violates >= 0.6" in verdict.message


@pytest.mark.parametrize(
    ("metric", "new", "outcome"),
    [
        *(("cdnv", 1.2, "failed"), ("cdnv", 1.0, "unsure"), ("cdnv", 0.8, "passed")),
        *(("ncm_accuracy", 0.8, "failed"), ("ncm_accuracy", 1.0, "unsure"), ("ncm_accuracy", 1.2, "passed")),
    ],
)
def test_regressions_have_the_metrics_own_direction(demo, metric, new, outcome):
    old = with_value(demo, f"source.{metric}", 1.0, 0.95, 1.05)
    report = with_value(demo, f"source.{metric}", new, new - 0.05, new + 0.05)
    assert only(gcaudit.gate(report, [f"source.{metric} regression <= 0%"], old)).outcome == outcome
    assert only(gcaudit.gate(report, [f"source.{metric} regression <= 50%"], old)).outcome == "passed"


def test_unpaired_errors_add_up(demo):
    old = with_value(demo, "source.cdnv", 1.0, 0.9, 1.1)
    report = with_value(demo, "source.cdnv", 1.2, 1.0, 1.4)
    verdict = only(gcaudit.gate(report, ["source.cdnv regression <= 10%"], old))
    half = np.hypot(0.2, 1.1 * 0.1)
    assert verdict.comparison == "unpaired"
    assert f"excess 0.1 [{0.1 - half:.4g}, {0.1 + half:.4g}]" in verdict.message


def test_paired_errors_are_those_of_the_difference(demo):
    rng = np.random.default_rng(0)
    a = rng.normal(size=500)
    a *= 0.05 / np.linalg.norm(a)
    b = rng.normal(size=500)
    b = 0.9 * a + 0.1 * 0.05 * b / np.linalg.norm(b)
    old = with_value(demo, "source.cdnv", 1.0, 0.9, 1.1).with_evidence(ReportEvidence({"source.cdnv": b}))
    report = with_value(demo, "source.cdnv", 1.05, 0.95, 1.15).with_evidence(ReportEvidence({"source.cdnv": a}))
    verdict = only(gcaudit.gate(report, ["source.cdnv regression <= 2%"], old))
    half = 1.959964 * np.linalg.norm(a - 1.02 * b)
    assert verdict.comparison == "paired"
    assert verdict.outcome == "failed"
    assert f"excess 0.03 [{0.03 - half:.4g}, {0.03 + half:.4g}], paired" in verdict.message
    assert only(gcaudit.gate(report.with_evidence(None), ["source.cdnv regression <= 2%"], old)).outcome == "unsure"


def test_other_episodes_are_not_paired(demo):
    rule = ["target.probe_accuracy regression <= 0%"]
    assert only(gcaudit.gate(demo, rule, demo)).comparison == "paired"
    assert only(gcaudit.gate(demo, rule, gcaudit.score("demo", "demo", "demo", seed=1))).comparison == "unpaired"
    assert only(gcaudit.gate(demo, rule, gcaudit.score("demo", "demo", "demo", episodes=999))).comparison == "unpaired"


def test_a_report_against_itself_passes_without_doubt(demo):
    result = gcaudit.gate(demo, [], demo, max_regression=0, when_unsure="fail")
    assert [verdict.outcome for verdict in result.verdicts] == ["passed", "passed"]
    assert [verdict.metric for verdict in result.verdicts] == ["source.geometric_collapse", "target.probe_accuracy"]


def test_max_regression_leaves_metrics_with_their_own_rule_alone(demo):
    result = gcaudit.gate(demo, ["target.probe_accuracy regression <= 9%"], demo, max_regression="1%")
    assert [verdict.rule for verdict in result.verdicts] == [
        "target.probe_accuracy regression <= 9%",
        "source.geometric_collapse regression <= 1%",
    ]


@pytest.mark.parametrize(
    ("path", "values", "message"),
    [
        ("source", {"fingerprint": "x"}, "source images: 500 of demo against 500 others"),
        (
            "source",
            {"class_names": ["a", "b", "c", "d", "e"]},
            "source classes: T-shirt/top, Trouser, Coat and 2 more against a, b, c",
        ),
        ("model.preprocessing", {"input_size": [1, 32, 32]}, "input_size: 1, 28, 28 against 1, 32, 32"),
        ("model.preprocessing", {"mean": [0.5]}, r"mean: 0\.286 against 0\.5"),
        ("model.preprocessing", {"crop_pct": 0.9}, "crop_pct"),
        ("model.preprocessing", {"interpolation": "bicubic"}, "interpolation"),
        ("model.preprocessing", {"input_space": "normalized"}, "input_space: pixel against normalized"),
        ("model", {"embedding": "output of layer3"}, "embedding: forward_head"),
        ("target.metrics.probe_accuracy", {"n_shot": 1}, "n_shot of target.probe_accuracy: 5 against 1"),
        ("target.metrics.probe_accuracy", {"ridge": 2.0}, "ridge"),
        ("target.metrics.probe_accuracy", {"n_way": 4}, "n_way"),
    ],
)
def test_what_may_not_be_compared_is_refused(demo, path, values, message):
    baseline = changed(demo, path, **values)
    with pytest.raises(RequestError, match=f"may be compared, found other .*{message}.*--allow-mismatch"):
        gcaudit.gate(demo, [], baseline, max_regression="5%")
    result = gcaudit.gate(demo, [], baseline, max_regression="5%", allow_mismatch=True)
    assert any(message.split(":")[0].split(" of ")[0] in line for line in result.warnings)


def test_raw_gc_is_compared_within_one_architecture_only(demo):
    other = changed(demo, "model", arch="timm:resnet18")
    with pytest.raises(RequestError, match=r"architecture, for source\.gc"):
        gcaudit.gate(demo, ["source.gc regression <= 5%"], other)
    assert gcaudit.gate(demo, ["source.cdnv regression <= 5%"], other).passed


def test_differences_do_not_matter_to_thresholds(demo):
    result = gcaudit.gate(demo, ["source.cdnv <= 1"], changed(demo, "source", fingerprint="x"))
    assert result.passed
    assert result.warnings == ()


def test_what_is_null_or_missing_fails_with_its_reason(demo):
    null = changed(demo, "source.metrics.cdnv", value=None, stderr=None, ci95=None, reason="only one class")
    alone = gcaudit.score("demo", "demo", metrics=("cdnv",))
    for report, rule, baseline, message in (
        (null, "source.cdnv <= 9", None, "only one class"),
        (null, "source.cdnv regression <= 9%", demo, "only one class"),
        (demo, "source.cdnv regression <= 9%", null, "in the baseline, only one class"),
        (alone, "source.gc <= 9", None, "the report has no source.gc"),
        (alone, "target.cdnv <= 9", None, "the report has no target; score with --target"),
        (demo, "target.probe_accuracy@1 >= 0", None, "no 1-shot probe_accuracy, only 5"),
    ):
        result = gcaudit.gate(report, [rule], baseline)
        assert only(result).outcome == "missing"
        assert message in only(result).message
        assert not result.passed
        assert gcaudit.gate(report, [f"warn: {rule}"], baseline).passed


def test_a_headline_that_only_the_baseline_has_fails(demo):
    alone = gcaudit.score("demo", "demo", seed=0)
    result = gcaudit.gate(alone, [], demo, max_regression="2%")
    assert [verdict.outcome for verdict in result.verdicts] == ["passed", "missing"]
    assert "the report has no target" in result.verdicts[1].message
    assert not result.passed


def test_points_of_the_curve_can_be_judged():
    report = gcaudit.score("demo", "demo", "demo", n_shot=(1, 5), episodes=100)
    curve = report.target.metrics["probe_accuracy"].curve
    verdict = only(gcaudit.gate(report, ["target.probe_accuracy@5 regression <= 0%"], report))
    assert verdict.value == curve[1].value
    assert verdict.comparison == "paired"


def test_gates_without_rules_or_baseline_are_told(demo):
    with pytest.raises(RequestError, match="at least one rule"):
        gcaudit.gate(demo)
    with pytest.raises(RequestError, match=r"--baseline OLD\.json for 'source\.gc regression <= 1%'"):
        gcaudit.gate(demo, ["source.gc regression <= 1%"])
    with pytest.raises(RequestError, match="--when-unsure of pass, warn, fail"):
        gcaudit.gate(demo, ["source.gc <= 1"], when_unsure="maybe")


# --- simulation on stored evidence -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Evidence of the demo and of a worse demo, many episodes on the same seed, and all images."""
    folder = tmp_path_factory.mktemp("stored")
    make_worse(folder / "worse", 1)
    options = {"source": "demo", "target": "demo", "episodes": 4000}
    return gcaudit.score("demo", **options), gcaudit.score(str(folder / "worse"), **options)


def make_worse(folder, strength):
    """The demo's checkpoint with one layer's weights perturbed."""
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    from gcaudit.bundled.files import bundled_path

    shutil.copytree(bundled_path("demo-model"), folder)
    weights = load_file(folder / "model.safetensors")
    name = "layer1.0.conv1.weight"
    noise = torch.randn(weights[name].shape, generator=torch.Generator().manual_seed(0))
    weights[name] = weights[name] + strength * noise * weights[name].std()
    save_file(weights, folder / "model.safetensors")


def episode_report(template, accuracies, seed):
    """The report that these episodes would have given."""
    size = len(accuracies)
    value = float(accuracies.mean())
    influence = (accuracies - value) / (size * (size - 1)) ** 0.5
    half = 1.959963984540054 * float(np.linalg.norm(influence))
    probe = template.target.metrics["probe_accuracy"].model_copy(
        update={"value": value, "stderr": half / 1.96, "ci95": (value - half, value + half), "n": size, "episodes": size}
    )
    target = template.target.model_copy(update={"metrics": {"probe_accuracy": probe}})
    report = template.model_copy(update={"target": target, "settings": {**template.settings, "seed": seed}})
    return report.with_evidence(ReportEvidence({"target.probe_accuracy": influence}))


def collapse_report(template, rows, influence, seed):
    """The report that these images would have given, to first order."""
    old = template.source.metrics["geometric_collapse"]
    value = old.value + float(influence[rows].sum())
    half = 1.959963984540054 * float(np.linalg.norm(influence[rows]))
    metric = old.model_copy(update={"value": value, "stderr": half / 1.96, "ci95": (value - half, value + half)})
    return template.source.model_copy(
        update={"metrics": {"geometric_collapse": metric}, "fingerprint": template.source.fingerprint}
    )


def test_false_failures_are_rare(stored):
    """A checkpoint against itself, both headline metrics, other images' vectors and episodes each time."""
    report, _ = stored
    accuracies = report.evidence.draws["target.episode_accuracies@5"]
    influence = report.evidence.influences["source.geometric_collapse"]
    rng = np.random.default_rng(0)

    def draw(seed):
        found = episode_report(report, rng.choice(accuracies, 1000), seed)
        rows = rng.integers(0, len(influence), len(influence))
        return found.model_copy(update={"source": collapse_report(report, rows, influence, seed)})

    failures = sum(
        not gcaudit.gate(draw(0).with_evidence(None), [], draw(1).with_evidence(None), max_regression=0).passed for _ in range(1000)
    )
    print(f"false failures: {failures} of 1000")
    assert 10 <= failures <= 50


def test_false_failures_are_rare_when_paired(stored):
    """Two checkpoints of equal accuracy on the same episodes."""
    report, worse = stored
    a, b = (r.evidence.draws["target.episode_accuracies@5"] for r in (report, worse))
    b = b + a.mean() - b.mean()
    rng = np.random.default_rng(1)
    rule = ["target.probe_accuracy regression <= 0%"]
    failures = 0
    for _ in range(1000):
        rows = rng.integers(0, len(a), 1000)
        verdict = only(gcaudit.gate(episode_report(report, b[rows], 0), rule, episode_report(report, a[rows], 0)))
        assert verdict.comparison == "paired"
        failures += verdict.status == "failed"
    print(f"false failures, paired: {failures} of 1000")
    assert 10 <= failures <= 50


def test_a_change_of_four_standard_errors_is_caught(stored):
    report, _ = stored
    accuracies = report.evidence.draws["target.episode_accuracies@5"]
    change = 4 * np.sqrt(2 / 1000) * accuracies.std()
    rng = np.random.default_rng(2)
    rule = ["target.probe_accuracy regression <= 0%"]
    caught = 0
    for _ in range(1000):
        old = episode_report(report, rng.choice(accuracies, 1000), 1)
        new = episode_report(report, rng.choice(accuracies, 1000) - change, 0)
        caught += not gcaudit.gate(new, rule, old).passed
    print(f"changes of 4 standard errors caught: {caught} of 1000")
    assert caught >= 800


def power(new, old, size, paired, repeats, seed):
    """Share of failures at 0% on episodes drawn from stored ones."""
    rng = np.random.default_rng(seed)
    rule = ["target.probe_accuracy regression <= 0%"]
    caught = 0
    for _ in range(repeats):
        rows = rng.integers(0, len(new), size)
        others = rows if paired else rng.integers(0, len(new), size)
        a, b = episode_report(_TEMPLATE[0], new[rows], 0), episode_report(_TEMPLATE[0], old[others], 0 if paired else 1)
        caught += not gcaudit.gate(a, rule, b).passed
    return caught / repeats


_TEMPLATE = []


def test_pairing_needs_a_third_of_the_episodes(stored):
    report, worse = stored
    _TEMPLATE[:] = [report]
    old, new = (r.evidence.draws["target.episode_accuracies@5"] for r in (report, worse))
    # a small true change, so that the question needs hundreds of episodes; the episodes' noise is the checkpoints' own
    new = new - new.mean() + old.mean() - 0.01
    variance = new.var() + old.var(), (new - old).var()
    unpaired_size = int(np.ceil((1.96 + 0.84) ** 2 * variance[0] / 0.01**2))
    paired_size = unpaired_size // 3
    unpaired = power(new, old, unpaired_size, paired=False, repeats=1000, seed=3)
    paired = power(new, old, paired_size, paired=True, repeats=1000, seed=4)
    print(
        f"power {unpaired:.3f} with {unpaired_size} episodes unpaired, {paired:.3f} with {paired_size} paired; "
        f"variance ratio {variance[0] / variance[1]:.2f}"
    )
    assert 0.75 < unpaired < 0.85
    assert paired >= unpaired


# --- files -----------------------------------------------------------------------------------------------------------------


def test_evidence_is_kept_and_belongs_to_its_report(demo, tmp_path):
    path = tmp_path / "r.json"
    path.write_text(demo.to_json())
    save_evidence(evidence_path(path), demo.evidence, demo.to_json())
    found = Report.read(path)
    assert found == demo
    assert set(found.evidence.influences) == set(demo.evidence.influences)
    for key, values in demo.evidence.influences.items():
        assert np.array_equal(found.evidence.influences[key], values)
        role, metric = key.split("@")[0].split(".")
        assert np.linalg.norm(values) == pytest.approx(found.blocks()[role].metrics[metric].stderr, rel=1e-12)
    assert found.evidence.draws["source.energies"].mean() == pytest.approx(demo.source.metrics["gc"].value, rel=1e-12)
    path.write_text(changed(demo, "source", spec="other").to_json())
    with pytest.raises(RequestError, match="found another's"):
        Report.read(path)
    evidence_path(path).write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(RequestError, match="expected saved evidence"):
        Report.read(path)
    evidence_path(path).unlink()
    assert Report.read(path).evidence is None
    assert load_evidence(tmp_path / "none.npz", "") is None


def test_damaged_evidence_is_told_whatever_the_damage(demo, tmp_path):
    path = tmp_path / "r.evidence.npz"
    save_evidence(path, demo.evidence, demo.to_json())
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(whole), 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            load_evidence(path, demo.to_json())
        except RequestError as error:
            refused += "\n" not in str(error)
    assert refused > 30
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "x.npy").replace(path)
    with pytest.raises(RequestError, match="expected saved evidence"):
        load_evidence(path, "")


def test_evidence_of_an_older_report_is_removed(run, tmp_path):
    options = ("score", "demo", "-s", "demo", "-q", "--metrics", "cdnv", "-o", tmp_path / "r.json")
    assert run(*options, "--save-evidence")[0] == 0
    assert (tmp_path / "r.evidence.npz").is_file()
    assert run(*options, "--seed", 1)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    assert run("gate", tmp_path / "r.json", "-r", "source.cdnv <= 1")[0] == 0


def test_pickles_in_evidence_are_not_read(tmp_path):
    class Touch:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    np.savez(tmp_path / "r.evidence.npz", report=np.array([Touch()], dtype=object))
    with pytest.raises(RequestError, match="expected saved evidence"):
        load_evidence(tmp_path / "r.evidence.npz", "")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "No such file"), ("{", "found in the file"), ('{"schema": "x"}', "schema gcaudit.report/1"), ("\xff", "not text")],
)
def test_files_that_are_no_reports_are_told(tmp_path, text, message):
    path = tmp_path / "r.json"
    if text is not None:
        path.write_bytes(text.encode("latin1"))
    with pytest.raises(RequestError, match=message):
        Report.read(path)


YAML = """
max-regression: 2%
when-unsure: fail
rules:
  - target.probe_accuracy >= 0.6
  - {rule: source.gc <= 100, level: warn}
  - {rule: source.cdnv <= 1, level: off}
"""
TOML = """
[tool.gcaudit.gate]
max_regression = "2%"
when-unsure = "fail"
rules = ["target.probe_accuracy >= 0.6", {rule = "source.gc <= 100", level = "warn"}, {rule = "source.cdnv <= 1", level = "off"}]
"""


@pytest.mark.parametrize(("name", "text"), [("g.yaml", YAML), ("pyproject.toml", TOML)])
def test_rules_are_read_from_files(tmp_path, monkeypatch, name, text):
    (tmp_path / name).write_text(text)
    found = read_rules(tmp_path / name)
    assert [rule.level for rule in found.rules] == ["error", "warn", "off"]
    assert (found.max_regression, found.when_unsure) == (0.02, "fail")


def test_a_bare_list_is_a_file_of_rules(tmp_path):
    (tmp_path / "g.yml").write_text("- source.gc <= 3\n- warn: source.gc <= 4\n- off: source.cdnv <= 1\n")
    rules = read_rules(tmp_path / "g.yml").rules
    assert [(rule.limit, rule.level) for rule in rules] == [(3, "error"), (4, "warn"), (1, "off")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("g.yaml", "a: [", "expected YAML"),
        ("g.yaml", "7", "expected the keys rules"),
        ("g.yaml", "rulez: []", "found 'rulez'"),
        ("g.yaml", "rules: 3", "'rules' to be a list"),
        ("g.yaml", "rules: [3]", "expected a rule as text"),
        ("g.yaml", "rules: [{rule: source.gc <= 1, level: loud}]", "level of error, warn, off, found 'loud'"),
        ("g.yaml", "when-unsure: perhaps", "when-unsure of pass"),
        ("g.yaml", "max-regression: lots", "--max-regression such as"),
        ("p.toml", "x = ", "expected TOML"),
        ("p.toml", "x = 1", r"expected a table \[tool.gcaudit.gate\]"),
        ("g.yaml", "!!python/object/apply:os.system ['true']", "expected YAML"),
    ],
)
def test_files_of_rules_that_are_wrong_are_told(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(RequestError, match=message):
        read_rules(tmp_path / name)


def test_missing_files_of_rules_are_told(tmp_path):
    with pytest.raises(RequestError, match=r"expected rules at .*No such file"):
        read_rules(tmp_path / "g.yaml")


def test_options_win_over_files_and_the_project_comes_last(tmp_path, monkeypatch, demo):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.json").write_text(demo.to_json())
    assert project_rules(tmp_path).rules == ()
    with pytest.raises(RequestError, match="expected rules, found none"):
        gate_request([])
    (tmp_path / "pyproject.toml").write_text(TOML)
    with pytest.raises(RequestError, match=r"expected --baseline OLD\.json to judge regressions"):
        gate_request([])
    found = gate_request([], baseline=tmp_path / "base.json")
    assert (len(found.rules), found.max_regression, found.when_unsure) == (3, 0.02, "fail")
    found = gate_request(["source.gc <= 1"], baseline=tmp_path / "base.json", max_regression="7%", when_unsure="warn")
    assert (len(found.rules), found.max_regression, found.when_unsure) == (1, 0.07, "warn")
    (tmp_path / "g.yaml").write_text(YAML)
    found = gate_request(["g.yaml", "source.cdnv <= 4"], baseline=tmp_path / "base.json", max_regression="7%")
    assert (len(found.rules), found.max_regression, found.when_unsure) == (4, 0.07, "fail")
    with pytest.raises(RequestError, match="--when-unsure of"):
        gate_request(["source.gc <= 1"], when_unsure="perhaps")


# --- outputs ---------------------------------------------------------------------------------------------------------------


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
    assert (code, err) == (0, ""), out
    assert "gate passed" in out
    code, out, err = run("gate", tmp_path / "worse.json", *judged, "--junit", tmp_path / "gate.xml")
    assert code == 1
    assert "FAIL  target.probe_accuracy" in out
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
    assert run("gate", tmp_path / "r.json", "-r", "source.cdnv <= 1", "-f", name, "-o", tmp_path / "out")[1] == ""
    assert (tmp_path / "out").read_text(encoding="utf-8") == out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gate", "none.json", "-r", "source.gc <= 1"], "expected a report at none.json"),
        (["gate", "r.json", "-r", "gc"], "expected a rule such as"),
        (["gate", "r.json"], "expected rules, found none"),
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
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_exit_codes_of_the_process(tmp_path, demo):
    (tmp_path / "r.json").write_text(demo.to_json())
    for rule, code in (("source.cdnv <= 1", 0), ("source.cdnv <= 0.001", 1), ("source.cdnv", 2)):
        command = [*PROGRAM, "gate", str(tmp_path / "r.json"), "--rule", rule]
        assert finished(command).returncode == code


# --- examples/ci -----------------------------------------------------------------------------------------------------------


def shell_in(folder, script):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return finished(["bash", "-euo", "pipefail", "-c", script], cwd=folder, env={**os.environ, "PATH": path})


@pytest.mark.parametrize("name", ["github-workflow.yml", "gitlab-job.yml"])
def test_the_ci_examples_work_as_they_are(repository, tmp_path, name):
    content = yaml.safe_load((repository / "examples" / "ci" / name).read_text())
    if "jobs" in content:
        lines = [step["run"] for step in content["jobs"]["gate"]["steps"] if "run" in step]
    else:
        lines = content["checkpoint"]["script"]
    assert lines[0] == "pip install ."
    (tmp_path / "examples").symlink_to(repository / "examples")
    found = shell_in(tmp_path, "\n".join(lines[1:]))
    assert found.returncode == 0, found.stderr
    assert "gate passed" in found.stdout
    assert (tmp_path / "gate.xml").is_file()
    assert (tmp_path / "report.evidence.npz").is_file()


def test_the_script_makes_a_baseline_and_then_judges(repository, tmp_path):
    script = repository / "examples" / "ci" / "check_checkpoint.sh"
    make_worse(tmp_path / "worse", 3)
    assert shell_in(tmp_path, str(script)).returncode == 2
    assert shell_in(tmp_path, f"{script} demo demo demo base.json -q").returncode == 0
    assert shell_in(tmp_path, f"{script} demo demo demo base.json -q").returncode == 0
    found = shell_in(tmp_path, f"{script} ./worse demo demo base.json -q")
    assert found.returncode == 1
    assert "gate FAILED" in found.stderr

import numpy as np
import pytest
from reports import changed, only, with_value

import gcaudit
from gcaudit.errors import RequestError
from gcaudit.gate.rules import parse_rule
from gcaudit.report.evidence import ReportEvidence
from gcaudit.report.warnings import warn


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
        (">= 0.6", None, None, "missing"),
        (">= 0.7", None, None, "missing"),
    ],
)
def test_the_interval_decides(demo, rule, low, high, outcome):
    report = with_value(demo, "source.cdnv", 0.65 if low is None else (low + high) / 2, low, high)
    assert only(gcaudit.gate(report, [f"source.cdnv {rule}"])).outcome == outcome


@pytest.mark.parametrize(
    ("level", "unsure", "outcome", "status", "means"),
    [
        ("error", "pass", "passed", "passed", ""),
        ("error", "pass", "unsure", "undecided", ""),
        ("error", "warn", "unsure", "undecided", "warns"),
        ("error", "fail", "unsure", "undecided", "fails"),
        ("error", "pass", "failed", "failed", "fails"),
        ("warn", "fail", "unsure", "undecided", "warns"),
        ("warn", "pass", "unsure", "undecided", ""),
        ("warn", "pass", "failed", "warned", "warns"),
        ("off", "fail", "failed", "off", ""),
    ],
)
def test_levels_and_doubt(demo, level, unsure, outcome, status, means):
    interval = {"passed": (0.1, 0.2), "unsure": (0.25, 0.35), "failed": (0.4, 0.5)}[outcome]
    report = with_value(demo, "source.cdnv", sum(interval) / 2, *interval)
    result = gcaudit.gate(report, [f"{level}: source.cdnv <= 0.3"], when_unsure=unsure)
    verdict = only(result)
    assert verdict.status == status
    assert (verdict.fails, verdict.warns) == (means == "fails", means == "warns")
    assert result.passed == (means != "fails")
    assert (verdict.unit == "images") == (outcome == "unsure" and level != "off")


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
    assert only(gcaudit.gate(demo, [f"{rule[0]} given the pool"], demo)).comparison == "paired"
    for options in ({"seed": 1}, {"episodes": 999}):
        other = gcaudit.score("demo", "demo", "demo", **options)
        assert only(gcaudit.gate(demo, rule, other)).comparison == "paired"  # the images are the same
        assert only(gcaudit.gate(demo, [f"{rule[0]} given the pool"], other)).comparison == "unpaired"


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
    other = changed(demo, "source", fingerprint="x")
    result = gcaudit.gate(demo, ["source.cdnv <= 1", "target.probe_accuracy regression <= 2%"], other)
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
        (demo, "target.probe_accuracy@1 >= 0.1", None, "no 1-shot probe_accuracy, only 5"),
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


def test_a_later_level_of_the_same_rule_stands_in_for_an_earlier_one(demo):
    result = gcaudit.gate(demo, ["source.cdnv <= 0.001", "off: source.cdnv <= 0.001"])
    assert [verdict.status for verdict in result.verdicts] == ["off"]
    assert result.passed
    assert "source.cdnv <= 0.001: level off stands in for level error" in result.warnings
    kinds = gcaudit.gate(demo, ["off: warning: shared", "warning: shared"])
    assert [verdict.level for verdict in kinds.verdicts] == ["error"]


def test_a_baseline_that_is_the_report_itself_is_told(demo):
    assert any("the baseline is the report itself" in line for line in gcaudit.gate(demo, [], demo).warnings)
    other = changed(demo, "source.metrics.cdnv", value=0.5)
    assert not any("itself" in line for line in gcaudit.gate(other, [], demo).warnings)


def test_points_of_the_curve_can_be_judged():
    report = gcaudit.score("demo", "demo", "demo", n_shot=(1, 5), episodes=100)
    bare = gcaudit.gate(report, ["target.probe_accuracy >= 0.1"])
    assert only(bare).message.startswith("target.probe_accuracy (1-shot) = ")
    assert bare.warnings == (
        "target.probe_accuracy (1-shot) was judged of the n-shots 1, 5; say which, such as target.probe_accuracy@5",
    )
    assert gcaudit.gate(report, ["target.probe_accuracy@1 >= 0.1"]).warnings == ()
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


def test_warnings_of_the_report_can_fail_a_gate(demo):
    assert gcaudit.gate(demo, no_warnings=True).passed
    doubtful = demo.model_copy(update={"warnings": (warn("shared", "source and target share 3 images"),)})
    assert gcaudit.gate(doubtful, ["source.cdnv <= 1"]).passed
    found = gcaudit.gate(doubtful, ["source.cdnv <= 1"], no_warnings=True)
    assert [(verdict.metric, verdict.status) for verdict in found.verdicts] == [
        ("source.cdnv", "passed"),
        ("warning.shared", "failed"),
    ]
    assert not found.passed
    assert found.verdicts[1].message == "warning of shared: source and target share 3 images"


@pytest.mark.parametrize(
    ("rules", "statuses", "passed"),
    [
        (["warning: shared"], ["failed"], False),
        (["warning: SHARED"], ["failed"], False),
        (["warning: split"], ["passed"], True),
        (["warn: warning: shared"], ["warned"], True),
        (["warning: any"], ["failed", "failed"], False),
        (["warn: warning: shared", "warning: any"], ["warned", "failed"], False),
        (["warn: warning: shared", "off: warning: column", "warning: any"], ["warned", "off", "passed"], True),
    ],
)
def test_a_rule_can_name_a_warning(demo, rules, statuses, passed):
    doubtful = demo.model_copy(update={"warnings": (warn("shared", "they share 3 images"), warn("column", "of two"))})
    found = gcaudit.gate(doubtful, rules)
    assert [verdict.status for verdict in found.verdicts] == statuses
    assert found.passed == passed


def test_what_kind_the_warnings_of_old_reports_are_is_not_known(demo):
    old = demo.model_copy(update={"warnings": (warn("other", "shared 3 images"),)})
    verdict = only(gcaudit.gate(old, ["warning: shared"]))
    assert (verdict.outcome, verdict.fails) == ("missing", True)
    assert "knew no kinds of warnings; score again" in verdict.message
    assert only(gcaudit.gate(old, ["warning: any"])).status == "failed"


def test_thresholds_that_forbid_what_is_good_are_told(demo):
    found = gcaudit.gate(demo, ["source.gc >= 1", "target.probe_accuracy <= 0.9", "source.poincare_lower_bound >= 0"])
    assert found.warnings == (
        "source.gc >= 1.0 forbids what is good: lower gc is better; did you mean <=?",
        "target.probe_accuracy <= 0.9 forbids what is good: higher probe_accuracy is better; did you mean >=?",
    )
    assert gcaudit.gate(demo, ["source.gc <= 1e9", "off: source.gc >= 1", "target.probe_accuracy >= 0.1"]).warnings == ()


def test_a_baseline_alone_judges_the_headlines_and_says_so(demo):
    found = gcaudit.gate(demo, [], demo)
    assert [verdict.rule for verdict in found.verdicts] == [
        "source.geometric_collapse regression <= 2%",
        "target.probe_accuracy regression <= 2%",
    ]
    assert {verdict.origin for verdict in found.verdicts} == {"default with a baseline, --max-regression 2%"}
    assert found.baseline == "demo"
    beside = gcaudit.gate(demo, ["source.cdnv <= 1"], demo)
    assert len(beside.verdicts) == 3
    own = gcaudit.gate(demo, ["source.cdnv regression <= 1%"], demo)
    assert [verdict.rule for verdict in own.verdicts] == ["source.cdnv regression <= 1%"]


def test_a_baseline_that_nothing_uses_is_told(demo):
    found = gcaudit.gate(demo, ["source.cdnv <= 1", "off: source.cdnv regression <= 1%"], demo)
    assert found.baseline is None
    assert found.warnings == (
        "the baseline demo was not used, since no rule is a regression; add --max-regression 2% or leave --baseline out",
    )
    few = gcaudit.score("demo", "demo", metrics=("cdnv",))
    assert "was not used" in gcaudit.gate(few, ["source.cdnv <= 1"], few).warnings[0]


def test_a_gate_that_judges_nothing_says_so(demo):
    found = gcaudit.gate(demo, ["off: source.cdnv <= 1", "off: warning: shared"])
    assert found.passed
    assert found.warnings == ("no rule was judged, since all are off",)


def test_equal_rules_from_two_places_are_one(demo):
    rules = [parse_rule("source.cdnv <= 1", origin="a"), parse_rule("source.cdnv <= 1", origin="b"), "source.cdnv <= 2"]
    assert [(verdict.rule, verdict.origin) for verdict in gcaudit.gate(demo, rules).verdicts] == [
        ("source.cdnv <= 1.0", "a"),
        ("source.cdnv <= 2.0", ""),
    ]


def test_undecided_rules_say_how_many_images_decide_them(demo):
    report = with_value(demo, "source.cdnv", 1.0, 0.9, 1.1, n=1000)
    verdict = only(gcaudit.gate(report, ["source.cdnv <= 1.01"]))
    assert (verdict.needed, verdict.unit) == (100_000, "images")  # ten times closer takes a hundred times as many
    assert verdict.message.endswith("; about 100,000 images would decide it")
    never = only(gcaudit.gate(report, ["source.cdnv <= 1"]))
    assert never.needed is None
    assert never.message.endswith("; no number of images would decide it")
    decided = only(gcaudit.gate(report, ["source.cdnv <= 1.2"]))
    assert (decided.needed, decided.unit) == (None, None)


@pytest.mark.parametrize(("limit", "needed"), [(1.16, 360), (0.98, 2500)])
def test_the_interval_as_it_is_says_how_many_images_are_needed(demo, limit, needed):
    """It may be lopsided, and wider than 1.96 standard errors where there are few images."""
    report = with_value(demo, "source.cdnv", 1.0, 0.9, 1.3, n=100)
    verdict = only(gcaudit.gate(report, [f"source.cdnv <= {limit}"]))
    assert verdict.needed == needed


def test_what_episodes_leave_undecided_more_images_do_not_decide(demo):
    pools = {"n": 100, "pool_stderr": 0.01, "pool_ci95": [0.59, 0.63]}
    report = with_value(demo, "target.probe_accuracy", 0.61, 0.56, 0.66, **pools)
    images = only(gcaudit.gate(report, ["target.probe_accuracy >= 0.58"]))
    stderr = 0.05 / 1.959964
    expected = 100 * (stderr**2 - 0.01**2) / ((0.03 / 1.959964) ** 2 - 0.01**2)
    assert images.needed == 10 * np.ceil(expected / 10)
    assert only(gcaudit.gate(report, ["target.probe_accuracy >= 0.6"])).message.endswith("; raise --episodes")
    pool = only(gcaudit.gate(report, ["target.probe_accuracy >= 0.6 given the pool"]))
    assert (pool.needed, pool.unit) == (4000, "episodes")  # the interval is twice as long as the way to the limit


def test_a_regression_beside_others_takes_more_images_to_fail_than_to_pass(demo):
    old = with_value(demo, "source.cdnv", 1.0, 0.9, 1.1, n=500)
    worse = with_value(demo, "source.cdnv", 1.05, 0.95, 1.15, n=500)
    alone = only(gcaudit.gate(worse, ["source.cdnv regression <= 0%"], old))
    errors = 2 * (0.1 / 1.959964) ** 2
    assert alone.needed == pytest.approx(500 * errors / (0.05 / 1.959964) ** 2, rel=0.05)
    beside = gcaudit.gate(worse, ["source.cdnv regression <= 0%", "target.probe_accuracy regression <= 50%"], old)
    assert beside.verdicts[0].needed == pytest.approx(alone.needed * (2.241403 / 1.959964) ** 2, rel=0.05)


def test_pictures_that_are_prepared_in_another_way_are_not_compared(demo):
    cropped = changed(demo, "model.preprocessing", crop_pct=0.9)
    left = changed(cropped, "source", left_alone=7)
    with pytest.raises(
        RequestError, match="other preprocessing of source pictures that have the input's size: left alone against resized"
    ):
        gcaudit.gate(left, ["source.cdnv regression <= 5%"], cropped)
    assert gcaudit.gate(changed(demo, "source", left_alone=7), ["source.cdnv regression <= 5%"], demo).passed  # a crop of 1 is none
    old = demo.model_copy(update={"schema_": "gcaudit.report/1"})
    turned = demo.model_copy(update={"warnings": (warn("orientation", "3 pictures were turned"),)})
    with pytest.raises(
        RequestError, match=r"found other conversion of pictures than gcaudit.report/1 in the baseline \(3 pictures"
    ):
        gcaudit.gate(turned, ["source.cdnv regression <= 5%"], old)
    assert gcaudit.gate(demo, ["source.cdnv regression <= 5%"], old).passed

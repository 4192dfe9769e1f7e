import json

import pytest
from pydantic import ValidationError
from reports import VALUE, make

from gcaudit.report.schema import MetricValue, Report
from gcaudit.report.warnings import warn


def test_json_keeps_every_bit():
    report = make(target={"cdnv": {**VALUE, "value": 0.1 + 0.2}})
    again = Report.from_json(report.to_json())
    assert again == report
    assert json.loads(report.to_json())["target"]["metrics"]["cdnv"]["value"] == 0.30000000000000004


def test_what_could_not_be_measured_is_null_with_a_reason():
    report = make({"cdnv": {"value": None, "stderr": None, "ci95": None, "n": 3, "reason": "one class"}})
    found = json.loads(report.to_json())["source"]["metrics"]["cdnv"]
    assert found == {"value": None, "stderr": None, "ci95": None, "n": 3, "reason": "one class"}


def test_keys_that_do_not_apply_are_left_out():
    assert set(json.loads(make().to_json())["source"]["metrics"]["cdnv"]) == {"value", "stderr", "ci95", "n"}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_nan_and_infinity_never_get_into_a_report(number):
    with pytest.raises(ValidationError, match="finite number"):
        MetricValue(value=number, stderr=None, ci95=None, n=1)


def test_unknown_keys_and_other_versions_are_refused():
    with pytest.raises(ValidationError, match=r"gcaudit\.report/1"):
        make(schema="gcaudit.report/4")
    with pytest.raises(ValidationError, match="Extra inputs"):
        make(extra=1)


def test_reports_of_the_version_before_are_read():
    old = json.loads(make(warnings=()).to_json())
    old |= {"schema": "gcaudit.report/1", "warnings": ["preprocessing was assumed: input 3x224x224"]}
    old["model"]["preprocessing"]["assumed"] = True
    del old["source"]["left_alone"], old["source"]["columns"]
    found = Report.from_json(json.dumps(old))
    assert [(warning.kind, warning.message) for warning in found.warnings] == [
        ("other", "preprocessing was assumed: input 3x224x224")
    ]
    assert found.model.preprocessing.assumed == ("input_size", "mean", "std")
    assert found.source.left_alone == 0
    assert json.loads(found.to_json())["schema"] == "gcaudit.report/1"


def test_a_warning_is_of_a_kind_that_exists():
    assert warn("shared", "{n} of them ({names})", list("abcde")).message == "5 of them (a, b, c and 2 more)"
    with pytest.raises(KeyError, match="nothing"):
        warn("nothing", "text")

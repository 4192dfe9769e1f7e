import json

import pytest
from pydantic import ValidationError
from reports import VALUE, make

from gcaudit.report.schema import MetricValue, Report, json_schema
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


def check(schema, value, root):
    """Enough of JSON schema for the parts that pydantic writes."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    if "anyOf" in schema:
        return any(check(option, value, root) for option in schema["anyOf"])
    if "const" in schema:
        return value == schema["const"]
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    if "enum" in schema:
        return value in schema["enum"]
    if not isinstance(value, kinds[schema["type"]]):
        return False
    if schema["type"] == "object":
        known = schema.get("properties", {})
        extra = schema.get("additionalProperties", True)
        return (
            set(schema.get("required", ())) <= set(value)
            and (extra is not False or set(value) <= set(known))
            and all(check(known[key], item, root) for key, item in value.items() if key in known)
        )
    if schema["type"] == "array" and isinstance(schema.get("items"), dict):
        return all(check(schema["items"], item, root) for item in value)
    return True


def test_reports_follow_the_exported_schema():
    schema = json_schema()
    assert "schema" in schema["properties"]
    content = json.loads(make(target={"cdnv": VALUE}).to_json())
    assert check(schema, content, schema)
    for broken in ({**content, "source": None}, {**content, "schema": "x"}, {**content, "new": 1}, {**content, "warnings": [1]}):
        assert not check(schema, broken, schema)


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

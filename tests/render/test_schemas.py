import json

import pytest
import yaml
from jsonschema import Draft202012Validator
from reports import VALUE, make

import gcaudit
from gcaudit.render.paper import Paper
from gcaudit.render.schemas import SCHEMAS, document_schema, render_schema, schema_json
from gcaudit.zoo.zoo import read_zoo


@pytest.fixture(scope="module", params=SCHEMAS)
def name(request):
    return request.param


def valid(name, content):
    return not list(Draft202012Validator(document_schema(name)).iter_errors(content))


def test_each_schema_is_one_and_its_example_follows_it(name):
    schema = json.loads(schema_json(name))
    Draft202012Validator.check_schema(schema)
    (example,) = schema["examples"]
    assert valid(name, example)
    assert not valid(name, {**example, "something": 1})


def test_people_read_what_each_key_means(name):
    text = render_schema(name, Paper(100))
    schema = document_schema(name)
    assert all(f"\n{key} " in text for key in schema["properties"])
    assert json.loads(text[text.index("\nexample\n") + 9 :]) == schema["examples"][0]
    table = text[: text.index("\nexample\n")]
    assert all(len(line) <= 100 for line in table.splitlines())


def test_attributes_of_docstrings_are_the_words_of_the_schema():
    told = document_schema("gate")["$defs"]["Verdict"]
    assert told["description"] == "What became of a rule."
    assert told["properties"]["origin"]["description"] == "where the rule was written, for people."
    assert "one-sided" in told["properties"]["p_value"]["description"]
    assert document_schema("report")["properties"]["created"]["description"] == "when, UTC."


def test_what_is_no_report_does_not_follow_the_schema():
    content = json.loads(make(target={"cdnv": VALUE}).to_json())
    assert valid("report", content)
    for broken in ({**content, "source": None}, {**content, "schema": "x"}, {**content, "new": 1}, {**content, "warnings": [1]}):
        assert not valid("report", broken)


def test_the_three_commands_write_what_their_schemas_say(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    schemas = {}
    for name in ("report", "ranking", "gate"):
        code, out, _ = run("schema", name)
        assert code == 0
        schemas[name] = Draft202012Validator(json.loads(out))
    assert run("score", "demo", "-s", "demo", "-t", "demo", "--metrics", "all", "--n-shot", "1,5", "-q", "-o", "r.json")[0] == 0
    schemas["report"].validate(json.loads((tmp_path / "r.json").read_text()))
    rules = ["-r", "source.cdnv <= 0.05", "-r", "off: source.gc <= 1", "-r", "warning: shared", "--baseline", "r.json"]
    code, out, _ = run("gate", "r.json", *rules, "-f", "json")
    assert code == 0
    schemas["gate"].validate(json.loads(out))
    truth = ["--truth", "target.ncm_accuracy"]
    code, out, _ = run("compare", "demo", "none.pt", "-s", "demo", "-t", "demo", *truth, "-q", "-f", "json")
    assert code == 3
    found = json.loads(out)
    schemas["ranking"].validate(found)
    assert found["predictions"]
    assert found["failed"][0]["model"] == "none"


def test_zoo_files_in_all_their_forms_follow_the_schema(tmp_path):
    for text in (
        "models: [demo]\nsource: demo\n",
        "models: [{model: demo, input-size: 28, mean: '0.5'}]\nsources: {data: demo}\ntargets: [demo]\nsettings: {n-shot: 5, metrics: all}\n",
    ):
        (tmp_path / "zoo.yaml").write_text(text)
        assert read_zoo(tmp_path / "zoo.yaml").models
        assert valid("zoo", yaml.safe_load(text)), text
    assert not valid("zoo", {"models": [3]})
    assert not valid("zoo", {"models": ["demo"], "settings": {"sed": 1}})


def test_an_unknown_schema_is_told(run):
    code, out, err = run("schema", "reports")
    assert (code, out) == (2, "")
    assert "expected report, ranking, gate or zoo, found 'reports'" in err


def test_the_example_is_what_the_program_writes():
    example = document_schema("report")["examples"][0]
    report = gcaudit.score("demo", "demo", "demo", metrics=("gc", "cdnv", "probe_accuracy"))
    assert report.source.metrics["cdnv"].value == pytest.approx(example["source"]["metrics"]["cdnv"]["value"], rel=1e-3)
    assert example["schema"] == report.schema_

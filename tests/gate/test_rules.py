import dataclasses
import os

import pytest

from gcaudit.errors import RequestError
from gcaudit.gate.judge import gate_request
from gcaudit.gate.rules import parse_rule, parse_share, project_rules, read_rules

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


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "a: &a [x]\nb: *a\n", "expected YAML: aliases are not taken"),
        ("a.yaml", "[" * 100_000, "expected YAML: "),
        ("a.toml", "a = " + "[" * 100_000, "expected TOML: "),
        ("a.yaml", "rules: [2026-13-45]", "expected YAML: "),
        ("a.yaml", "rules: [2026-11-26]", ""),
        ("a.yaml", "rules: [!!python/object:os.system x]", "expected YAML: "),
        ("a.yaml", "? [a, b]\n: c\n", ""),
        ("a.yaml", "x" * 2**21, "2097152 bytes, more than 1048576"),
    ],
)
def test_hostile_files_of_rules_are_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(RequestError) as caught:
        read_rules(tmp_path / name)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_a_pipe_is_no_file_of_rules(tmp_path):
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(RequestError, match="a FIFO in place of a regular file"):
        read_rules(tmp_path / "a.yaml")


def test_a_number_without_end_decides_nothing():
    with pytest.raises(RequestError, match="expected a rule with a number that is finite"):
        parse_rule("source.cdnv <= 1e99999")

import dataclasses
import os

import pytest

from gcaudit.errors import RequestError
from gcaudit.gate.request import gate_request
from gcaudit.gate.rule_files import project_rules, read_rules
from gcaudit.gate.rules import parse_condition, parse_rule, parse_share

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
        ("warn: Source.GC <= 0.0", "source.gc <= 0.0"),
        ("target.probe_accuracy ≥ 0.6", "target.probe_accuracy >= 0.6"),
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
        ("probe_accuracy >= 0.6", r"expected a rule such as .*; did you mean target\.probe_accuracy\?"),
        ("source.gc", r"expected a rule such as .*; it lacks a limit such as >= 0\.6"),
        ("source.gc = 3", "did you mean <= in place of ="),
        ("source.cdnv@5 <= 1", "@N_SHOT with probe_accuracy or ncm_error_bound only"),
        ("source.gc >= nan", "expected a rule such as"),
        ("source.cdvn <= 3", "did you mean cdnv"),
        ("cdnv <= 3", r"did you mean target\.cdnv or source\.cdnv\?"),
        ("source.gc =< 3", "did you mean <= in place of =<"),
        ("warnings: shared", "did you mean warning: with no s"),
        ("target.probe_accuracy == 0.6", "did you mean >= in place of =="),
        ("target.probe_accuracy@x >= 1", r"found 'target\.probe_accuracy@x >= 1'$"),
        ("target.probe_accuracy >= 0", r"always says the same; write one between 0 and 1"),
        ("target.probe_accuracy <= 100%", r"always says the same; write one between 0 and 1"),
        ("source.cdnv <= 1e-9999", "can be told from 0"),
        ("source.gc regression >= 2%", "'regression <= SHARE'"),
        ("source.gc regression <= -2%", "'regression <= SHARE'"),
        ("source.poincare_lower_bound regression <= 2%", "metric that has a better side"),
        ("source.cdnv regression <= 5", r"may mean 5% or 500% \(which is refused\); write it with %"),
        ("source.cdnv regression <= 1", "may mean 1% or 100%; write it with %"),
        ("source.cdnv regression <= 101%", "above 100% hardly anything is a regression"),
        ("target.probe_accuracy >= 60", r"limit from 0 to 1, or 0% to 100%, for probe_accuracy, .*; 60% is 0\.6"),
        ("source.ncm_accuracy >= -0.1", "an accuracy is a share"),
        ("source.head_accuracy <= 101%", "an accuracy is a share"),
        ("warning: sharde", "did you mean shared"),
        ("warning: xyzzy", "known: any, preprocessing"),
    ],
)
def test_rules_that_cannot_be_read_are_told(text, message):
    with pytest.raises(RequestError, match=message):
        parse_condition(text)


@pytest.mark.parametrize(
    ("text", "share"), [("2%", 0.02), ("0.02", 0.02), (0, 0.0), (" 0 %", 0.0), ("100%", 1.0), (0.99, 0.99), ("0.5%", 0.005)]
)
def test_shares_are_read(text, share):
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["-1%", "two", "", "nan"])
def test_shares_that_cannot_be_read_are_told(text):
    with pytest.raises(RequestError, match="--max-regression such as 2%"):
        parse_share(text)


@pytest.mark.parametrize(
    ("text", "message"), [(2, "may mean 2% or 200%"), ("1", "may mean 1% or 100%"), ("200%", "above 100%"), ("1e3%", "above 100%")]
)
def test_shares_that_may_be_meant_in_per_cent_or_not_are_refused(text, message):
    with pytest.raises(RequestError, match=rf"expected --max-regression such as 2% or 0\.02, found .*{message}"):
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
        ("g.yaml", "\nrulez: []", r"line 2: .*found 'rulez'; did you mean rules\?"),
        ("g.yaml", "rule: [source.cdnv <= 1]", r"found 'rule'; did you mean rules\?"),
        ("g.yaml", "when_unsur: pass", r"found 'when_unsur'; did you mean when-unsure\?"),
        (
            "p.toml",
            "[tool.gcaudit.gate]\n# of CI\nrule = ['source.cdnv <= 1']",
            r"p\.toml, line 3: .*found 'rule'; did you mean rules\?",
        ),
        ("p.toml", "[tool.gcaudit.gate]\nrules = [\n'source.cdnv <= 1',\n'a',\n]", "p.toml, line 4: expected a rule such as"),
        ("p.toml", "[tool.gcaudit.gate]\nwhen-unsure = 'pass'\nwhen_unsure = 'fail'", "line 1: expected each key once"),
        ("p.toml", "\n[tool.gcaudit.gates]\nrules = []", r"line 2: .*found 'gates'; did you mean gate\?"),
        ("p.toml", "[tool.gcaudit]\nrules = []", r"line 2: expected \[tool.gcaudit.score\] and .*, found 'rules'"),
        ("p.toml", "[tool]\ngcaudit.rules = []", r"p\.toml: expected \[tool.gcaudit.score\] and .*, found 'rules'"),
        ("p.toml", "[tool.gcaudit.gate.rules]\na = 1", "expected 'rules' to be a list, found dict"),
        ("g.yaml", "rules: 3", "'rules' to be a list"),
        ("g.yaml", "rules: [3]", "expected a rule as text"),
        ("g.yaml", "rules: [{rule: source.gc <= 1, level: loud}]", "level of error, warn, off, found 'loud'"),
        ("g.yaml", "when-unsure: perhaps", "when-unsure of pass"),
        ("g.yaml", "max-regression: lots", r"g\.yaml, line 1: expected --max-regression such as"),
        ("g.yaml", "max-regression: 2", r"g\.yaml, line 1: .*may mean 2% or 200%"),
        ("g.yaml", "rules:\n- source.cdnv <= 1\n- source.cdnv regression <= 5", r"g\.yaml, line 3: .*may mean 5% or 500%"),
        ("g.yaml", "rules: [a]\nrules: [b]", "line 2: expected each key once, found 'rules' again"),
        ("g.yaml", "rules: [{rule: a, level: warn, rule: b}]", "line 1: expected each key once, found 'rule' again"),
        ("g.yaml", "max-regression: 2%\nmax_regression: 3%", "line 2: expected each key once, found 'max-regression' again"),
        ("g.yaml", "no-warnings: perhaps", "no-warnings of true or false, found 'perhaps'"),
        ("g.yaml", "rules: [{warning: shraed}]", "did you mean shared"),
        ("g.yaml", "~: 1\nrules: []", "line 1: .*found 'None'"),
        ("p.toml", "\n[tool.gcaudit.gate] # x = y\nrules = [\n'source.cdnv <= 1', # not source.cdn\n'source.cdn']", "line 5: "),
        *(
            ("p.toml", f"[{name}]\nrules = []", "expected tables of .*; rename it")
            for name in ("tools.gcaudit.gate", "tool.gc-audit.gate", "gcaudit.gate")
        ),
        ("p.toml", "tool = 3", r"expected a table \[tool.gcaudit.gate\]"),
        ("p.toml", "x = ", "expected TOML"),
        ("p.toml", "x = 1", r"expected a table \[tool.gcaudit.gate\]"),
        ("g.yaml", "!!python/object/apply:os.system ['true']", "expected plain YAML"),
    ],
)
def test_files_of_rules_that_are_wrong_are_told(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(RequestError, match=message):
        read_rules(tmp_path / name)


def test_files_can_forbid_warnings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g.yaml").write_text("no-warnings: true\nrules:\n- warning: shared\n- warn: warning: split\n")
    with pytest.raises(RequestError, match="expected YAML"):
        read_rules(tmp_path / "g.yaml")
    text = "no-warnings: true\nrules:\n- warning: shared\n- 'warn: warning: split'\n- {rule: 'warning: column', level: off}\n"
    (tmp_path / "g.yaml").write_text(text + "- warn: {warning: links}\n")
    rules = gate_request(["g.yaml"]).rules
    assert [(rule.kind, rule.level) for rule in rules] == [
        *(("shared", "error"), ("split", "warn"), ("column", "off"), ("links", "warn"), ("any", "error"))
    ]


def test_a_rule_that_is_turned_off_asks_for_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.gcaudit.gate]\nno-warnings = true\nrules = ['source.cdnv regression <= 5%']\n")
    with pytest.raises(RequestError, match="expected --baseline"):
        gate_request(["source.gc <= 1"])
    asked = gate_request(["OFF: source.cdnv regression <= 5%", "Warn: warning: any"])
    assert [(rule.text, rule.level) for rule in asked.rules] == [("source.cdnv regression <= 5%", "off"), ("warning: any", "warn")]
    assert asked.notes == (
        "source.cdnv regression <= 5%: level off of --rule stands in for level error of pyproject.toml",
        "warning: any: level warn of --rule stands in for level error of pyproject.toml",
    )
    (tmp_path / "g.yaml").write_text("- Warn: source.cdnv <= 1\n- {rule: source.gc <= 1, level: OFF}\n")
    assert [rule.level for rule in gate_request(["g.yaml"], project=False).rules] == ["warn", "off"]


def test_what_the_audit_will_not_look_at_is_not_foreseen(tmp_path, demo):
    (tmp_path / "old.json").write_text(demo.to_json())
    asked = gate_request(["target.probe_accuracy regression <= 2%"], baseline=tmp_path / "old.json", project=False)
    with pytest.raises(RequestError, match=r"expected --n-way as in the baseline \(5\), found 4"):
        asked.foresee({"n_way": 4}, ("source", "target"))
    asked.foresee({"n_way": 4}, ("source",))
    asked.foresee({"n_way": 5, "source_max_images": 10}, ("source", "target"))


def test_missing_files_of_rules_are_told(tmp_path):
    with pytest.raises(RequestError, match=r"expected a file of rules at .*No such file"):
        read_rules(tmp_path / "g.yaml")


def test_options_win_over_files_and_the_project_comes_last(tmp_path, monkeypatch, demo):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.json").write_text(demo.to_json())
    assert project_rules(tmp_path).rules == ()
    with pytest.raises(RequestError, match="expected rules, found none"):
        gate_request([])
    (tmp_path / "pyproject.toml").write_text(TOML)
    with pytest.raises(
        RequestError,
        match=r"expected --baseline OLD\.json for max-regression 2% of pyproject\.toml, found none; .* or --no-project-rules",
    ):
        gate_request([])
    found = gate_request([], baseline=tmp_path / "base.json")
    assert (len(found.rules), found.max_regression, found.when_unsure) == (3, 0.02, "fail")
    base = tmp_path / "base.json"
    found = gate_request(["source.gc <= 1"], baseline=base, max_regression="7%", when_unsure="warn")
    assert (found.max_regression, found.when_unsure) == (0.07, "warn")
    assert [rule.origin for rule in found.rules] == ["pyproject.toml"] * 3 + ["--rule"]
    assert found.notes == (
        "--max-regression 7% stands in for the 2% of pyproject.toml",
        "--when-unsure warn stands in for when-unsure fail of pyproject.toml",
    )
    alone = gate_request(["source.gc <= 1"], baseline=base, project=False, option="--gate")
    assert [(rule.text, rule.origin) for rule in alone.rules] == [("source.gc <= 1.0", "--gate")]
    (tmp_path / "g.yaml").write_text(YAML)
    found = gate_request(["g.yaml", "source.cdnv <= 4"], baseline=base, max_regression="7%", project=False)
    assert (len(found.rules), found.max_regression, found.when_unsure) == (4, 0.07, "fail")
    assert [rule.origin for rule in found.rules] == ["g.yaml"] * 3 + ["--rule"]
    assert len(gate_request(["pyproject.toml"], baseline=base).rules) == 3  # not twice
    with pytest.raises(RequestError, match="--when-unsure of"):
        gate_request(["source.gc <= 1"], when_unsure="perhaps", project=False)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.yaml",
            "rules:\n" + "".join(f"- &a{n} [{', '.join([f'*a{n - 1}'] * 9 if n else 'x')}]\n" for n in range(9)),
            "aliases count each time",
        ),
        ("a.yaml", "[" * 100_000, "expected at most 50 levels"),
        ("a.toml", "a = " + "[" * 100_000, "expected TOML: "),
        ("a.yaml", "rules: [2026-13-45]", "line 1: expected a plain value"),
        ("a.yaml", "rules: [2026-11-26]", ""),
        ("a.yaml", "rules: [!!python/object:os.system x]", "line 1: expected plain YAML"),
        ("a.yaml", "? [a, b]\n: c\n", ""),
        ("a.yaml", "x" * 2**21, "of at most 1 MiB, found 2097152 bytes"),
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

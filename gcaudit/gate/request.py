"""What a gate is asked: rules of options, of files and of the project, and those that a baseline stands for."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from gcaudit.errors import GcauditWarning, RequestError, shorten, telling_paths
from gcaudit.gate.judge import AnyRule, Given, judge
from gcaudit.gate.rule_files import PROJECT, RuleFile, project_rules, read_rules
from gcaudit.gate.rules import ANY, UNSURE, Rule, Unsure, WarningRule, parse_condition, parse_rule, parse_share
from gcaudit.gate.verdict import GateResult
from gcaudit.metrics import Role
from gcaudit.report import Report

HEADLINES = ("source.geometric_collapse", "target.probe_accuracy")
"""What `max_regression` is applied to when no rule says otherwise."""
DEFAULT_REGRESSION = 0.02
"""What a baseline allows when no rule is a regression: that of the examples, told with each verdict."""


def headline_rules(report: Report, baseline: Report, share: float, rules: Sequence[AnyRule], origin: str) -> list[Rule]:
    """Make the rules that `max_regression` stands for: the headline metrics that no rule treats already.

    Args:
        report: the report to judge.
        baseline: the old one; a headline that only it has fails as missing.
        share: largest allowed regression.
        rules: those that were given.
        origin: where the share was written, for people.

    Returns:
        Rules of level `error`.
    """
    roles = {role for each in (report, baseline) for role in each.blocks()}
    taken = {rule.name for rule in rules if isinstance(rule, Rule) and rule.regression}
    return [
        parse_rule(f"{name} regression <= {100 * share!r}%", origin=origin)
        for name in HEADLINES
        if name not in taken and name.split(".")[0] in roles
    ]


def _default_rules(report: Report, baseline: Report, rules: Sequence[AnyRule]) -> list[Rule]:
    """Make the rules that a baseline stands for when no rule is a regression; a headline that neither report has is left out."""
    if any(isinstance(rule, Rule) and rule.regression for rule in rules):
        return []
    measured = {f"{role}.{name}" for each in (report, baseline) for role, block in each.blocks().items() for name in block.metrics}
    origin = f"default with a baseline, --max-regression {100 * DEFAULT_REGRESSION:g}%"
    return [rule for rule in headline_rules(report, baseline, DEFAULT_REGRESSION, rules, origin) if rule.name in measured]


@final
@dataclass(frozen=True)
class GateRequest:
    """A gate that is ready to judge.

    Attributes:
        rules: from options and files.
        max_regression: share, or None.
        share_origin: where that was written, for people.
        baseline: the report of the last release, or None.
        when_unsure: `pass`, `warn` or `fail`.
        allow_mismatch: make differences that forbid a comparison a warning.
        notes: what options stood in for.
    """

    rules: tuple[AnyRule, ...]
    max_regression: float | None
    share_origin: str
    baseline: Report | None
    when_unsure: Unsure
    allow_mismatch: bool
    notes: tuple[str, ...] = ()

    def foresee(self, options: Mapping[str, Any], roles: Sequence[Role]) -> None:
        """Refuse before an audit what could not be compared with the baseline after it.

        Args:
            options: of the audit, by their flat names.
            roles: the data sets that it looks at.

        Raises:
            RequestError: the report will not be of the baseline's images or episodes.
        """
        if self.baseline is None or self.allow_mismatch:
            return
        judged = [rule for rule in self.rules if isinstance(rule, Rule) and rule.regression and rule.level != "off"]
        headlines = self.max_regression is not None or not judged
        for role, block in self.baseline.blocks().items():
            if role not in roles:
                continue
            names = {rule.metric for rule in judged if rule.role == role}
            most = options.get(f"{role}_max_images")
            if (names or headlines) and most is not None and most < block.images:
                raise RequestError(_unlike(f"{role}-max-images", most, f"{block.images} images"))
            value = block.metrics.get("probe_accuracy")
            if value is None or not ("probe_accuracy" in names or (headlines and role == "target")):
                continue
            for name in ("n_way", "n_query", "ridge"):
                old = getattr(value, name)
                if None not in (old, options.get(name)) and options[name] != old:
                    raise RequestError(_unlike(name.replace("_", "-"), options.get(name), old))

    def judge(self, report: Report) -> GateResult:
        """Judge a report.

        Args:
            report: the new one.

        Returns:
            The verdicts.

        Raises:
            RequestError: no rules, a regression without baseline, or reports that may not be compared.
        """
        rules, notes = list(self.rules), list(self.notes)
        if self.max_regression is not None:
            if self.baseline is None:
                raise RequestError("expected --baseline OLD.json to judge regressions, found none")
            rules += headline_rules(report, self.baseline, self.max_regression, rules, self.share_origin)
        elif self.baseline is not None:
            rules += _default_rules(report, self.baseline, rules)
        found = judge(rules, Given(report, self.baseline, self.when_unsure, self.allow_mismatch))
        if self.baseline is not None and found.baseline is not None and report.to_json() == self.baseline.to_json():
            notes.append("the baseline is the report itself, so that nothing can be worse; name that of the last release")
        return replace(found, warnings=(*notes, *found.warnings))


def _unlike(option: str, new: Any, old: Any) -> str:
    return f"expected --{option} as in the baseline ({old}), found {new}; pass --allow-mismatch to go on"


def gate(
    report: Report | str | Path,
    rules: Iterable[str | Rule | WarningRule] = (),
    baseline: Report | str | Path | None = None,
    *,
    max_regression: float | str | None = None,
    when_unsure: Unsure = "pass",
    allow_mismatch: bool = False,
    no_warnings: bool = False,
) -> GateResult:
    """Judge a report by rules, and against a baseline.

    Args:
        report: from `gcaudit.score`, or the path of one.
        rules: such as `target.probe_accuracy >= 0.6`, `warn: source.gc <= 1e4`, `source.cdnv regression <= 5%`, `warning: shared`.
        baseline: the report of the last release, or its path. Where no rule is a regression, the headline metrics may be worse by 2%.
        max_regression: largest allowed regression of the headline metrics, as `"2%"` or 0.02.
        when_unsure: `pass`, `warn` or `fail` when the interval contains the limit.
        allow_mismatch: make differences that forbid a comparison a warning.
        no_warnings: fail on each warning of the report; rules that name a kind, also of level `warn` or `off`, go before it.

    Returns:
        The verdicts; `passed` says whether all rules of level `error` hold. Warnings also come as `GcauditWarning`.

    Raises:
        RequestError: a rule that cannot be read, or reports that may not be compared.

    Example:
        >>> gate("report.json", ["target.probe_accuracy >= 0.6"], baseline="old.json").passed  # doctest: +SKIP
    """
    new = report if isinstance(report, Report) else Report.read(report, evidence=baseline is not None)
    old = baseline if isinstance(baseline, Report) or baseline is None else Report.read(baseline)
    read: list[AnyRule] = [parse_condition(rule) if isinstance(rule, str) else rule for rule in rules]
    if no_warnings:
        read.append(WarningRule(ANY, origin="no_warnings"))
    share = None if max_regression is None else parse_share(max_regression)
    kept, notes = _last_levels(read)
    found = GateRequest(tuple(kept), share, "max_regression", old, when_unsure, allow_mismatch, tuple(notes)).judge(new)
    for line in found.warnings:
        warnings.warn(line, GcauditWarning, stacklevel=2)
    return found


def gate_request(
    texts: Sequence[str],
    *,
    baseline: Path | None = None,
    max_regression: str | None = None,
    when_unsure: str | None = None,
    allow_mismatch: bool = False,
    no_warnings: bool = False,
    project: bool = True,
    option: str = "--rule",
) -> GateRequest:
    """Collect what options, files and the project ask for; rules are added up, and of other settings options win over files.

    Args:
        texts: rules, or paths of files of rules.
        baseline: path of a report.
        max_regression: such as `2%`.
        when_unsure: `pass`, `warn` or `fail`.
        allow_mismatch: make differences that forbid a comparison a warning.
        no_warnings: fail on each warning of the report.
        project: add the rules of the project in the working folder.
        option: that rules were typed with.

    Returns:
        The request; every file in it has been read.

    Raises:
        RequestError: something cannot be read, or nothing is asked.
    """
    files = [_typed(text, option) for text in texts]
    own = project_rules(Path()) if project and all(file.origin != str(PROJECT) for file in files) else RuleFile()
    files = [own, *files]
    files += [RuleFile(no_warnings=True, origin="--no-warnings")] if no_warnings else []
    given = [
        rule for file in files for rule in (*file.rules, *([WarningRule(ANY, origin=file.origin)] if file.no_warnings else []))
    ]
    rules, replaced = _last_levels(given)
    typed = None if max_regression is None else parse_share(max_regression)
    shares = [(file.max_regression, file.origin) for file in files if file.max_regression is not None]
    shares += [(typed, "--max-regression")] if typed is not None else []
    doubts = [(file.when_unsure, file.origin) for file in files if file.when_unsure is not None]
    doubts += [(when_unsure, "--when-unsure")] if when_unsure is not None else []
    notes = (
        replaced + _replaced([(f"{100 * share:g}%", origin) for share, origin in shares], "the") + _replaced(doubts, "when-unsure")
    )
    share, share_origin = shares[-1] if shares else (None, "")
    if baseline is None:
        wanted = [(rule.text, rule.origin) for rule in rules if isinstance(rule, Rule) and rule.regression and rule.level != "off"]
        wanted += [] if share is None else [(f"max-regression {100 * share:g}%", share_origin)]
        if wanted:
            text, origin = wanted[0]
            leave = " or --no-project-rules" if origin == str(PROJECT) else ""
            raise RequestError(f"expected --baseline OLD.json for {text} of {origin}, found none; pass --baseline{leave}")
    if not rules and baseline is None:
        raise RequestError(
            f"expected rules, found none{f' in {shorten(list(texts))}' if texts else ''}; pass --rule 'target.probe_accuracy >= 0.6' or --baseline OLD.json --max-regression 2%, "
            f"or write [tool.gcaudit.gate] into {PROJECT}"
        )
    old = None if baseline is None else Report.read(baseline)
    return GateRequest(tuple(rules), share, share_origin, old, _unsure(doubts), allow_mismatch, tuple(notes))


def _last_levels(rules: Sequence[AnyRule]) -> tuple[list[AnyRule], list[str]]:
    """Of rules that differ in nothing but their level, keep the last, and tell which it stands in for."""
    kept: dict[str, AnyRule] = {}
    told = []
    for rule in rules:
        before = kept.get(rule.text)
        if before is not None and before.level != rule.level:
            now, then = (f"level {each.level}" + (f" of {each.origin}" if each.origin else "") for each in (rule, before))
            told.append(f"{rule.text}: {now} stands in for {then}")
        if before is None or before.level != rule.level:
            kept[rule.text] = rule
    return list(kept.values()), told


def _replaced(given: Sequence[tuple[str, str]], what: str) -> list[str]:
    """Tell which of several settings is not followed, since another that comes later stands in for it."""
    return [
        f"{given[-1][1]} {given[-1][0]} stands in for {what} {value} of {origin}"
        for value, origin in given[:-1]
        if value != given[-1][0]
    ]


def _unsure(doubts: Sequence[tuple[str, str]]) -> Unsure:
    text = doubts[-1][0] if doubts else "pass"
    found = next((known for known in UNSURE if known == text), None)
    if found is None:
        raise RequestError(f"expected --when-unsure of {', '.join(UNSURE)}, found {text!r}")
    return found


def _typed(text: str, option: str) -> RuleFile:
    with telling_paths("a rule or a file of rules", RequestError):
        is_file = Path(text).suffix in (".yaml", ".yml", ".toml") or Path(text).is_file()
    return read_rules(Path(text)) if is_file else RuleFile((parse_condition(text, origin=option),), origin=option)

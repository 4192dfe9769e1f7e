"""Rules + report (+ baseline) -> verdicts: may this checkpoint be released?

A rule is a threshold (`target.probe_accuracy >= 0.6`), forbids a regression against a baseline (`source.cdnv regression <= 5%`), or forbids a
warning (`warning: shared`). The 95% interval decides: a rule is passed when the whole interval is on the good side, failed when it is all on the bad
side, and undecided otherwise; `when_unsure` says what that means for the gate.

Against a baseline the contrast is new - (1 +- r) old, in the metric's worse direction. Its standard error comes from the influences of
the same images or episodes when both reports kept them (paired), and from the two standard errors otherwise (unpaired). With several regressions
each has its chance to fail by accident: they fail by Holm's procedure, so that a release that is no worse fails the gate in at most 2.5% of cases. A value
without an interval cannot be judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal, final

from gcaudit.errors import RequestError
from gcaudit.gate.comparable import differences, find_value, pool_part
from gcaudit.gate.needs import fixed_error, needed_for, paired_fixed_error, unit_of
from gcaudit.gate.regression import Contrast, Incomparable, contrast_of, holm
from gcaudit.gate.rules import ANY, EXAMPLE, UNSURE, Level, Rule, Unsure, WarningRule
from gcaudit.gate.verdict import GateResult, Outcome, Status, Verdict
from gcaudit.geometry import NORMAL_95
from gcaudit.metrics import find_metric
from gcaudit.report import MetricValue, Report, ReportWarning

_FAILS = 0.025
AnyRule = Rule | WarningRule


def _number(value: float, other: float) -> str:
    """Write a number with enough digits to tell it from another."""
    for digits in range(4, 18):
        text = f"{value:.{digits}g}"
        if value == other or text != f"{other:.{digits}g}":
            return text
    return repr(value)


def _pair(value: float, other: float) -> tuple[str, str]:
    return _number(value, other), _number(other, value)


def _settled(rule: AnyRule, outcome: Outcome, when_unsure: Unsure, verdict: Verdict) -> Verdict:
    """Say what an outcome means at the rule's level."""
    failed = outcome in ("failed", "missing")
    unsure = outcome == "unsure"
    plain: dict[Level, Status] = {"error": "failed", "warn": "warned", "off": "off"}
    status: Status = "passed" if outcome == "passed" else "undecided" if unsure else plain[rule.level]
    error = rule.level == "error"
    fails = error and (failed or (unsure and when_unsure == "fail"))
    warns = not fails and ((failed and not error) or (unsure and when_unsure != "pass"))
    return replace(verdict, status=status, fails=fails, warns=warns)


def _blank(rule: AnyRule, outcome: Outcome, message: str, value: float | None = None) -> Verdict:
    return Verdict(rule.text, rule.name, rule.level, outcome, "off", value, None, None, "none", message, origin=rule.origin)


def _missing(rule: Rule, reason: str, value: float | None = None) -> Verdict:
    return _settled(rule, "missing", "pass", _blank(rule, "missing", f"{rule.name} could not be judged: {reason}", value))


def _doubt(rule: Rule, outcome: Outcome, needed: int | None, unit: str) -> str:
    if outcome != "unsure":
        return ""
    if needed is not None:
        return f"; about {needed:,} {unit} would decide it"
    more = "; raise --episodes" if find_metric(rule.metric).episodes and unit == "images" else ""
    return f"; no number of {unit} would decide it{more}"


def _called(rule: Rule, report: Report) -> str:
    """Name what is judged; of a curve, with the point that a bare name stands for."""
    value = find_value(report, rule)
    points = () if isinstance(value, str) or rule.shot is not None else value.curve or ()
    return f"{rule.name} ({points[0].n_shot}-shot)" if len(points) > 1 else rule.name


def _bare(rules: Sequence[AnyRule], report: Report) -> list[str]:
    """Warn of rules that name one point of a curve without saying which."""
    found = {}
    for rule in rules:
        if isinstance(rule, Rule) and rule.level != "off" and _called(rule, report) != rule.name:
            value = find_value(report, rule)
            shots = [str(point.n_shot) for point in (value.curve or ())] if isinstance(value, MetricValue) else []
            found[rule.name] = (
                f"{_called(rule, report)} was judged of the n-shots {', '.join(shots)}; say which, such as {rule.name}@{shots[-1]}"
            )
    return list(found.values())


def _judge_threshold(rule: Rule, value: MetricValue, called: str, when_unsure: Unsure) -> Verdict:
    assert value.value is not None
    interval = pool_part(value)[1] if rule.pool else value.ci95
    if interval is None:
        return _missing(rule, f"it has no interval ({value.reason or 'none was kept'})", value.value)
    low, high = interval
    good = {">=": (low >= rule.limit, high >= rule.limit), ">": (low > rule.limit, high > rule.limit)}
    good |= {"<=": (high <= rule.limit, low <= rule.limit), "<": (high < rule.limit, low < rule.limit)}
    surely, possibly = good[rule.sign]
    outcome: Outcome = "passed" if surely else "unsure" if possibly else "failed"
    shown, limit = _pair(value.value, rule.limit)
    ends = f"[{_number(low, rule.limit)}, {_number(high, rule.limit)}]"
    verb = {"passed": "meets", "failed": "violates", "unsure": "is too close to call against"}[outcome]
    unit = unit_of(value, rule)[0]
    half = value.value - low if rule.limit < value.value else high - value.value
    stays = NORMAL_95 * fixed_error(value, rule)
    needed = needed_for(unit_of(value, rule)[1], abs(value.value - rule.limit), half, stays) if outcome == "unsure" else None
    message = f"{called} = {shown} {ends} {verb} {rule.sign} {limit}" + (" given the pool" if rule.pool else "")
    verdict = replace(
        _blank(rule, outcome, message + _doubt(rule, outcome, needed, unit), value.value),
        ci95=interval,
        comparison="interval",
        needed=needed,
    )
    return _settled(rule, outcome, when_unsure, replace(verdict, unit=unit if outcome == "unsure" else None))


def _judge_regression(rule: Rule, judged: Contrast, adjusted: float, count: int, given: Given, *, needed: int | None) -> Verdict:
    new, old, excess = judged.new, judged.old, judged.excess
    low, high = excess - judged.student * judged.error, excess + judged.student * judged.error
    outcome = _outcome(judged, adjusted)
    shown, before = _pair(new, old)
    change = f"{100 * (new / old - 1):+.3g}%" if old else f"{new - old:+.4g}"
    how: Literal["paired", "unpaired"] = "paired" if judged.paired else "unpaired"
    kept = given.baseline is not None and None not in (given.report.evidence, given.baseline.evidence)
    want = "" if judged.paired or kept else " (for want of --save-evidence)"
    verb = {"passed": "stays within", "failed": "is worse by more than", "unsure": "is too close to call against"}[outcome]
    several = f", p = {adjusted:.2g} by Holm over {count} regressions" if count > 1 else ""
    unit: Literal["images", "episodes"] = "episodes" if rule.pool else "images"
    message = (
        f"{_called(rule, given.report)} = {shown} against {before} ({change}) {verb} the allowed {100 * rule.limit:g}%: "
        f"excess {_number(excess, 0.0)} [{_number(low, 0.0)}, {_number(high, 0.0)}], {how}{want}{several}"
        + (", given the pool" if rule.pool else "")
        + _doubt(rule, outcome, needed, unit)
    )
    unsure = outcome == "unsure"
    verdict = replace(_blank(rule, outcome, message, new), ci95=judged.ci95, baseline=old, comparison=how, p_value=adjusted)
    return _settled(
        rule, outcome, given.when_unsure, replace(verdict, needed=needed if unsure else None, unit=unit if unsure else None)
    )


def _outcome(judged: Contrast, adjusted: float) -> Literal["passed", "failed", "unsure"]:
    return "passed" if judged.excess + judged.student * judged.error <= 0 else "failed" if adjusted < _FAILS else "unsure"


def _needed(rule: Rule, report: Report, baseline: Report, judged: Contrast, count: int) -> int | None:
    """Say how many images would decide a regression: to fail beside others takes more than to pass."""
    new, old = find_value(report, rule), find_value(baseline, rule)
    assert isinstance(new, MetricValue)
    assert isinstance(old, MetricValue)
    quantile = NormalDist().inv_cdf(1 - _FAILS / count) if judged.excess > 0 else NORMAL_95
    factor = judged.factor
    if judged.paired:
        fixed = paired_fixed_error(report, baseline, rule, (new, old), factor)
    else:
        fixed = (fixed_error(new, rule) ** 2 + factor**2 * fixed_error(old, rule) ** 2) ** 0.5
    half = quantile / NORMAL_95 * judged.student * judged.error
    return needed_for(unit_of(new, rule)[1], abs(judged.excess), half, quantile * fixed)


def _judge_warnings(rule: WarningRule, report: Report, named: set[str]) -> list[Verdict]:
    """Make a verdict for each warning that a rule forbids, or one that there is none."""
    kinds = {warning.kind for warning in report.warnings}
    if rule.kind != ANY and "other" in kinds and rule.kind != "other":
        reason = f"{rule.text} could not be judged: the report is of a version that knew no kinds of warnings; score again"
        return [_settled(rule, "missing", "pass", _blank(rule, "missing", reason))]
    found = [w for w in report.warnings if (w.kind == rule.kind or (rule.kind == ANY and w.kind not in named))]
    if not found:
        what = "no warning" + (
            f" of {rule.kind}" if rule.kind != ANY else f" but of {', '.join(sorted(kinds & named))}" if kinds & named else ""
        )
        return [_settled(rule, "passed", "pass", _blank(rule, "passed", f"the report has {what}"))]
    return [_settled(rule, "failed", "pass", _found(rule, warning)) for warning in found]


def _found(rule: WarningRule, warning: ReportWarning) -> Verdict:
    return replace(_blank(rule, "failed", f"warning of {warning.kind}: {warning}"), metric=f"warning.{warning.kind}")


@final
@dataclass(frozen=True)
class Given:
    """What rules are judged with.

    Attributes:
        report: the new one.
        baseline: the old one, for regressions; or None.
        when_unsure: what too close to call means for the gate.
        allow_mismatch: make differences that forbid a comparison a warning.
    """

    report: Report
    baseline: Report | None
    when_unsure: Unsure
    allow_mismatch: bool


def judge(rules: Sequence[AnyRule], given: Given) -> GateResult:
    """Judge a report.

    Args:
        rules: conditions; those of level `off` are listed and not judged.
        given: what they are judged with.

    Returns:
        The verdicts.

    Raises:
        RequestError: no rules, a regression without baseline, or reports that may not be compared.
    """
    if not rules:
        raise RequestError(f"expected at least one rule such as {EXAMPLE}, found none; pass --rule, --rules or --max-regression")
    if given.when_unsure not in UNSURE:
        raise RequestError(f"expected --when-unsure of {', '.join(UNSURE)}, found {given.when_unsure!r}")
    rules = list(dict.fromkeys(rules))
    regressions = [rule for rule in rules if isinstance(rule, Rule) and rule.regression and rule.level != "off"]
    warnings = [rule.oddity for rule in rules if isinstance(rule, Rule) and rule.level != "off" and rule.oddity is not None]
    if all(rule.level == "off" for rule in rules):
        warnings.append("no rule was judged, since all are off")
    warnings += _bare(rules, given.report)
    contrasts = _contrasts(regressions, given, warnings)
    judged = {rule: found for rule, found in contrasts.items() if isinstance(found, Contrast)}
    adjusted = dict(zip(judged, holm([contrast.p_value for contrast in judged.values()]), strict=True))
    named = {rule.kind for rule in rules if isinstance(rule, WarningRule) and rule.kind != ANY}
    verdicts: list[Verdict] = []
    for rule in rules:
        if rule.level == "off":
            verdicts.append(_blank(rule, "off", f"{rule.text} is not judged"))
        elif isinstance(rule, WarningRule):
            verdicts += _judge_warnings(rule, given.report, named)
        elif rule in judged:
            assert given.baseline is not None
            unsure = _outcome(judged[rule], adjusted[rule]) == "unsure"
            needed = _needed(rule, given.report, given.baseline, judged[rule], len(judged)) if unsure else None
            verdicts.append(_judge_regression(rule, judged[rule], adjusted[rule], len(judged), given, needed=needed))
        elif isinstance(kept := contrasts.get(rule), Incomparable):
            verdicts.append(_missing(rule, kept.reason, kept.value))
        else:
            found = find_value(given.report, rule)
            if isinstance(found, str) or found.value is None:
                verdicts.append(_missing(rule, found if isinstance(found, str) else found.reason or "it is null"))
            else:
                verdicts.append(_judge_threshold(rule, found, _called(rule, given.report), given.when_unsure))
    used = given.baseline.model.spec if given.baseline is not None and regressions else None
    return GateResult(tuple(verdicts), tuple(warnings), given.report.model.spec, used)


def _contrasts(regressions: Sequence[Rule], given: Given, warnings: list[str]) -> dict[Rule, Contrast | Incomparable]:
    """Compare with the baseline, and say what that passed over."""
    if given.baseline is None:
        if regressions:
            raise RequestError(f"expected --baseline OLD.json for {regressions[0].text!r}, found none")
        return {}
    if not regressions:
        warnings.append(
            f"the baseline {given.baseline.model.spec} was not used, since no rule is a regression; add --max-regression 2% or leave --baseline out"
        )
        return {}
    unlike = differences(given.report, given.baseline, regressions)
    if unlike and not given.allow_mismatch:
        raise RequestError(
            f"expected reports that may be compared, found other {'; other '.join(unlike)}; pass --allow-mismatch to go on"
        )
    warnings += [f"compared in spite of other {line}" for line in unlike]
    return {rule: contrast_of(rule, given.report, given.baseline) for rule in regressions}

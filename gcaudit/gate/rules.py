"""Rules of a gate as text: a threshold, a regression against a baseline, or a warning that a report must not have."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal, final

from gcaudit.errors import RequestError, suggest
from gcaudit.metrics import METRICS, Metric, Role, find_metric
from gcaudit.report import WARNINGS

Level = Literal["error", "warn", "off"]
LEVELS: tuple[Level, ...] = ("error", "warn", "off")
Unsure = Literal["pass", "warn", "fail"]
UNSURE: tuple[Unsure, ...] = ("pass", "warn", "fail")
ANY = "any"
"""Stands for every kind of warning."""
EXAMPLE = "'target.probe_accuracy >= 0.6', 'source.cdnv regression <= 5%' or 'warning: shared'"
_LEVEL = r"\s*(?:(?P<level>error|warn|off)\s*:)?\s*"
_NAME = r"(?P<role>source|target)\.(?P<metric>[\w-]+)(?:@(?P<shot>\d+))?"
_NUMBER = r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?P<percent>\s*%)?"
_RULE = re.compile(
    rf"{_LEVEL}{_NAME}\s*(?P<kind>regression)?\s*(?P<sign><=|>=|<|>)\s*{_NUMBER}(?P<pool>\s+given\s+the\s+pool)?\s*", re.IGNORECASE
)
_WARNING = re.compile(rf"{_LEVEL}warning\s*:\s*(?P<kind>[\w-]+)\s*", re.IGNORECASE)
_ALMOST = re.compile(
    r"(?:\w+\s*:)?\s*(?:(?P<role>\w+)\.)?(?P<metric>\w+)(?:@\d+)?\s*(?:regression)?\s*(?P<sign>=<|=>|==?|[<>]=?|!=|)(?P<rest>.*)",
    re.IGNORECASE,
)
"""What is nearly a rule, to say what it lacks."""


@final
@dataclass(frozen=True)
class Rule:
    """A condition on a metric.

    Attributes:
        role: the data set.
        metric: its name in the report.
        shot: the point of the probe's curve, or None.
        regression: against a baseline, or a plain threshold.
        sign: `<=`, `>=`, `<` or `>`.
        limit: the threshold, or the largest allowed regression as a share of the baseline's value.
        level: what a failure means.
        pool: of a mean over episodes, hold the images fixed: judge these images, not others of their kind.
        origin: where it was written, for people; equal rules from two places are one.
    """

    role: Role
    metric: str
    shot: int | None
    regression: bool
    sign: str
    limit: float
    level: Level = "error"
    pool: bool = False
    origin: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """`ROLE.METRIC`, with `@N_SHOT` for a point of the curve."""
        return f"{self.role}.{self.metric}" + (f"@{self.shot}" if self.shot is not None else "")

    @property
    def text(self) -> str:
        """The rule as it may be typed."""
        limit = f"regression <= {100 * self.limit:g}%" if self.regression else f"{self.sign} {self.limit!r}"
        return f"{self.name} {limit}" + (" given the pool" if self.pool else "")

    @property
    def oddity(self) -> str | None:
        """Why a threshold cannot mean what gates are for: it forbids values for being good."""
        direction = find_metric(self.metric).direction
        if self.regression or direction == ("lower" if self.sign[0] == "<" else "higher") or direction == "none":
            return None
        return f"{self.text} forbids what is good: {direction} {self.metric} is better; did you mean {_TURNED[self.sign[0]]}?"


_TURNED = {"<": ">=", ">": "<="}
_ALWAYS = ((0, ">="), (0, "<"), (1, "<="), (1, ">"))
"""Thresholds that every share meets, or none."""


@final
@dataclass(frozen=True)
class WarningRule:
    """A warning that a report must not have.

    Attributes:
        kind: one of `WARNINGS`, or `any` for those that no other rule names.
        level: what a failure means.
        origin: where it was written, for people.
    """

    kind: str
    level: Level = "error"
    origin: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """`warning.KIND`."""
        return f"warning.{self.kind}"

    @property
    def text(self) -> str:
        """The rule as it may be typed."""
        return f"warning: {self.kind}"


def parse_condition(text: str, level: Level = "error", origin: str = "") -> Rule | WarningRule:
    """Read a rule on a metric or on warnings.

    Args:
        text: as for `parse_rule`, or `warning: KIND`.
        level: when the text names none.
        origin: where it was written, for people.

    Returns:
        The rule.

    Raises:
        RequestError: it cannot be read, or names what is unknown.
    """
    match = _WARNING.fullmatch(text)
    if match is None:
        return parse_rule(text, level, origin)
    kind = match["kind"].lower()
    if kind not in WARNINGS and kind != ANY:
        raise RequestError(f"expected 'warning: KIND' of a kind that is known, found {text!r}; {suggest(kind, (ANY, *WARNINGS))}")
    return WarningRule(kind, _level(match["level"], level), origin)


def parse_rule(text: str, level: Level = "error", origin: str = "") -> Rule:
    """Read a rule on a metric.

    Args:
        text: such as `target.probe_accuracy >= 0.6`, `warn: source.gc <= 1e4` or `source.cdnv regression <= 5%`; `given the pool` may
            end a rule on the probe.
        level: when the text names none.
        origin: where it was written, for people.

    Returns:
        The rule.

    Raises:
        RequestError: it cannot be read, or names an unknown metric.
    """
    match = _RULE.fullmatch(text.replace("≤", "<=").replace("≥", ">="))
    if match is None:
        raise RequestError(f"expected a rule such as {EXAMPLE}, found {text!r}{_lacking(text)}")
    role, metric, shot = _named(match, text)
    if match["pool"] and not metric.episodes:
        raise RequestError(f"expected 'given the pool' with probe_accuracy only, found {text!r}")
    regression = match["kind"] is not None
    limit = _limit(match, metric, text)
    if regression and (match["sign"] != "<=" or limit < 0):
        raise RequestError(f"expected 'regression <= SHARE' such as regression <= 2%, found {text!r}")
    if regression and metric.direction == "none":
        raise RequestError(f"expected a metric that has a better side, found {metric.name} in {text!r}; use a threshold")
    return Rule(
        role, metric.name, shot, regression, match["sign"], limit, _level(match["level"], level), bool(match["pool"]), origin
    )


def parse_name(text: str, wanted: str) -> Rule:
    """Read the name of a value.

    Args:
        text: `ROLE.METRIC`, with `@N_SHOT` for a point of the probe's curve.
        wanted: what is expected, for people, such as `--sort`.

    Returns:
        A rule of level `off` that names it.

    Raises:
        RequestError: it cannot be read, or names an unknown metric.
    """
    match = re.fullmatch(_NAME, text.strip(), re.IGNORECASE)
    if match is None:
        raise RequestError(
            f"expected {wanted} such as target.probe_accuracy or source.cdnv, found {text!r}{_without_role(text.partition('@')[0])}"
        )
    role, metric, shot = _named(match, text)
    return Rule(role, metric.name, shot, regression=False, sign=">=", limit=0.0, level="off")


def _named(match: re.Match[str], text: str) -> tuple[Role, Metric, int | None]:
    """Find what a name is of."""
    metric = find_metric(match["metric"])
    if match["shot"] is not None and not metric.has_shots:
        known = " or ".join(metric.name for metric in METRICS if metric.has_shots)
        raise RequestError(f"expected @N_SHOT with {known} only, found {text!r}")
    role: Role = "source" if match["role"].lower() == "source" else "target"
    return role, metric, None if match["shot"] is None else int(match["shot"])


def _lacking(text: str) -> str:
    """Say what text that is no rule lacks, where that can be told."""
    if re.match(rf"{_LEVEL}warnings\s*:", text, re.IGNORECASE):
        return "; did you mean warning: with no s?"
    match = _ALMOST.fullmatch(text.strip())
    if match is None:
        return ""
    if match["role"] is None:
        return _without_role(match["metric"])
    if match["sign"] in ("=", "==", "!=", "=<", "=>"):
        meant = {"=<": "<=", "=>": ">="}.get(match["sign"]) or ("<=" if _is_lower(match["metric"]) else ">=")
        return f"; did you mean {meant} in place of {match['sign']}?"
    return "" if match["sign"] or re.search(r"[\W\d]", match["rest"]) else "; it lacks a limit such as >= 0.6"


def _is_lower(name: str) -> bool:
    try:
        return find_metric(name).direction == "lower"
    except RequestError:
        return False


def _without_role(name: str) -> str:
    """Say which values a metric's bare name may mean."""
    try:
        metric = find_metric(name)
    except RequestError:
        return ""
    return f"; did you mean {' or '.join(f'{role}.{metric.name}' for role in reversed(metric.roles))}?"


def _level(text: str | None, level: Level) -> Level:
    named: dict[str | None, Level] = {"error": "error", "warn": "warn", "off": "off", None: level}
    return named[text.lower() if text else None]


def _limit(match: re.Match[str], metric: Metric, text: str) -> float:
    """Read a rule's number, and refuse one that always says the same."""
    number = float(match["number"]) / (100 if match["percent"] else 1)
    if not math.isfinite(number):
        raise RequestError(f"expected a rule with a number that is finite, found {text!r}, which always says the same")
    if number == 0 and re.search("[1-9]", re.split("[eE]", match["number"])[0]):
        raise RequestError(f"expected a rule with a number that can be told from 0, found {text!r}; write 0")
    if match["kind"] is not None:
        return _share(match, f"'regression <= SHARE' such as regression <= 2% or {2 / 100}", text)
    if metric.unit == "share" and (number, match["sign"]) in _ALWAYS:
        raise RequestError(
            f"expected a limit that {metric.name} can miss, found {text!r}, which always says the same; write one between 0 and 1"
        )
    if metric.unit == "share" and not 0 <= number <= 1:
        reading = (
            f"{match['number']}% is {number / 100:g}" if 1 < number <= 100 and not match["percent"] else "an accuracy is a share"
        )
        raise RequestError(
            f"expected a limit from 0 to 1, or 0% to 100%, for {metric.name}, found {text!r}, which always says the same; {reading}"
        )
    return number


def _share(match: re.Match[str], wanted: str, found: str) -> float:
    """Read a share of a baseline's value; a number of which it is not clear whether it is meant in per cent is refused."""
    number = float(match["number"])
    if match["percent"]:
        if number > 100:
            raise RequestError(f"expected {wanted}, found {found!r}: above 100% hardly anything is a regression; write a threshold")
        return number / 100
    if number >= 1:
        meant = (
            f"{match['number']}% or {100 * number:g}%"
            if number <= 1
            else f"{match['number']}% or {100 * number:g}% (which is refused)"
        )
        raise RequestError(f"expected {wanted}, found {found!r}, which may mean {meant}; write it with %, or as a share below 1")
    return number


def parse_share(text: str | float) -> float:
    """Read `2%` or `0.02`.

    Args:
        text: as typed; a number of 1 or more has to say that it is in per cent.

    Returns:
        The share.

    Raises:
        RequestError: it is no share from 0 to 1, or may be meant in per cent or not.
    """
    match = re.fullmatch(rf"\s*{_NUMBER}\s*", str(text))
    wanted = "--max-regression such as 2% or 0.02"
    if match is None or float(match["number"]) < 0:
        raise RequestError(f"expected {wanted}, found {text!r}")
    return _share(match, wanted, str(text))

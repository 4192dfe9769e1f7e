"""Rules of a gate, as text and in files: YAML, or `[tool.gcaudit.gate]` in pyproject.toml.

max-regression: 2%
when-unsure: pass
rules:
  - target.probe_accuracy >= 0.6
  - rule: source.geometric_collapse <= 1200
    level: warn
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from gcaudit.errors import RequestError, one_line
from gcaudit.files import load_yaml, read_text
from gcaudit.metrics import Role, find_metric

Level = Literal["error", "warn", "off"]
LEVELS: tuple[Level, ...] = ("error", "warn", "off")
UNSURE: tuple[Unsure, ...] = ("pass", "warn", "fail")
Unsure = Literal["pass", "warn", "fail"]
_NAME = r"(?P<role>source|target)\.(?P<metric>[\w-]+)(?:@(?P<shot>\d+))?"
_NUMBER = r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?P<percent>\s*%)?"
_RULE = re.compile(
    rf"\s*(?:(?P<level>error|warn|off)\s*:)?\s*{_NAME}\s*(?P<kind>regression)?\s*(?P<sign><=|>=|<|>)\s*{_NUMBER}(?P<pool>\s+given\s+the\s+pool)?\s*"
)
EXAMPLE = "'target.probe_accuracy >= 0.6' or 'source.cdnv regression <= 5%'"


_KEYS = ("rules", "max-regression", "when-unsure")


@final
@dataclass(frozen=True)
class Rule:
    """One condition.

    Attributes:
        role: the data set.
        metric: its name in the report.
        shot: the point of the probe's curve, or None.
        regression: against a baseline, or a plain threshold.
        sign: `<=`, `>=`, `<` or `>`.
        limit: the threshold, or the largest allowed regression as a share of the baseline's value.
        level: what a failure means.
        pool: of a mean over episodes, hold the images fixed: judge these images, not others of their kind.
    """

    role: Role
    metric: str
    shot: int | None
    regression: bool
    sign: str
    limit: float
    level: Level = "error"
    pool: bool = False

    @property
    def name(self) -> str:
        """`ROLE.METRIC`, with `@N_SHOT` for a point of the curve."""
        return f"{self.role}.{self.metric}" + (f"@{self.shot}" if self.shot is not None else "")

    @property
    def text(self) -> str:
        """The rule as it may be typed."""
        limit = f"regression <= {100 * self.limit:g}%" if self.regression else f"{self.sign} {self.limit!r}"
        return f"{self.name} {limit}" + (" given the pool" if self.pool else "")


def parse_rule(text: str, level: Level = "error") -> Rule:
    """Read a rule.

    Args:
        text: such as `target.probe_accuracy >= 0.6`, `warn: source.gc <= 1e4` or `source.cdnv regression <= 5%`; `given the pool` may
            end a rule on the probe.
        level: when the text names none.

    Returns:
        The rule.

    Raises:
        RequestError: it cannot be read, or names an unknown metric.
    """
    match = _RULE.fullmatch(text)
    if match is None:
        raise RequestError(f"expected a rule such as {EXAMPLE}, found {text!r}")
    metric = find_metric(match["metric"])
    if match["shot"] is not None and not metric.episodes:
        raise RequestError(f"expected @N_SHOT with probe_accuracy only, found {text!r}")
    if match["pool"] and not metric.episodes:
        raise RequestError(f"expected 'given the pool' with probe_accuracy only, found {text!r}")
    number = float(match["number"]) / (100 if match["percent"] else 1)
    if not math.isfinite(number):
        raise RequestError(f"expected a rule with a number that is finite, found {text!r}, which always says the same")
    regression = match["kind"] is not None
    if regression and (match["sign"] != "<=" or number < 0):
        raise RequestError(f"expected 'regression <= SHARE' such as regression <= 2%, found {text!r}")
    if regression and metric.direction == "none":
        raise RequestError(f"expected a metric that has a better side, found {metric.name} in {text!r}; use a threshold")
    shot = None if match["shot"] is None else int(match["shot"])
    role: Role = "source" if match["role"] == "source" else "target"
    chosen = {"error": "error", "warn": "warn", "off": "off", None: level}[match["level"]]
    return Rule(role, metric.name, shot, regression, match["sign"], number, chosen, match["pool"] is not None)


def parse_share(text: str | float) -> float:
    """Read `2%` or `0.02`.

    Args:
        text: as typed.

    Returns:
        The share.

    Raises:
        RequestError: it is no share of at least 0.
    """
    match = re.fullmatch(rf"\s*{_NUMBER}\s*", str(text))
    share = float(match["number"]) / (100 if match["percent"] else 1) if match else -1.0
    if share < 0:
        raise RequestError(f"expected --max-regression such as 2% or 0.02, found {text!r}")
    return share


@final
@dataclass(frozen=True)
class RuleFile:
    """What a file asks for.

    Attributes:
        rules: in the file's order.
        max_regression: share, or None.
        when_unsure: `pass`, `warn` or `fail`, or None.
    """

    rules: tuple[Rule, ...] = ()
    max_regression: float | None = None
    when_unsure: str | None = None


_MOST_BYTES = 2**20


def _load(path: Path) -> Any:
    try:
        text = read_text(path, _MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"expected rules at {path}: {getattr(error, 'strerror', None) or 'not text'}; check the path") from None
    try:
        if path.suffix == ".toml":
            return tomllib.loads(text).get("tool", {}).get("gcaudit", {}).get("gate")
        return load_yaml(text)
    except (RecursionError, ValueError) as error:
        kind = "TOML" if path.suffix == ".toml" else "YAML"
        raise RequestError(f"{path}: expected {kind}: {one_line(error)}") from None


def _rule(entry: Any, path: Path) -> Rule:
    if isinstance(entry, str):
        return parse_rule(entry)
    if isinstance(entry, Mapping) and len(entry) == 1 and next(iter(entry)) in (*LEVELS, False):
        # YAML takes 'warn: source.gc <= 1' for a mapping, and a bare off for false
        ((level, text),) = entry.items()
        return parse_rule(f"{level or 'off'}: {text}")
    if isinstance(entry, Mapping) and isinstance(entry.get("rule"), str) and set(entry) <= {"rule", "level"}:
        # YAML reads a bare off as false
        level = "off" if entry.get("level") is False else entry.get("level", "error")
        if level in LEVELS:
            return parse_rule(entry["rule"], level)
        raise RequestError(f"{path}: expected a level of {', '.join(LEVELS)}, found {level!r}")
    raise RequestError(f"{path}: expected a rule as text, or 'rule' and 'level'; found {entry!r}")


def read_rules(path: Path) -> RuleFile:
    """Read rules from a file.

    Args:
        path: YAML, or a pyproject.toml.

    Returns:
        What it asks for.

    Raises:
        RequestError: no such file, or not in the form above.
    """
    content = _load(path)
    if content is None and path.suffix == ".toml":
        raise RequestError(f"{path}: expected a table [tool.gcaudit.gate], found none")
    if isinstance(content, list):
        content = {"rules": content}
    if not isinstance(content, Mapping):
        raise RequestError(f"{path}: expected the keys {', '.join(_KEYS)}, found {type(content).__name__}")
    given = {str(key).replace("_", "-"): value for key, value in content.items()}
    unknown = [key for key in given if key not in _KEYS]
    if unknown:
        raise RequestError(f"{path}: expected the keys {', '.join(_KEYS)}, found {unknown[0]!r}")
    entries = given.get("rules") or []
    if not isinstance(entries, list):
        raise RequestError(f"{path}: expected 'rules' to be a list, found {type(entries).__name__}")
    unsure = given.get("when-unsure")
    if unsure is not None and unsure not in UNSURE:
        raise RequestError(f"{path}: expected when-unsure of {', '.join(UNSURE)}, found {unsure!r}")
    share = given.get("max-regression")
    return RuleFile(tuple(_rule(entry, path) for entry in entries), None if share is None else parse_share(share), unsure)


def project_rules(folder: Path) -> RuleFile:
    """Read `[tool.gcaudit.gate]` of the project in a folder.

    Args:
        folder: where pyproject.toml may lie.

    Returns:
        What it asks for; nothing when there is no such table.
    """
    path = folder / "pyproject.toml"
    return read_rules(path) if path.is_file() and _load(path) is not None else RuleFile()

"""Files of rules: YAML, or `[tool.gcaudit.gate]` in pyproject.toml.

max-regression: 2%
when-unsure: pass
no-warnings: true
rules:
  - target.probe_accuracy >= 0.6
  - warning: shared
  - rule: source.geometric_collapse <= 1200
    level: warn
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from gcaudit.errors import RequestError, one_line
from gcaudit.files import read_text, toml_table
from gcaudit.gate.rules import LEVELS, UNSURE, Rule, WarningRule, parse_condition, parse_share

_KEYS = ("rules", "max-regression", "when-unsure", "no-warnings")
PROJECT = Path("pyproject.toml")


@final
@dataclass(frozen=True)
class RuleFile:
    """What a file asks for.

    Attributes:
        rules: in the file's order.
        max_regression: share, or None.
        when_unsure: `pass`, `warn` or `fail`, or None.
        no_warnings: forbid every warning.
        origin: where it lies, for people.
    """

    rules: tuple[Rule | WarningRule, ...] = ()
    max_regression: float | None = None
    when_unsure: str | None = None
    no_warnings: bool = False
    origin: str = ""


_MOST_BYTES = 2**20


def _load(path: Path) -> Any:
    try:
        text = read_text(path, _MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"expected rules at {path}: {getattr(error, 'strerror', None) or 'not text'}; check the path") from None
    try:
        if path.suffix == ".toml":
            return toml_table(text, ("tool", "gcaudit", "gate"))
        from gcaudit.files import load_yaml

        return load_yaml(text)
    except ValueError as error:
        kind = "TOML" if path.suffix == ".toml" else "YAML"
        raise RequestError(f"{path}: expected {kind}: {one_line(error)}") from None


def _rule(entry: Any, path: Path) -> Rule | WarningRule:
    if isinstance(entry, str):
        return parse_condition(entry, origin=str(path))
    if isinstance(entry, Mapping) and len(entry) == 1 and next(iter(entry)) in (*LEVELS, False, "warning"):
        # YAML takes 'warn: source.gc <= 1' for a mapping, and a bare off for false
        ((word, text),) = entry.items()
        return parse_condition(f"{word or 'off'}: {_nested(text)}", origin=str(path))
    if isinstance(entry, Mapping) and set(entry) <= {"rule", "level"} and "rule" in entry:
        # YAML reads a bare off as false
        level = "off" if entry.get("level") is False else entry.get("level", "error")
        if level not in LEVELS:
            raise RequestError(f"{path}: expected a level of {', '.join(LEVELS)}, found {level!r}")
        return parse_condition(_nested(entry["rule"]), level, str(path))
    raise RequestError(f"{path}: expected a rule as text, or 'rule' and 'level'; found {entry!r}")


def _nested(text: Any) -> str:
    """Write `warning: shared` as text again, which YAML takes for a mapping."""
    if isinstance(text, Mapping) and list(text) == ["warning"]:
        return f"warning: {text['warning']}"
    return str(text)


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
    return _file(path, content)


def _file(path: Path, content: Any) -> RuleFile:
    if isinstance(content, list):
        content = {"rules": content}
    if not isinstance(content, Mapping):
        raise RequestError(f"{path}: expected the keys {', '.join(_KEYS)}, found {type(content).__name__}")
    given = {str(key).replace("_", "-"): value for key, value in content.items()}
    if len(given) != len(content):
        raise RequestError(f"{path}: expected each key once, found one with - and with _; remove one")
    unknown = [key for key in given if key not in _KEYS]
    if unknown:
        raise RequestError(f"{path}: expected the keys {', '.join(_KEYS)}, found {unknown[0]!r}")
    entries = given.get("rules") or []
    if not isinstance(entries, list):
        raise RequestError(f"{path}: expected 'rules' to be a list, found {type(entries).__name__}")
    unsure = given.get("when-unsure")
    if unsure is not None and unsure not in UNSURE:
        raise RequestError(f"{path}: expected when-unsure of {', '.join(UNSURE)}, found {unsure!r}")
    quiet = given.get("no-warnings", False)
    if not isinstance(quiet, bool):
        raise RequestError(f"{path}: expected no-warnings of true or false, found {quiet!r}")
    share = given.get("max-regression")
    try:
        rules, most = tuple(_rule(entry, path) for entry in entries), None if share is None else parse_share(share)
    except RequestError as error:
        raise RequestError(str(error) if str(error).startswith(f"{path}: ") else f"{path}: {error}") from None
    return RuleFile(rules, most, unsure, quiet, str(path))


def project_rules(folder: Path) -> RuleFile:
    """Read `[tool.gcaudit.gate]` of the project in a folder.

    Args:
        folder: where pyproject.toml may lie.

    Returns:
        What it asks for; nothing when there is no such table.
    """
    path = folder / PROJECT
    content = _load(path) if path.is_file() else None
    return RuleFile() if content is None else _file(path, content)

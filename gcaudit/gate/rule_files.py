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
from typing import TYPE_CHECKING, Any, final

from gcaudit.errors import RequestError, suggest
from gcaudit.gate.rules import LEVELS, UNSURE, Rule, WarningRule, parse_condition, parse_share

if TYPE_CHECKING:
    from gcaudit.files import LinedText

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


def _rule(entry: Any, origin: str) -> Rule | WarningRule:
    if isinstance(entry, str):
        return parse_condition(entry, origin=origin)
    if isinstance(entry, Mapping) and len(entry) == 1 and _folded(next(iter(entry))) in (*LEVELS, False, "warning"):
        # YAML takes 'warn: source.gc <= 1' for a mapping, and a bare off for false
        ((word, text),) = entry.items()
        return parse_condition(f"{word or 'off'}: {_nested(text)}", origin=origin)
    if isinstance(entry, Mapping) and set(entry) <= {"rule", "level"} and "rule" in entry:
        # YAML reads a bare off as false
        level = "off" if entry.get("level") is False else _folded(entry.get("level", "error"))
        if level not in LEVELS:
            raise RequestError(f"expected a level of {', '.join(LEVELS)}, found {level!r}")
        return parse_condition(_nested(entry["rule"]), level, origin)
    raise RequestError(f"expected a rule as text, or 'rule' and 'level'; found {entry!r}")


def _folded(word: Any) -> Any:
    return word.casefold() if isinstance(word, str) else word


def _nested(text: Any) -> str:
    """Write `warning: shared` as text again, which YAML takes for a mapping."""
    if isinstance(text, Mapping) and list(text) == ["warning"]:
        return f"warning: {text['warning']}"
    return str(text)


def read_rules(path: Path) -> RuleFile:
    """Read rules from a file.

    Args:
        path: YAML, or TOML with a table `[tool.gcaudit.gate]`.

    Returns:
        What it asks for.

    Raises:
        RequestError: no such file, or not in the form above; the message names the line.
    """
    from gcaudit.files import LinedText  # here, since it needs PyYAML

    text = LinedText(path, "rules", "gate")
    if text.content is None:
        text.fail((), "expected a table [tool.gcaudit.gate], found none")
    return _file(text)


def project_rules(folder: Path) -> RuleFile:
    """Read `[tool.gcaudit.gate]` of the project in a folder.

    Args:
        folder: where pyproject.toml may lie.

    Returns:
        What it asks for; nothing when there is no such table.
    """
    path = folder / PROJECT
    if not path.is_file():
        return RuleFile()
    from gcaudit.files import LinedText  # here, since it needs PyYAML

    text = LinedText(path, "rules", "gate")
    return RuleFile() if text.content is None else _file(text)


def _file(text: LinedText) -> RuleFile:
    content = {"rules": text.content} if isinstance(text.content, list) else text.content
    listed = () if content is not text.content else ("rules",)
    if not isinstance(content, Mapping):
        text.fail((), f"expected the keys {', '.join(_KEYS)}, found {type(content).__name__}")
    for key in content:
        if key not in _KEYS:
            text.fail((key,), f"expected the keys {', '.join(_KEYS)}, found {text.typed((key,))!r}; {suggest(str(key), _KEYS)}")
    entries = content.get("rules")
    if not isinstance(entries, list | None):
        text.fail(("rules",), f"expected 'rules' to be a list, found {type(entries).__name__}")
    unsure = content.get("when-unsure")
    if unsure is not None and unsure not in UNSURE:
        text.fail(("when-unsure",), f"expected when-unsure of {', '.join(UNSURE)}, found {unsure!r}")
    quiet = content.get("no-warnings", False)
    if not isinstance(quiet, bool):
        text.fail(("no-warnings",), f"expected no-warnings of true or false, found {quiet!r}")
    share: Any = content.get("max-regression")
    place: tuple[Any, ...] = ("max-regression",)
    rules = []
    try:
        most = None if share is None else parse_share(share)
        for number, entry in enumerate(entries or []):
            place = (*listed, number)
            rules.append(_rule(entry, str(text.path)))
    except RequestError as error:
        text.fail(place, str(error))
    return RuleFile(tuple(rules), most, unsure, quiet, str(text.path))

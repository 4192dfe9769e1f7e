"""YAML and TOML of unknown origin as plain values, with the line of each part, so that a complaint can name it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NoReturn, final

import yaml

from gcaudit.errors import RequestError, one_line, suggest
from gcaudit.files.opening import read_text

PROJECT_TABLES = ("score", "gate")
"""What a project can say under `[tool.gcaudit]`."""
_MOST_BYTES, _MOST_NODES, _MOST_LEVELS = 2**20, 100_000, 50
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map")}


def dashes(name: str) -> str:
    """Write a name as on the command line.

    Args:
        name: with underscores.

    Returns:
        With dashes.
    """
    return name.replace("_", "-")


@final
class LinedText:
    """A YAML or TOML file's content with the line of each part.

    Attributes:
        path: of the file.
        content: plain data, keys that are names with - for _; None for a TOML file without the table.
        lines: line of each part, by its path of keys and numbers.
    """

    def __init__(self, path: Path, what: str, table: str | None = None) -> None:
        """Read the file.

        Args:
            path: of the file.
            what: it should hold, for people: `models`, `options` or `rules`.
            table: which of `PROJECT_TABLES` is wanted, of a TOML file; None where it is no TOML.

        Raises:
            RequestError: it cannot be read, is neither YAML nor TOML as its suffix says, or too large.
        """
        self.path = path
        self.lines: dict[tuple[Hashable, ...], int] = {}
        self._typed: dict[tuple[Hashable, ...], str] = {}
        self._nodes = 0
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise RequestError(f"{path}: expected a file of {what} of at most 1 MiB, found {path.stat().st_size} bytes")
            text = read_text(path, _MOST_BYTES)
            if table and path.suffix.lower() == ".toml":
                self.content = self._toml(text, table)
                return
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except RecursionError:
            raise RequestError(f"{path}: expected at most {_MOST_LEVELS} levels, found more") from None
        except (OSError, UnicodeDecodeError) as error:
            problem = getattr(error, "strerror", None) or "not text"
            raise RequestError(f"expected a file of {what} at {path}: {problem}; check the path") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            # for a character that YAML does not allow there is a position only
            line = mark.line + 1 if mark is not None else text.count("\n", 0, getattr(error, "position", 0)) + 1
            problem = getattr(error, "problem", None) or getattr(error, "reason", None)
            raise RequestError(f"{path}, line {line}: expected YAML: {problem or one_line(error)}") from None
        self.lines[()] = 1
        self.content = {} if node is None else self._plain(node, ())

    def fail(self, place: Sequence[Hashable], text: str) -> NoReturn:
        """Complain about a part.

        Args:
            place: path of keys and numbers.
            text: what was expected and found.
        """
        known = tuple(place)
        while known and known not in self.lines:
            known = known[:-1]
        line = f", line {self.lines[known]}" if known in self.lines else ""
        raise RequestError(f"{self.path}{line}: {text}")

    def typed(self, place: tuple[Hashable, ...]) -> str:
        """Say how a key was written.

        Args:
            place: its path.
        """
        return self._typed.get(place, str(place[-1]))

    def rename(self, old: tuple[Hashable, ...], new: tuple[Hashable, ...]) -> None:
        """Let lines of a part be found at another path.

        Args:
            old: path of the part.
            new: path it goes to.
        """
        for place, line in list(self.lines.items()):
            if place[: len(old)] == old:
                self.lines[new + place[len(old) :]] = line

    def _toml(self, text: str, table: str) -> Any:
        """Read one table of TOML, whose keys and listed texts are found again by the lines that they stand in."""
        try:
            found: Any = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{self.path}: expected TOML: {one_line(error)}") from None
        self._check_place(found)
        for name in ("tool", "gcaudit"):
            found = found.get(name) if isinstance(found, dict) else None
        if not isinstance(found, dict):
            return None
        unknown = next((name for name in found if name not in PROJECT_TABLES), None)
        if unknown is not None:
            self._find_lines(text, "")
            known = " and ".join(f"[tool.gcaudit.{name}]" for name in PROJECT_TABLES)
            self.fail(
                (dashes(unknown),),
                f"expected {known} alone under [tool.gcaudit], found {unknown!r}; {suggest(unknown, PROJECT_TABLES)}",
            )
        self._find_lines(text, table)
        found = found.get(table)
        if not isinstance(found, dict):
            return found
        self._find_entries(text, found)
        self._typed = {(dashes(key),): key for key in found}
        if len(self._typed) < len(found):
            self.fail((), "expected each key once, found one with - and with _; remove one")
        return {dashes(key): value for key, value in found.items()}

    def _check_place(self, content: dict[str, Any]) -> None:
        """Refuse a table that is meant for gcaudit and would be passed over."""
        tools = [(f"{name}.", content[name]) for name in ("tool", "tools") if isinstance(content.get(name), dict)]
        for before, table in [("", content), *tools]:
            for key in table:
                if re.sub(r"[\W_]", "", key).casefold() == "gcaudit" and f"{before}{key}" != "tool.gcaudit":
                    self.fail((), f"expected tables of [tool.gcaudit], found [{before}{key}]; rename it")

    def _find_lines(self, text: str, table: str) -> None:
        """Find the line of a table under `[tool.gcaudit]`, and of each key in it; without a name, of what stands under it itself."""
        header = f"tool.gcaudit.{table}".rstrip(".")
        inside = False
        for number, line in enumerate(text.splitlines(), start=1):
            bare = line.partition("#")[0].strip()
            if bare.startswith("[") and bare.endswith("]") and "=" not in bare:
                name = bare.strip("[]").replace(" ", "")
                inside = name == header
                if inside:
                    self.lines[()] = number
                elif not table and name.startswith(f"{header}."):
                    self.lines.setdefault((dashes(name.split(".")[2]),), number)
            elif inside and (match := re.match(r"\s*[\"']?([\w-]+)[\"']?\s*[=.]", line)):
                self.lines.setdefault((dashes(match[1]),), number)

    def _find_entries(self, text: str, found: dict[str, Any]) -> None:
        """Find the line of each text in a list."""
        lines = text.splitlines()
        for key, value in found.items():
            number = self.lines.get((dashes(key),))
            for place, entry in enumerate(value if isinstance(value, list) and number is not None else ()):
                quoted = [f"{sign}{entry}{sign}" for sign in "\"'"]
                at = next((n for n in range(number or 0, len(lines) + 1) if any(one in lines[n - 1] for one in quoted)), None)
                if at is not None and isinstance(entry, str):
                    self.lines[dashes(key), place] = number = at

    def _plain(self, node: Any, place: tuple[Hashable, ...]) -> Any:
        self._nodes += 1
        self.lines.setdefault(place, node.start_mark.line + 1)
        if self._nodes > _MOST_NODES:
            self.fail(place, f"expected at most {_MOST_NODES} parts, found more (aliases count each time)")
        if len(place) > _MOST_LEVELS:
            self.fail(place, f"expected at most {_MOST_LEVELS} levels, found more")
        if node.tag not in _PLAIN:
            self.fail(place, f"expected plain YAML, found the tag {node.tag!r}; leave it out")
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(part, (*place, number)) for number, part in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        found: dict[Any, Any] = {}
        for key_node, value in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.lines[*place, "?"] = line
                self.fail((*place, "?"), f"expected a key, found a {key_node.id}")
            key = self._scalar(key_node, place)
            name = dashes(key) if isinstance(key, str) and place[-1:] != ("arch-args",) else key
            self.lines[*place, name] = line
            self._typed[*place, name] = str(key)
            if name in found:
                self.fail((*place, name), f"expected each key once, found {name!r} again")
            found[name] = self._plain(value, (*place, name))
        return found

    def _scalar(self, node: Any, place: tuple[Hashable, ...]) -> Any:
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (yaml.YAMLError, ValueError, LookupError, AttributeError):  # !!int '' and the like
            kind = node.tag.rpartition(":")[2]
            self.fail((*place, "?"), f"expected a plain value, found {node.value[:40]!r} where YAML wants {kind}")

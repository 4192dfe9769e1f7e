"""The form of a YAML file of models, and its text with the line of each part."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, final

import yaml
from pydantic import (
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    conlist,
    create_model,
    model_validator,
)

from gcaudit.audit import OPTIONS, Kind, Option, options_under, read_value
from gcaudit.errors import RequestError, one_line
from gcaudit.files import read_text, toml_table

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


def as_list(value: Any) -> Any:
    """Make a list of a single value.

    Args:
        value: one, or a list.

    Returns:
        A list.
    """
    return value if isinstance(value, list) else [value]


class Entry(BaseModel):
    """Part of the file: keys may be written with - or _, unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=AliasGenerator(validation_alias=dashes))


def as_number(value: Any) -> Any:
    """Read 1e-3, which YAML takes for text.

    Args:
        value: as YAML read it.

    Returns:
        A number where it is one.
    """
    return float(value) if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value) else value


def _as_text(value: Any) -> Any:
    """Let one class number stand for its text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_Number = Annotated[float, BeforeValidator(as_number)]
_Text = Annotated[StrictStr, Field(min_length=1)]


_VALUES: dict[Kind, Any] = {
    "text": StrictStr,
    "flag": bool,
    "whole": StrictInt,
    "number": _Number,
    "wholes": list[StrictInt],
    "numbers": list[_Number],
    "names": list[StrictStr],
    "classes": Annotated[StrictStr, BeforeValidator(_as_text)],
    "size": Annotated[list[StrictInt], Field(min_length=1, max_length=2)],
    "pairs": dict[str, Any],
}
_LISTS = ("wholes", "numbers", "names", "size")


def _value_of(option: Option) -> Any:
    """Make the type of an option's value; text is read as on the command line, where it can be."""

    def read(value: Any) -> Any:
        if option.kind in _LISTS and not isinstance(value, str):
            value = as_list(value)
        if option.kind == "size" or (isinstance(value, str) and option.kind in (*_LISTS, "whole")):
            with contextlib.suppress(RequestError):
                value = read_value(option, value)
        return list(value) if isinstance(value, tuple) else value

    return Annotated[_VALUES[option.kind] | None, BeforeValidator(read)]


def _fields(options: Iterable[Option], prefix: str = "") -> dict[str, Any]:
    """Make fields of options, none of which has to be given."""
    return {option.name.removeprefix(prefix): (_value_of(option), Field(None, description=option.text)) for option in options}


class NamedModel(Entry):
    """A model, without its options; a bare text stands for it."""

    model: _Text
    name: _Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _name(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value


class NamedData(Entry):
    """A data set, without its options; a bare text stands for it."""

    data: _Text
    name: _Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _name(cls, value: Any) -> Any:
        return {"data": value} if isinstance(value, str) else value


_ELSEWHERE = (*options_under("model"), *options_under("source"), *options_under("target"))
_SETTINGS = [option for option in OPTIONS if option not in _ELSEWHERE]
ModelEntry = create_model("ModelEntry", __base__=NamedModel, **_fields(options_under("model")))
DataEntry = create_model("DataEntry", __base__=NamedData, **_fields(options_under("source"), "source_"))
SettingsEntry = create_model("SettingsEntry", __base__=Entry, **_fields(_SETTINGS))
"""Settings of all audits: options that belong neither to one model nor to one data set."""
ScoreEntry = create_model(
    "ScoreEntry", __base__=Entry, source=(_Text | None, None), target=(_Text | None, None), **_fields(OPTIONS)
)
"""Options of `gcaudit score` as a file."""


_DATA_LIST: Any = conlist(DataEntry, min_length=1) | None
FileEntry = create_model(
    "FileEntry",
    __base__=Entry,
    models=(conlist(ModelEntry, min_length=1), ...),
    sources=(_DATA_LIST, None),
    targets=(_DATA_LIST, None),
    settings=(SettingsEntry, SettingsEntry()),
)
"""The whole file."""


@final
class ZooText:
    """A YAML or TOML file's content with the line of each part.

    Attributes:
        path: of the file.
        content: plain data; None for a TOML file without the table.
        lines: line of each part, by its path of keys and numbers.
    """

    def __init__(self, path: Path, table: tuple[str, ...] = ()) -> None:
        """Read the file.

        Args:
            path: of the file.
            table: the names of the table that is wanted, of a TOML file.

        Raises:
            RequestError: it cannot be read, is neither YAML nor TOML as its suffix says, or too large.
        """
        what = "options" if table else "models"
        self.path = path
        self.lines: dict[tuple[Hashable, ...], int] = {(): 1}
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
        self.content = {} if node is None else self._plain(node, ())

    def fail(self, place: Sequence[Hashable], text: str) -> NoReturn:
        """Complain about a part.

        Args:
            place: path of keys and numbers.
            text: what was expected and found.
        """
        known = tuple(place)
        while known not in self.lines:
            known = known[:-1]
        raise RequestError(f"{self.path}, line {self.lines[known]}: {text}")

    def rename(self, old: tuple[Hashable, ...], new: tuple[Hashable, ...]) -> None:
        """Let lines of a part be found at another path.

        Args:
            old: path of the part.
            new: path it goes to.
        """
        for place, line in list(self.lines.items()):
            if place[: len(old)] == old:
                self.lines[new + place[len(old) :]] = line

    def _toml(self, text: str, table: tuple[str, ...]) -> Any:
        """Read one table of TOML, whose keys are found again by the lines that they begin."""
        try:
            found = toml_table(text, table)
        except ValueError as error:
            raise RequestError(f"{self.path}: expected TOML: {one_line(error)}") from None
        inside = False
        for number, line in enumerate(text.splitlines(), start=1):
            if line.lstrip().startswith("["):
                inside = line.strip().strip("[]").replace(" ", "") == ".".join(table)
                self.lines[()] = number if inside else self.lines[()]
            elif inside and (match := re.match(r"\s*[\"']?([\w-]+)[\"']?\s*=", line)):
                self.lines[(dashes(match[1]),)] = number
        return {dashes(key): value for key, value in found.items()} if isinstance(found, dict) else found

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

"""The form of a YAML file of models, and of one of options."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Annotated, Any

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
from gcaudit.errors import RequestError
from gcaudit.files import dashes


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

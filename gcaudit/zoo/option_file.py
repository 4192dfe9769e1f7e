"""Options of `gcaudit score` as a file: YAML, or `[tool.gcaudit.score]` in a TOML file such as pyproject.toml.

    source: cifar100
    target: photos/
    n-shot: [1, 5]
    max-images: 2000

Keys are the options' names, written with - or _; paths are relative to the file. Every complaint names file and line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from pydantic import ValidationError

from gcaudit.audit import expand_shorthands
from gcaudit.files import LinedText, dashes
from gcaudit.zoo.names import beside
from gcaudit.zoo.zoo import check_fields, explain, given_fields, own_code
from gcaudit.zoo.zoo_text import ScoreEntry

PROJECT = Path("pyproject.toml")


@final
@dataclass(frozen=True)
class OptionFile:
    """What a file asks for.

    Attributes:
        options: by their flat names, with `source` and `target`; shorthands stand for what they are short for.
        origin: the file, for people; empty for none.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""

    @property
    def told(self) -> str:
        """One line on what it says."""
        return f"options of {self.origin}: {', '.join(map(dashes, self.options))}"


def read_option_file(path: Path) -> OptionFile:
    """Read options.

    Args:
        path: YAML, or TOML with a table `[tool.gcaudit.score]`.

    Returns:
        What it asks for.

    Raises:
        RequestError: it cannot be read, or something in it is wrong; the message names the line.
    """
    text = LinedText(path, "options", "score")
    if text.content is None:
        text.fail((), "expected a table [tool.gcaudit.score], found none")
    return _options(text)


def project_options(folder: Path) -> OptionFile:
    """Read `[tool.gcaudit.score]` of the project in a folder.

    Args:
        folder: where pyproject.toml may lie.

    Returns:
        What it asks for; nothing when there is no such table.

    Raises:
        RequestError: the table is wrong.
    """
    path = folder / PROJECT
    if not path.is_file():
        return OptionFile()
    text = LinedText(path, "options", "score")
    return OptionFile() if text.content is None else _options(text)


def _options(text: LinedText) -> OptionFile:
    if not isinstance(text.content, dict):
        text.fail((), f"expected options such as n-shot: 5, found {type(text.content).__name__}")
    for key, value in text.content.items():
        if value is None:
            text.fail((key,), f"expected a value for {str(key)!r}, found none; leave the key out for the default")
    try:
        entry: Any = ScoreEntry.model_validate(text.content)
    except ValidationError as error:
        explain(text, error)
    found = given_fields(entry)
    for name, value in found.items():
        if name not in ("source", "target"):
            check_fields(text, (dashes(name),), {name: value})
    folder = text.path.parent
    for role in ("source", "target"):
        if role in found:
            found[role] = beside(folder, found[role], data=True)
    if "arch" in found:
        found["arch"] = own_code(folder, found["arch"])
    if "data_root" in found:
        found["data_root"] = beside(folder, found["data_root"])
    return OptionFile(expand_shorthands(found), str(text.path))

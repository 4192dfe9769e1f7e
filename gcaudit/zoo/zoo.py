"""A model zoo as a YAML file: models with their options, sources, targets and settings.

    models:
      - timm:resnet*
      - {model: weights/a.pt, name: A, arch: nets.py:make, mean: [0.5, 0.5, 0.5]}
    sources: [{data: cifar10, split: test, max-images: 2000}]
    targets: [cifar-fs, photos/]
    settings: {metrics: all, n-shot: [1, 5]}

Keys may be written with - or _, paths are relative to the file. Every complaint names file and line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, final

from pydantic import ValidationError

from gcaudit.audit import AuditSpec
from gcaudit.errors import GcauditError, RequestError, suggest
from gcaudit.files import LinedText, dashes
from gcaudit.metrics import Role
from gcaudit.zoo.names import beside, data_title, is_pattern, resolve_models, titles
from gcaudit.zoo.zoo_text import (
    DataEntry,
    Entry,
    FileEntry,
    ModelEntry,
    NamedData,
    NamedModel,
    ScoreEntry,
    SettingsEntry,
)

_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "some text",
    "list_type": "a list",
    "dict_type": "keys with values",
    "model_type": "text, or keys with values",
    "too_short": "at least 1 item",
    "too_long": "at most 2 items",
    "invalid_key": "keys that are text",
}


@final
@dataclasses.dataclass(frozen=True)
class ZooModel:
    """A model to compare.

    Attributes:
        name: for tables.
        fields: arguments of `AuditSpec.from_options`: `model` and how it is read.
    """

    name: str
    fields: Mapping[str, Any]


@final
@dataclasses.dataclass(frozen=True)
class ZooData:
    """A data set to compare on.

    Attributes:
        name: for tables.
        spec: as for `gcaudit score`.
        split: or None for the default.
        classes: such as `0-9,12`, or None for all.
        max_images: class-balanced draw, or None for all.
    """

    name: str
    spec: str
    split: str | None = None
    classes: str | None = None
    max_images: int | None = None

    def fields(self, role: Role) -> dict[str, Any]:
        """Return arguments of `AuditSpec.from_options`.

        Args:
            role: in which it is used.
        """
        further = {"split": self.split, "classes": self.classes, "max_images": self.max_images}
        return {role: self.spec} | {f"{role}_{key}": value for key, value in further.items() if value is not None}


@final
@dataclasses.dataclass(frozen=True)
class Zoo:
    """What a YAML file asks for.

    Attributes:
        models: globs are resolved.
        sources: at least one, unless they are typed.
        targets: perhaps none.
        settings: further options of all audits.
    """

    models: tuple[ZooModel, ...]
    sources: tuple[ZooData, ...]
    targets: tuple[ZooData, ...]
    settings: Mapping[str, Any]


def read_zoo(path: Path) -> Zoo:
    """Read a file of models.

    Args:
        path: YAML, see the module's description.

    Returns:
        What it asks for.

    Raises:
        RequestError: it cannot be read, or something in it is wrong; the message names the line.
    """
    text = LinedText(path, "models")
    _shape(text)
    try:
        file: Any = FileEntry.model_validate(text.content)
    except ValidationError as error:
        explain(text, error)
    fields = given_fields(file.settings)
    for name, value in fields.items():
        check_fields(text, ("settings", dashes(name)), {name: value})
    models = _models(text, file.models)
    data = {}
    for key, entries in (("sources", file.sources), ("targets", file.targets)):
        data[key] = tuple(_data(text.path.parent, entry) for entry in entries or ())
        role: Role = "source" if key == "sources" else "target"
        for number, entry in enumerate(data[key]):
            check_fields(text, (key, number), entry.fields(role))
        names = [entry.name for entry in data[key]]
        for number, name in enumerate(names):
            if name in names[:number]:
                text.fail((key, number), f"expected names that differ, found {name!r} twice; add name: ... to one of them")
    return Zoo(models, data["sources"], data["targets"], fields)


def _shape(text: LinedText) -> None:
    """Bring short forms into the long one, and say where misplaced keys belong."""
    content = text.content
    if not isinstance(content, dict):
        text.fail((), f"expected the keys models, sources, targets and settings, found {type(content).__name__}")
    for one, many in (("source", "sources"), ("target", "targets")):
        if one in content and many in content:
            text.fail((one,), f"expected one of {one} and {many}, found both")
        if one in content:
            content[many] = content.pop(one)
            text.rename((one,), (many,))
        if many in content and not isinstance(content[many], list):
            content[many] = [content[many]]
            text.rename((many,), (many, 0))
    if content.get("settings", {}) is None:  # a key with nothing below it
        content["settings"] = {}
    if isinstance(content.get("settings"), dict):
        _shape_settings(text, content["settings"])


def _shape_settings(text: LinedText, settings: dict[Any, Any]) -> None:
    for key, value in settings.items():
        if value is None:
            text.fail(("settings", key), f"expected a value for {str(key)!r}, found none; leave the key out for the default")
    of_models = [dashes(name) for name in ModelEntry.model_fields]
    for key in map(str, settings):
        if key in of_models:
            text.fail(
                ("settings", key), f"expected settings of all audits, found {key!r}, which belongs under models, with a model"
            )
        if key != "target-gc" and key.startswith(("source", "target")):
            text.fail(("settings", key), f"expected settings of all audits, found {key!r}, which belongs under sources or targets")


def given_fields(entry: Entry) -> dict[str, Any]:
    """Return the fields that a file gives, always in one order, so that of two errors the same is told.

    Args:
        entry: of the file.

    Returns:
        Values by name; lists become tuples.
    """
    given = {name: getattr(entry, name) for name in type(entry).model_fields if name in entry.model_fields_set}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def check_fields(text: LinedText, place: Sequence[Hashable], fields: Mapping[str, Any]) -> None:
    """Check options by making a spec of them.

    Args:
        text: the file that they are of.
        place: where they stand in it.
        fields: the options.

    Raises:
        RequestError: one is wrong.
    """
    try:
        AuditSpec.from_options(**({"model": "a model", "source": "its data"} | dict(fields)))
    except GcauditError as error:
        text.fail(place, str(error))


def explain(text: LinedText, error: ValidationError) -> NoReturn:
    """Tell the first thing that is wrong with a file's form.

    Args:
        text: the file.
        error: what pydantic found.

    Raises:
        RequestError: always.
    """
    first = error.errors()[0]
    place = tuple(first["loc"])
    name = next((part for part in reversed(place) if isinstance(part, str)), "")
    if first["type"] == "extra_forbidden":
        kinds: dict[Any, type[Entry]] = {
            "models": ModelEntry,
            "sources": DataEntry,
            "targets": DataEntry,
            "settings": SettingsEntry,
        }
        whole = ScoreEntry if error.title == ScoreEntry.__name__ else FileEntry
        known = [dashes(key) for key in (kinds[place[0]] if len(place) > 1 else whole).model_fields]
        text.fail(place, f"expected a key that is known, found {text.typed(place)!r}; {suggest(str(name), known)}")
    if first["type"] == "missing":
        text.fail(place[:-1], f"expected the key {name!r}, found none; add it")
    found = first["input"]
    shown = f"{found!r}"[:60] if not isinstance(found, dict | list) else f"a {type(found).__name__} of {len(found)}"
    wanted = _WANTED.get(first["type"]) or f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    key = next((part for part in reversed(place) if isinstance(part, str)), "")
    text.fail(place, f"expected for {key!r}: {wanted}; found {shown}")


def _models(text: LinedText, entries: Sequence[NamedModel]) -> tuple[ZooModel, ...]:
    folder = text.path.parent
    given: dict[str, tuple[int, bool]] = {}  # line number and whether a pattern gave it
    chosen: list[tuple[str | None, dict[str, Any], int, bool]] = []
    for number, entry in enumerate(entries):
        fields = {name: value for name, value in given_fields(entry).items() if name != "name" and value is not None}
        if "arch" in fields:
            fields["arch"] = own_code(folder, fields["arch"])
        check_fields(text, ("models", number), fields)
        try:
            names = resolve_models(beside(folder, entry.model))
        except RequestError as error:
            text.fail(("models", number), str(error))
        if len(names) > 1 and entry.name is not None:
            text.fail(
                ("models", number), f"expected a name for one model, found {len(names)} that match {entry.model!r}; leave name out"
            )
        pattern = is_pattern(beside(folder, entry.model))
        for found_name in names:
            whole = {**fields, "model": found_name}
            same = repr(sorted(whole.items()))
            if same in given and not pattern and not given[same][1]:
                line = text.lines["models", given[same][0]]
                text.fail(("models", number), f"expected each model once, found that of line {line} again; remove one")
            if same in given and pattern:
                continue
            given[same] = (number, pattern)
            chosen.append((entry.name, whole, number, pattern))
    single = {fields["model"] for _, fields, _, pattern in chosen if not pattern}
    kept = [entry for entry in chosen if not entry[3] or entry[1]["model"] not in single]
    short_titles = titles([fields["model"] for _, fields, _, _ in kept])
    found: dict[str, ZooModel] = {}
    for (name, fields, number, _), short in zip(kept, short_titles, strict=True):
        title = name or short
        if title in found:
            text.fail(("models", number), f"expected names that differ, found {title!r} twice; add name: ... to one of them")
        found[title] = ZooModel(title, fields)
    return tuple(found.values())


def _data(folder: Path, entry: NamedData) -> ZooData:
    given = {name: value for name, value in given_fields(entry).items() if name not in ("data", "name")}
    return ZooData(entry.name or data_title(entry.data), beside(folder, entry.data, data=True), **given)


def own_code(folder: Path, arch: str) -> str:
    """Read `FILE.py:FACTORY` relative to a folder; what is no such architecture stays as it is.

    Args:
        folder: of the file.
        arch: as written there.

    Returns:
        As for `--arch`.
    """
    name, colon, factory = arch.rpartition(":")
    return f"{beside(folder, name)}:{factory}" if colon and name.endswith(".py") else arch


def expand_models(specs: Sequence[str], fields: Mapping[str, Any]) -> tuple[ZooModel, ...]:
    """Name the models that were typed.

    Args:
        specs: models and globs.
        fields: options, the same for each.

    Returns:
        Each once, in the order typed.

    Raises:
        RequestError: a glob matches nothing.
    """
    names = list(dict.fromkeys(name for spec in specs for name in resolve_models(spec)))
    return tuple(ZooModel(title, {**fields, "model": name}) for name, title in zip(names, titles(names), strict=True))

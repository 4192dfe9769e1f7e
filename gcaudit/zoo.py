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
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, final

from pydantic import ValidationError

from gcaudit.errors import GcauditError, RequestError
from gcaudit.metrics import Role
from gcaudit.spec import AuditSpec
from gcaudit.zoo_text import DataEntry, Entry, FileEntry, ModelEntry, SettingsEntry, ZooText, dashes

_PUBLISHED = ("timm:", "torchvision:", "hf-hub:")


@final
@dataclasses.dataclass(frozen=True)
class ZooModel:
    """A model to compare.

    Attributes:
        name: for tables.
        fields: of `AuditSpec`: `model` and how it is read.
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
        """Return fields of `AuditSpec`.

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
        settings: further fields of `AuditSpec`.
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
    text = ZooText(path)
    _shape(text)
    try:
        file = FileEntry.model_validate(text.content)
    except ValidationError as error:
        _explain(text, error)
    given = {name: getattr(file.settings, name) for name in file.settings.model_fields_set}
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    for name, value in fields.items():
        _check(text, ("settings", dashes(name)), {name: value})
    models = _models(text, file.models)
    data = {}
    for key, entries in (("sources", file.sources), ("targets", file.targets)):
        data[key] = tuple(_data(text.path.parent, entry) for entry in entries or ())
        names = [entry.name for entry in data[key]]
        for number, name in enumerate(names):
            if name in names[:number]:
                text.fail((key, number), f"expected names that differ, found {name!r} twice; add name: ... to one of them")
    return Zoo(models, data["sources"], data["targets"], fields)


def _shape(text: ZooText) -> None:
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
    settings = content.get("settings")
    if not isinstance(settings, dict):
        return
    for key, word in (("n-query", "all"), ("gc-images", "all"), ("batch-size", "auto")):
        if settings.get(key) == word:
            settings[key] = None
    of_models = [dashes(name) for name in ModelEntry.model_fields]
    for key in map(str, settings):
        if key in of_models:
            text.fail(
                ("settings", key), f"expected settings of all audits, found {key!r}, which belongs under models, with a model"
            )
        if key != "target-gc" and key.startswith(("source", "target")):
            text.fail(("settings", key), f"expected settings of all audits, found {key!r}, which belongs under sources or targets")


def _check(text: ZooText, place: Sequence[Hashable], fields: Mapping[str, Any]) -> None:
    try:
        AuditSpec(**({"model": "a model", "source": "its data"} | dict(fields)))
    except GcauditError as error:
        text.fail(place, str(error))


def _explain(text: ZooText, error: ValidationError) -> NoReturn:
    first = error.errors()[0]
    place = tuple(first["loc"])
    name = place[-1] if place else ""
    if first["type"] == "extra_forbidden":
        kinds: dict[Any, type[Entry]] = {
            "models": ModelEntry,
            "sources": DataEntry,
            "targets": DataEntry,
            "settings": SettingsEntry,
        }
        known = [dashes(key) for key in (kinds[place[0]] if len(place) > 1 else FileEntry).model_fields]
        close = get_close_matches(str(name), known, n=1)
        text.fail(
            place,
            f"expected a key that is known, found {name!r}; {f'did you mean {close[0]}?' if close else 'known: ' + ', '.join(known)}",
        )
    if first["type"] == "missing":
        text.fail(place[:-1], f"expected the key {name!r}, found none; add it")
    found = first["input"]
    shown = f"{found!r}" if not isinstance(found, dict | list) else f"a {type(found).__name__} of {len(found)}"
    text.fail(place, f"expected for {name!r}: {first['msg'][:1].lower()}{first['msg'][1:]}; found {shown}")


def _models(text: ZooText, entries: Sequence[ModelEntry]) -> tuple[ZooModel, ...]:
    folder = text.path.parent
    explicit: dict[str, int] = {}
    chosen: list[tuple[str | None, dict[str, Any], int]] = []
    for number, entry in enumerate(entries):
        fields = {
            name: getattr(entry, name) for name in entry.model_fields_set if name != "name" and getattr(entry, name) is not None
        }
        fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        if "input_size" in fields and len(fields["input_size"]) == 1:
            fields["input_size"] *= 2
        if "arch" in fields:
            fields["arch"] = _own_code(folder, fields["arch"])
        _check(text, ("models", number), fields)
        try:
            names = resolve_models(beside(folder, entry.model))
        except RequestError as error:
            text.fail(("models", number), str(error))
        if len(names) > 1 and entry.name is not None:
            text.fail(
                ("models", number), f"expected a name for one model, found {len(names)} that match {entry.model!r}; leave name out"
            )
        if "*" not in entry.model and "?" not in entry.model:
            same = repr(sorted({**fields, "model": names[0]}.items()))
            if same in explicit:
                line = text.lines["models", explicit[same]]
                text.fail(("models", number), f"expected each model once, found that of line {line} again; remove one")
            explicit[same] = number
        chosen += [(entry.name, {**fields, "model": name}, number) for name in names]
    single = {fields["model"] for _, fields, number in chosen if number in explicit.values()}
    kept = [entry for entry in chosen if entry[2] in explicit.values() or entry[1]["model"] not in single]
    titles = _titles([fields["model"] for _, fields, _ in kept])
    found: dict[str, ZooModel] = {}
    for (name, fields, number), short in zip(kept, titles, strict=True):
        title = name or short
        if title in found:
            text.fail(("models", number), f"expected names that differ, found {title!r} twice; add name: ... to one of them")
        found[title] = ZooModel(title, fields)
    return tuple(found.values())


def _data(folder: Path, entry: DataEntry) -> ZooData:
    return ZooData(entry.name or _data_title(entry.data), beside(folder, entry.data), entry.split, entry.classes, entry.max_images)


def _data_title(spec: str) -> str:
    path = Path(spec.rpartition(":")[2])
    return path.parent.name if path.suffix == ".parquet" and path.parent.name else path.stem or spec


def _own_code(folder: Path, arch: str) -> str:
    name, colon, factory = arch.rpartition(":")
    return f"{beside(folder, name)}:{factory}" if colon and name.endswith(".py") else arch


def beside(folder: Path, spec: str) -> str:
    """Read a path that is relative to a folder; what is no path there stays as it is.

    Args:
        folder: of the YAML file.
        spec: a model or data set.

    Returns:
        The path, or `spec`.
    """
    if spec.startswith("disk:"):
        return "disk:" + beside(folder, spec.removeprefix("disk:"))
    from gcaudit.data import KNOWN

    prefixed = spec.startswith((*_PUBLISHED, "hf:")) or spec in ("demo", *(entry.name for entry in KNOWN))
    if prefixed or folder == Path() or Path(spec).is_absolute() or spec.startswith("~"):
        return spec
    path = folder / spec
    there = any(True for _ in folder.glob(spec)) if any(sign in spec for sign in "*?[") else path.exists()
    return str(path) if there or path.suffix else spec


def resolve_models(spec: str) -> list[str]:
    """Resolve a glob.

    Args:
        spec: a model; with `*`, `?` or `[` a pattern of published names or files.

    Returns:
        What matches, sorted; the model itself when it is no pattern.

    Raises:
        RequestError: nothing matches.
    """
    if not any(sign in spec for sign in "*?[") or Path(spec).exists():
        return [spec]
    if spec.startswith(("timm:", "torchvision:")):
        from gcaudit.encoders import published_names

        found = published_names(spec)
    else:
        path = Path(spec).expanduser()
        parts = path.parts
        first = next(number for number, part in enumerate(parts) if any(sign in part for sign in "*?["))
        found = sorted(
            str(place) for place in Path(*parts[:first]).glob(str(Path(*parts[first:]))) if not place.name.startswith(".")
        )
    if not found:
        raise RequestError(f"expected models that match {spec!r}, found none; check the pattern")
    return found


def expand_models(specs: Sequence[str], fields: Mapping[str, Any]) -> tuple[ZooModel, ...]:
    """Name the models that were typed.

    Args:
        specs: models and globs.
        fields: of `AuditSpec`, the same for each.

    Returns:
        Each once, in the order typed.

    Raises:
        RequestError: a glob matches nothing.
    """
    names = list(dict.fromkeys(name for spec in specs for name in resolve_models(spec)))
    return tuple(ZooModel(title, {**fields, "model": name}) for name, title in zip(names, _titles(names), strict=True))


def _titles(names: Sequence[str]) -> list[str]:
    """Shorten paths to as few of their last parts as tell them apart."""

    def tail(name: str, parts: int) -> str:
        if name.startswith(_PUBLISHED):
            return name
        path = Path(name)
        return "/".join((*path.parts[-parts:-1], path.stem if path.is_file() else path.name))

    longest = max((len(Path(name).parts) for name in names), default=1)
    for parts in range(1, longest + 1):
        found = [tail(name, parts) for name in names]
        if len(set(found)) == len(found):
            return found
    return list(names)

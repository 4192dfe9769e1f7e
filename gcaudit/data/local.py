"""Local folders that the `datasets` library reads: what in them would lead it elsewhere is refused before it looks."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gcaudit.errors import DataError, one_line, plain
from gcaudit.files import load_yaml, read_text

_MOST_BYTES = 2**24
_FRONT_MATTER = re.compile(r"^\s*---[ \t]*[\r\n]+(.*?)(?:[\r\n]+\s*---|\Z)", re.DOTALL)
_PLACES = ("data_files", "data_dir")


def check_local(folder: Path, spec: str) -> None:
    """Make sure that a folder leads the library nowhere else: not to the network, not to other folders, not to what is no file.

    Args:
        folder: of `hf:FOLDER` or `disk:FOLDER`.
        spec: as typed, for messages.

    Raises:
        DataError: naming the file that does.
    """
    for path in _files(folder, spec):
        if path.name == "README.md":
            matter = _FRONT_MATTER.search(_read(path, spec))
            _check_card("" if matter is None else matter[1], path, folder, spec)
        elif path.name == ".huggingface.yaml":
            _check_card(_read(path, spec), path, folder, spec)
        elif path.name in ("state.json", "dataset_dict.json"):
            _check_state(path, spec)


def _files(folder: Path, spec: str) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(place, name)
            try:
                mode = path.stat().st_mode
            except OSError as error:
                raise DataError(f"{spec}: expected files that can be read, found {path}: {error.strerror}; remove it") from None
            if not stat.S_ISREG(mode):
                raise DataError(f"{spec}: expected regular files, found {path}, which is none; remove it")
            yield path


def _read(path: Path, spec: str) -> str:
    try:
        return read_text(path, _MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{spec}: expected text in {path}: {one_line(error)}; remove it") from None


def _check_card(text: str, path: Path, folder: Path, spec: str) -> None:
    try:
        content = load_yaml(text)
    except ValueError as error:
        raise DataError(f"{spec}: expected plain YAML in {path}: {one_line(error)}; mend or remove it") from None
    for place in _places(content):
        if "://" in place or "::" in place:
            raise DataError(
                f"{spec}: refused: {path} names {plain(place, 80)}, which is not in the folder; fetch it, and name it here"
            )
        if not Path(os.path.normpath(folder.resolve() / place)).is_relative_to(folder.resolve()):
            raise DataError(f"{spec}: refused: {path} names {plain(place, 80)}, which is outside of the folder; copy it there")


def _places(content: Any, *, named: bool = False) -> Iterator[str]:
    """Find all that stands under the names of places, however deep."""
    if isinstance(content, str) and named:
        yield content
    elif isinstance(content, dict):
        for key, held in content.items():
            yield from _places(held, named=named or key in _PLACES)
    elif isinstance(content, list):
        for held in content:
            yield from _places(held, named=named)


def _check_state(path: Path, spec: str) -> None:
    """Refuse names of parts that are more than names."""
    try:
        content = json.loads(_read(path, spec))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{spec}: expected JSON in {path}: {one_line(error)}; save the data set again") from None
    names: list[Any] = []
    if isinstance(content, dict):
        splits, files = content.get("splits"), content.get("_data_files")
        names += splits if isinstance(splits, list) else []
        names += [entry.get("filename") for entry in files if isinstance(entry, dict)] if isinstance(files, list) else []
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or "://" in name:
            raise DataError(
                f"{spec}: refused: {path} names {plain(str(name), 80)!r}, which is outside of the folder; save it again"
            )

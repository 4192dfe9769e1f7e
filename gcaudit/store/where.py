"""Conditions on the cells of a store, such as `target=dtd* and seed=0 and target.probe_accuracy >= 0.6`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import ge, gt, le, lt
from pathlib import PurePath
from typing import Any, final

from gcaudit.errors import RequestError, shorten, suggest
from gcaudit.store.cells import Cell
from gcaudit.store.columns import LEADS, cell_columns

_VALUE = r"\"[^\"]*\"|'[^']*'|[^\s,\"'<>=][^\s,]*(?:,[^\s<>=,\"']+)*"
_TERM = re.compile(rf"\s*(?P<name>[\w.@-]+)\s*(?P<sign><=|>=|!=|==|=|<|>)\s*(?P<value>{_VALUE}|)(?=\s|$)")
_AND = re.compile(r"\s+and\s+", re.IGNORECASE)
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
_NAMES = ("model", "spec", "source", "target", "source.data", "target.data")
_TYPED_AS = {"model": "spec", "source": "source.data", "target": "target.data"}
"""What names were typed as, which they are also called by."""
_LISTS = ("n_shot",)
"""Columns of several values, any of which may be meant."""
_EXAMPLE = "'target=dtd10 and seed=0'"


@final
@dataclass(frozen=True)
class Condition:
    """A condition on one column.

    Attributes:
        name: of the column.
        sign: `=`, `!=`, `<`, `<=`, `>` or `>=`.
        value: as typed; with `=` and `!=` it may hold `*`, `?` and `[...]`, and a model or data set that is a path is also called by any part of it.
    """

    name: str
    sign: str
    value: str

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Tell whether a row fulfils it; one that lacks the column fulfils none.

        Args:
            row: columns by name.
        """
        if self.name not in row:
            return False
        found = row[self.name]
        if self.sign in _ORDER:
            number = _number(found)
            return number is not None and _ORDER[self.sign](number, float(self.value))
        same = self._equals(found) or (
            self.name in _TYPED_AS
            and self._equals(row.get(_TYPED_AS[self.name]), there=found is not None and _TYPED_AS[self.name] in row)
        )
        return same == (self.sign == "=")

    def _equals(self, found: Any, *, there: bool = True) -> bool:
        if not there:
            return False
        if self.name in _LISTS and found is not None and "," in str(found) and "," not in self.value:
            return any(self._equals(part) for part in str(found).split(","))
        wanted, number = _number(self.value), _number(found)
        if wanted is not None and number is not None:
            return wanted == number
        pattern = "" if self.value.casefold() in ("none", "null") else self.value.casefold()
        text = "" if found is None else str(found).casefold()
        parts = _parts(text) if self.name in _NAMES else ()
        return any(fnmatchcase(part, pattern) for part in (text, *parts))


def _parts(text: str) -> tuple[str, ...]:
    """List what a path may be called by: each of its parts, and the file without its suffix."""
    path = PurePath(text)
    return (*path.parts, path.stem) if len(path.parts) > 1 else (path.stem,)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def parse_where(text: str) -> tuple[Condition, ...]:
    """Read conditions that are to hold together.

    Args:
        text: such as `target=dtd10 and seed=0`.

    Returns:
        The conditions.

    Raises:
        RequestError: it cannot be read.
    """
    found = []
    rest = text.strip()
    while True:
        match = _TERM.match(rest)
        joined = None if match is None else _AND.match(rest, match.end())
        if match is None or (joined is None and rest[match.end() :].strip()):
            raise RequestError(f"expected --where of conditions such as {_EXAMPLE}, found {rest!r}{_lacking(rest)}")
        value, sign = match["value"], match["sign"].replace("==", "=")
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        if re.fullmatch(r"[-+.\deE]+%", value) and _number(value[:-1]) is not None:
            value = repr(float(value[:-1]) / 100)
        if sign in _ORDER and _number(value) is None:
            raise RequestError(f"expected a number after {sign} in --where, found {match[0]!r}")
        found.append(Condition(match["name"], sign, value))
        if joined is None:
            return tuple(found)
        rest = rest[joined.end() :]


def _lacking(part: str) -> str:
    """Say why a part is no condition, where that can be told."""
    if re.search(r"\s(or|\|\|?|&&?)\s|,\s*[\w.@-]+\s*[<>=!]", part, re.IGNORECASE):
        return "; conditions are joined by 'and' alone: of several values write a pattern such as seed=[01], or list twice"
    if re.search(r"[<>=]", part):
        return "; a value with spaces or signs is put in quotes, such as model='my model'"
    return ""


def choose_cells(cells: Sequence[Cell], where: Sequence[str]) -> list[Cell]:
    """Choose cells by conditions, all of which must hold.

    Args:
        cells: of a store.
        where: conditions as text.

    Returns:
        Those that fulfil them; failed cells have no settings, so that a condition on one leaves them out.

    Raises:
        RequestError: a condition cannot be read, names a column that no cell has, or compares a number with what is none.
    """
    conditions = [condition for text in where for condition in parse_where(text)]
    if not conditions:
        return list(cells)
    rows = [cell_columns(cell) for cell in cells]
    known = dict.fromkeys((*LEADS, *(name for row in rows for name in row)))
    for condition in conditions:
        if condition.name not in known and rows:
            roles = [name for name in (f"source.{condition.name}", f"target.{condition.name}") if name in known]
            hint = (
                f"did you mean {' or '.join(roles)}?"
                if roles
                else suggest(condition.name, [name for name in known if name.count(".") < 2])
            )
            raise RequestError(f"expected --where to name a column, found {condition.name!r}; {hint}")
        _check_kind(condition, rows)
    return [cell for cell, row in zip(cells, rows, strict=True) if all(condition.holds(row) for condition in conditions)]


def _check_kind(condition: Condition, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a text where every cell has a number, which none would fulfil."""
    values = [row[condition.name] for row in rows if row.get(condition.name) is not None]
    if condition.name in _LISTS:
        values = [float(part) for value in values for part in str(value).split(",") if _number(part) is not None]
    numbers = bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    pattern = any(sign in condition.value for sign in "*?[") or condition.value.casefold() in ("none", "null", "")
    if numbers and not pattern and any(_number(part) is None for part in condition.value.split(",")):
        raise RequestError(
            f"expected a number for {condition.name} in --where, found {condition.value!r}; there are {shorten([f'{value:g}' for value in dict.fromkeys(values)])}"
        )

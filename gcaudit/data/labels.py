"""Labels as people have them -> numbers of classes: text, whole numbers with gaps, marks of what has no label."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gcaudit.errors import DataError, printable, shorten
from gcaudit.report import ReportWarning, warn

MOST_CLASSES = 1_000_000
_MARKS = frozenset(("", "-1", "-100", "nan", "null", "n/a", "<na>", "unlabelled", "unlabeled"))
_NUMBERS = (-1, -100)
"""What data sets and losses write for an image without a label."""


@final
@dataclass(frozen=True)
class Labels:
    """Labels of a data set.

    Attributes:
        numbers: (N,) int64 numbers into `names`; -1 for an image without a label.
        names: every class, also those without images.
        warnings: what was left out or converted.
    """

    numbers: NDArray[np.int64]
    names: tuple[str, ...]
    warnings: tuple[ReportWarning, ...] = ()


def number_labels(values: Sequence[Any], names: Sequence[str] | None, where: str) -> Labels:
    """Turn labels into numbers and names.

    Args:
        values: whole numbers, text or truth values; None, NaN, -1, -100, empty text and the like stand for no label.
        names: class names of whole numbers, if known.
        where: for messages.

    Returns:
        The labels; those of text are numbered in alphabetical order.

    Raises:
        DataError: no image has a label, an image has several, or they are of other types, negative, or beyond the names.
    """
    several = [value for value in values if isinstance(value, list | tuple | dict | np.ndarray | set)]
    if several:
        raise DataError(_several(several, where))
    absent = [is_mark(value) for value in values]
    count = sum(absent)
    if count and count == len(values):
        raise DataError(
            f"{where}: expected labels, found none of {count} images with one (an unlabelled split?); name another split, or another column with --label-key"
        )
    given = [value for value, is_absent in zip(values, absent, strict=True) if not is_absent]
    dense, known, said = _number(given, names, where)
    if count:
        said = (*said, warn("left-out", "{n} images without a label were left out", count=count))
    numbers = np.full(len(values), -1, dtype=np.int64)
    numbers[~np.array(absent, dtype=bool)] = dense
    return Labels(numbers, known, said)


def is_mark(value: Any) -> bool:
    """Tell what stands for no label.

    Args:
        value: a label.
    """
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
        return True
    if isinstance(value, str):
        return value.strip().lower() in _MARKS
    return not isinstance(value, bool | bytes) and isinstance(value, int | np.integer | float | np.floating) and value in _NUMBERS


def _several(values: Sequence[Any], where: str) -> str:
    """Say what to do about labels that are several numbers."""
    value = values[0]
    if isinstance(value, dict):
        return (
            f"{where}: expected one class an image, found a dict with {shorten(list(map(str, value)))}; make a column of its class"
        )
    if all(_is_one_hot(value) for value in values):
        return f"{where}: expected one class an image, found lists of {len(value)} numbers with a single 1 (one-hot); make a column of its place, as argmax does"
    return f"{where}: expected one class an image, found lists of several ({max(map(len, values))} in one); gcaudit measures classes that exclude each other: keep one column of them"


def _is_one_hot(value: Any) -> bool:
    parts = [float(part) for part in value if isinstance(part, int | float | np.number)]
    return len(parts) == len(value) > 1 and sorted(parts) == [0.0] * (len(parts) - 1) + [1.0]


def _number(
    given: Sequence[Any], names: Sequence[str] | None, where: str
) -> tuple[Any, tuple[str, ...], tuple[ReportWarning, ...]]:
    kinds = {type(value) for value in given}
    if kinds <= {bool, np.bool_} and kinds:
        return np.array([int(value) for value in given]), tuple(names or ("False", "True")), ()
    if kinds and all(issubclass(kind, str) for kind in kinds):
        known = tuple(sorted(set(given)))
        _check_names(known, where)
        number = {name: place for place, name in enumerate(known)}
        return np.array([number[value] for value in given]), known, ()
    said: tuple[ReportWarning, ...] = ()
    if kinds and all(issubclass(kind, float | np.floating) for kind in kinds):
        odd = next((value for value in given if value != int(value)), None) if all(map(math.isfinite, given)) else math.inf
        if odd is not None:
            raise DataError(
                f"{where}: expected a class an image, found the number {odd:g}; gcaudit measures classes, not quantities: --label-key names another column"
            )
        said = (warn("converted", "labels are floating point numbers, and were taken for whole ones"),)
        given = [int(value) for value in given]
    elif not all(issubclass(kind, int | np.integer) and kind is not bool for kind in kinds):
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise DataError(
            f"{where}: expected labels that are all integers or all strings, found {found}; --label-key names another column"
        )
    low, high = min(given, default=0), max(given, default=-1)
    if low < 0:
        bad = sum(value < 0 for value in given)
        raise DataError(
            f"{where}: expected labels >= 0, and -1 for none, found {low} and {bad} of {len(given)} below 0; mend these rows"
        )
    if names is not None and high >= len(names):
        raise DataError(f"{where}: expected labels below the {len(names)} class names, found {high}")
    if high >= MOST_CLASSES:
        raise DataError(
            f"{where}: expected labels below {MOST_CLASSES}, found {high} (ids in place of classes?); --label-key names another column"
        )
    return np.array(given, dtype=np.int64), tuple(names) if names is not None else tuple(str(n) for n in range(int(high) + 1)), said


def _check_names(known: tuple[str, ...], where: str) -> None:
    """Refuse names that a hand has mistyped."""
    alike: dict[str, str] = {}
    for name in known:
        other = alike.setdefault(name.strip(), name)
        if other != name:
            raise DataError(f"{where}: expected class names that differ in more than blanks, found {other!r} and {name!r}")
    numbers = [name for name in known if re.fullmatch(r"-?\d+", name)]
    if len(numbers) == len(known) and (bad := next((name for name in known if name.startswith("-")), None)) is not None:
        raise DataError(f"{where}: expected labels >= 0, and -1 for none, found {printable(bad)!r}; mend these rows")

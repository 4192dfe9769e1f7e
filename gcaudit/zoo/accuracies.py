"""Accuracies in a CSV file, and which of the models compared they are of."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import final

from gcaudit.errors import RequestError, one_line, shorten
from gcaudit.files import read_text
from gcaudit.zoo.cells import CellRequest
from gcaudit.zoo.truth import Place, Truth, cell_place

_MOST_BYTES = 2**26


def read_accuracies(path: Path, requests: Sequence[CellRequest], truth_for: str | None = None) -> Truth:
    """Read accuracies from a CSV file.

    A line without a source holds for all sources: accuracies on a target do not depend on them. A line without a target holds for the only target, or
    for the one that `truth_for` names.

    Args:
        path: of a CSV with columns `model`, `accuracy` and perhaps `source` and `target`. A model is named by its name, as it was typed, or by its
            file's name; data by its name or as it was typed.
        requests: the cells.
        truth_for: the target that the accuracies are on, when the CSV does not say.

    Returns:
        The accuracies; lines that name nothing that is compared are told in its warnings.

    Raises:
        RequestError: no such file; columns, models, targets or numbers that are wrong.
    """
    if not path.is_file():
        raise RequestError(f"expected --truth to be a CSV file, found no {path}; check the path")
    columns, lines = _read_lines(path)
    known = {kind: _known(requests, kind) for kind in _KINDS}
    only = _only_target(path, columns, known["target"], truth_for)
    found: dict[Place, _Line] = {}
    strangers: dict[str, list[_Line]] = {}
    for line in lines:
        meant = {kind: _meant(path, line, kind, known[kind], only) for kind in _KINDS}
        stranger = next((kind for kind, names in meant.items() if names == []), None)
        if stranger is not None:
            strangers.setdefault(stranger, []).append(line)
            continue
        cells = {
            cell_place(r): r for r in requests if all(names is None or getattr(r, kind) in names for kind, names in meant.items())
        }
        for place, request in cells.items():
            if place in found:
                raise RequestError(
                    f"{path}, line {line.number}: expected one accuracy for {request.title}, found another on line {found[place].number}; leave one out"
                )
            found[place] = line
    unknown = [_tell_strangers(kind, each, known[kind]) for kind, each in strangers.items()]
    if not found:
        names = shorten(list(known["model"]))
        rest = f": {'; '.join(unknown)}" if unknown else ""
        raise RequestError(f"{path}: expected accuracies of the models compared ({names}), found none{rest}; check the names")
    lacking = [r.title for r in requests if cell_place(r) not in found and (only is None or r.target == only)]
    warnings = [f"{path}: {text}" for text in (*unknown, *_check_scale(path, found))]
    warnings += [f"{path} has no accuracy for {shorten(lacking, 3)}"] if lacking else []
    return Truth(str(path), {place: line.accuracy for place, line in found.items()}, tuple(warnings))


_KINDS = ("model", "source", "target")
_SHOWN = 3
_OTHER_NAMES = (
    "acc",
    "top1",
    "top-1",
    "acc1",
    "acc@1",
    "accuracy1",
    "test_acc",
    "test_accuracy",
    "name",
    "checkpoint",
    "arch",
    "network",
)
"""What people call the columns; which of them is meant is theirs to say."""


@final
@dataclass(frozen=True)
class _Line:
    """A line of the CSV: its number in the file, its cells by column, and its accuracy."""

    number: int
    cells: Mapping[str, str]
    accuracy: float


def _read_lines(path: Path) -> tuple[list[str], list[_Line]]:
    try:
        text = read_text(path, _MOST_BYTES).removeprefix("\ufeff")
        first = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = next(
            (sign for sign in ",;\t" if {"model", "accuracy"} <= {name.strip(' "') for name in first.split(sign)}), ","
        )
        reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True, delimiter=delimiter)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise RequestError(f"expected accuracies in {path}: {one_line(error)}; see --truth") from None
    rows = [(number, row) for number, row in rows if any(row)]
    columns = rows[0][1] if rows else []
    if not {"model", "accuracy"} <= set(columns) or len(set(columns)) < len(columns):
        unlike = [name for name in columns if name.casefold() in _OTHER_NAMES]
        hint = f"rename {unlike[0]}" if unlike else "see --truth"
        raise RequestError(f"{path}: expected columns model and accuracy, found {', '.join(columns) or 'nothing'}; {hint}")
    lines = []
    for number, row in rows[1:]:
        where = f"{path}, line {number}"
        if len(row) != len(columns):
            raise RequestError(
                f"{where}: expected {len(columns)} cells ({', '.join(columns)}), found {len(row)}; quote names with commas"
            )
        cells = dict(zip(columns, row, strict=True))
        if not cells["model"]:
            raise RequestError(f"{where}: expected the name of a model, found nothing; add it or leave the line out")
        lines.append(_Line(number, cells, _read_number(cells["accuracy"], where)))
    return columns, lines


def _read_number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        found = repr(text) if text else "nothing"
    else:
        if math.isfinite(number):
            return number
        if math.isinf(number):
            raise RequestError(f"{where}: expected a finite number as accuracy, found {text!r}; leave the line out")
        found = "nothing"
    form = text.rstrip(" %") if re.fullmatch(r"\d+(\.\d*)?\s*%", text) else "0.93 or 93, or leave the line out"
    raise RequestError(f"{where}: expected a number as accuracy, found {found}; write it as {form}")


def _known(requests: Sequence[CellRequest], kind: str) -> dict[str, tuple[str, ...]]:
    """Return the names of models, sources or targets, each with the other names it goes by, the most telling first."""
    if kind == "model":
        specs = {request.model: str(request.spec.model.spec) for request in requests}
        return {name: (spec, Path(spec).name, Path(spec).stem) for name, spec in specs.items()}
    data = [(getattr(r, kind), r.spec.source if kind == "source" else r.spec.target) for r in requests]
    return {name: (str(request.spec),) for name, request in data if name is not None}


def _named(text: str, known: Mapping[str, Sequence[str]]) -> list[str]:
    if text in known:
        return [text]
    levels = zip(*known.values(), strict=True)
    found = ([name for name, other in zip(known, level, strict=True) if other == text] for level in levels)
    return next((names for names in found if names), [])


def _did_you_mean(text: str, known: Mapping[str, Sequence[str]]) -> str:
    close = get_close_matches(text, [*known, *(other for others in known.values() for other in others)], n=1)
    return f"did you mean {close[0]}?" if close else ""


def _only_target(path: Path, columns: Sequence[str], targets: Mapping[str, Sequence[str]], truth_for: str | None) -> str | None:
    """Find the target of lines that name none; None where the lines say it, or there are no targets."""
    names = shorten(list(targets))
    if truth_for is not None:
        if not targets:
            raise RequestError(f"expected --target with --truth-for, found none; add --target {truth_for} or leave --truth-for out")
        if "target" in columns:
            raise RequestError(
                f"expected --truth-for with accuracies that name no target, found a column target in {path}; leave one of them out"
            )
        found = _named(truth_for, targets)
        if len(found) != 1:
            hint = _did_you_mean(truth_for, targets) if not found else f"it may be {' or '.join(found)}: name one"
            raise RequestError(f"expected --truth-for of a target ({names}), found {truth_for!r}; {hint or 'name one of them'}")
        return found[0]
    if len(targets) > 1 and "target" not in columns:
        raise RequestError(
            f"{path}: expected a column target, as there are {len(targets)} targets ({names}), found {', '.join(columns)}; "
            f"add it, or --truth-for TARGET when all accuracies are on one"
        )
    return next(iter(targets)) if len(targets) == 1 else None


def _meant(path: Path, line: _Line, kind: str, known: Mapping[str, Sequence[str]], only: str | None) -> list[str] | None:
    """Find what a line names; None stands for all, and nothing for what is not compared."""
    text = line.cells.get(kind, "")
    where = f"{path}, line {line.number}"
    if not text:
        if kind == "target" and only is None and known:
            raise RequestError(f"{where}: expected the name of a target ({shorten(list(known))}), found nothing; add it")
        return [only] if kind == "target" and only is not None else None
    found = _named(text, known)
    if len(found) > 1 and kind != "source":
        raise RequestError(f"{where}: expected the name of one {kind}, found {text!r}, which may be {shorten(found)}; name one")
    return found


def _tell_strangers(kind: str, lines: Sequence[_Line], known: Mapping[str, Sequence[str]]) -> str:
    told = []
    for line in lines[:_SHOWN]:
        hint = _did_you_mean(line.cells[kind], known)
        told.append(f"{line.cells[kind]!r} on line {line.number}" + (f" ({hint})" if hint else ""))
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    some = f"{len(lines)} lines name" if len(lines) > 1 else "1 line names"
    return f"{some} no {kind} that is compared: {', '.join(told)}{more}"


def _check_scale(path: Path, found: Mapping[Place, _Line]) -> list[str]:
    """Refuse shares among per cent on one target; tell of what is neither."""
    by_target: dict[str | None, list[_Line]] = {}
    for (_, target, _), line in found.items():
        by_target.setdefault(target, []).append(line)
    for lines in by_target.values():
        share = next((line for line in lines if 0 < line.accuracy <= 1), None)
        percent = next((line for line in lines if 1 < line.accuracy <= 100), None)
        if share is not None and percent is not None:
            raise RequestError(
                f"{path}: expected all accuracies as shares or all in per cent, found {share.cells['accuracy']} on line {share.number} "
                f"and {percent.cells['accuracy']} on line {percent.number}; divide those in per cent by 100"
            )
    odd = next((line for line in found.values() if not 0 <= line.accuracy <= 100), None)
    if odd is None:
        return []
    return [
        f"{odd.cells['accuracy']} on line {odd.number} is neither a share nor a per cent; only order and distance of accuracies count"
    ]

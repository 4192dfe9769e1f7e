"""What a data set is, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from gcaudit.errors import plain
from gcaudit.render.escapes import json_text, log_text
from gcaudit.render.grid import Grid, lay_out
from gcaudit.render.paper import PLAIN, Paper, fold, paint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gcaudit.data import Overview

_CLASSES = 20


def render_overview(found: Overview, paper: Paper = PLAIN) -> str:
    """Write what a data set is.

    Args:
        found: the data set.
        paper: what it is written on.

    Returns:
        Facts, classes with their numbers of images, and the first pictures.
    """
    counts = [count for _, count in found.classes]
    span = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    failed, why = found.failures
    facts = [
        ("data set", found.spec + (f", split {found.split}" if found.split else "")),
        ("images", f"{found.images} in {len(counts)} classes, {span} a class"),
        ("columns", "" if found.columns is None else f"images {found.columns[0]}, labels {found.columns[1]}"),
        ("pictures", f"{_told(found.formats)}; {_told(found.modes)}; {' to '.join(found.sizes)} (of {found.looked_at} looked at)"),
        ("cannot be decoded", f"{failed}, the first: {why}" if failed else ""),
        ("to type", found.options),
    ]
    wide = max(len(name) for name, told in facts if told) + 2
    lines = [
        (paint(name, "bold", paper) + fold(plain(told), paper.width, indent=wide, first=wide)[len(name) :]).rstrip()
        for name, told in facts
        if told
    ]
    rows = tuple((plain(name), str(count)) for name, count in found.classes[:_CLASSES])
    parts = ["\n".join(lines) + "\n", "\n", lay_out(Grid(("class", "images"), rows, rule=False), paper)]
    if len(found.classes) > _CLASSES:
        parts.append(f"and {len(found.classes) - _CLASSES} more classes; --format json lists all\n")
    first = tuple((plain(where), plain(name), told) for where, name, told in found.first)
    parts += ["\n", lay_out(Grid(("picture", "class", "size"), first, folds=(0,), rule=False), paper)]
    return log_text("".join(parts))


def _told(pairs: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{count} {name}" for name, count in pairs) or "none"


def overview_json(found: Overview) -> str:
    """Write what a data set is for programs.

    Args:
        found: the data set.

    Returns:
        JSON: an object.
    """
    content = asdict(found) | {"classes": dict(found.classes), "formats": dict(found.formats), "modes": dict(found.modes)}
    content["warnings"] = [warning.model_dump() for warning in found.warnings]
    return json_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")

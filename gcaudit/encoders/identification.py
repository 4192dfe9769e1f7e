"""The architecture of a checkpoint that does not name it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import final

import timm
import torch
import torchvision

from gcaudit.checkpoints import WeightSet
from gcaudit.encoders.architectures import build_architecture, default_config
from gcaudit.encoders.fingerprint import Groups, Match, Shapes, Table, fingerprint, identify, known_fingerprints
from gcaudit.encoders.placing import shapes_of
from gcaudit.encoders.taps import head_modules, pre_logits_tap
from gcaudit.errors import ArchitectureError, shorten
from gcaudit.report import ReportWarning, warn

_SECONDS = 60.0
"""For building architectures that the table does not know."""
_MOST_TOLD = 8
_MOST_KINDS = 3


@final
@dataclass(frozen=True)
class Identified:
    """What the names and shapes of a checkpoint's tensors say.

    Attributes:
        name: of the architecture.
        classes: outputs of the classifier, where it is there.
        warnings: what was assumed.
    """

    name: str
    classes: int | None
    warnings: tuple[ReportWarning, ...]


def installed_versions() -> dict[str, str]:
    """Return the versions of timm and torchvision."""
    return {"timm": timm.__version__, "torchvision": torchvision.__version__.partition("+")[0]}


def candidates(shapes: Shapes) -> tuple[list[Match], str]:
    """Find the architectures that tensors fit.

    Args:
        shapes: of floating-point tensors by name.

    Returns:
        The matches, and what is to be said of the search: empty where the table is of the installed versions.
    """
    table = known_fingerprints()
    found = identify(shapes, table)
    if found or table.versions == installed_versions():
        return found, ""
    return _beyond(shapes, table)


def _beyond(shapes: Shapes, table: Table) -> tuple[list[Match], str]:
    """Build architectures of other versions of timm than the table's, new ones first, as long as there is time."""
    names = tuple(sorted(timm.list_models(), key=lambda name: f"timm:{name}" in table.names))
    known, tried = _built(names, _SECONDS)
    told = ", ".join(f"{library} {version}" for library, version in table.versions.items())
    remark = f"the table of architectures is of {told}; {tried} of {len(names)} of timm {timm.__version__} were built in its place"
    return identify(shapes, known), remark


@cache
def _built(names: tuple[str, ...], seconds: float) -> tuple[Table, int]:
    """Make a table of architectures of timm, once for all sets of a file, and say how many there was time for."""
    groups: dict[tuple[int, int], list[str]] = {}
    heads: dict[tuple[str, ...], int] = {}
    start, tried = time.monotonic(), 0
    for name in names:
        if time.monotonic() - start > seconds:
            break
        tried += 1
        try:
            with torch.device("meta"):
                module = build_architecture(f"timm:{name}", {}).module
        except Exception:  # noqa: S112 - not every architecture can be built there
            continue
        head = head_modules(module, pre_logits_tap(module))
        groups.setdefault((heads.setdefault(head, len(heads)), fingerprint(shapes_of(module), head)), []).append(f"timm:{name}")
    each = {key: tuple((name,) for name in members) for key, members in groups.items()}
    return Table(installed_versions(), tuple(heads), each, frozenset()), tried


def network_set(sets: Sequence[WeightSet], start: str = "") -> WeightSet:
    """Take the first set of tensors that is an architecture's.

    Args:
        sets: in their customary order.
        start: of the prefix behind which its names lie.

    Returns:
        One of them; the first where none is.
    """
    return next((one for one in sets if candidates(behind(one.shapes, start))[0]), sets[0])


def behind(shapes: Shapes, start: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors whose names begin so."""
    return {name: shape for name, shape in shapes.items() if name.startswith(start)}


def identified(shapes: Shapes, where: str) -> Identified:
    """Find the one architecture that tensors fit.

    Args:
        shapes: of floating-point tensors by name.
        where: the file, for messages.

    Returns:
        What was found.

    Raises:
        ArchitectureError: none fits, or several do that compute other things.
    """
    found, remark = candidates(shapes)
    hint = f"; {remark}" if remark else ""
    if not found:
        told = " and ".join(f"{library} {version}" for library, version in installed_versions().items())
        raise ArchitectureError(
            f"{where}: expected the checkpoint to name its architecture, or names and shapes of one of {told}, found "
            f"{len(shapes)} tensors of neither; add --arch timm:NAME, torchvision:NAME or FILE.py:FACTORY{hint}"
        )
    groups: Groups = tuple(dict.fromkeys(group for match in found for group in match.groups))
    if len(groups) > 1:
        told = "; ".join(apart([group[0] for group in groups[:_MOST_TOLD]]))
        more = f" and {len(groups) - _MOST_TOLD} more" if len(groups) > _MOST_TOLD else ""
        raise ArchitectureError(
            f"{where}: expected the checkpoint to name its architecture, found names and shapes of {len(groups)} that compute "
            f"other things; choose one: {told}{more}{hint}"
        )
    name, *same = groups[0]
    others = [one for one in same if default_config(one) != default_config(name)]
    line = f"the file does not name its architecture; by names and shapes it is {name}"
    if others:
        line += f", or {shorten(others, 3)}, which compute the same and whose preprocessing differs: name yours with --arch"
    notes = [warn("architecture", line)]
    if remark:
        notes.append(warn("architecture", remark))
    classes = {match.classes for match in found}
    return Identified(name, classes.pop() if len(classes) == 1 else None, tuple(notes))


def apart(names: Sequence[str]) -> list[str]:
    """Say what tells architectures apart: input, mean, and layers that not all of them have.

    Args:
        names: with their library.

    Returns:
        `--arch NAME (what)` of each.
    """
    kinds = [_kinds(name) for name in names]
    common = set.intersection(*kinds)
    found = []
    for name, own in zip(names, kinds, strict=True):
        config = default_config(name)
        parts = [
            "x".join(str(edge) for edge in config["input_size"][1:]),
            f"mean {config['mean'][0]:g}",
            *sorted(own - common)[:_MOST_KINDS],
        ]
        found.append(f"--arch {name} ({', '.join(parts)})")
    return found


def _kinds(name: str) -> set[str]:
    """Name the classes of an architecture's layers; none where it cannot be built on the meta device."""
    try:
        with torch.device("meta"):
            module = build_architecture(name, {}).module
    except Exception:  # not every architecture can be built there
        return set()
    return {type(child).__name__ for child in module.modules() if not any(True for _ in child.children())}

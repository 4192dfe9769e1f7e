"""From the names and shapes of a checkpoint's tensors to the architectures that they fit.

An architecture's fingerprint is a sum of digests, modulo 2^64: one of the name and shape of each floating-point tensor outside of the classifier. Sums do
not depend on the order, and the sum of a part of a checkpoint, such as what lies behind a prefix, less a classifier of any name, costs a subtraction. A match
is a proposal: names and shapes are compared one by one when the weights are loaded.

The table of fingerprints is made by `scripts/fingerprints.py`. Architectures of one fingerprint stand in groups: those of a group gave the same
embedding of the same image with the same random weights.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, final

from gcaudit.bundled import bundled_path

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of floating-point tensors by name."""
Groups = tuple[tuple[str, ...], ...]
"""Names of architectures of one fingerprint, by what they compute; timm's first."""
_SIZE = 2**64
_FEWEST = 4


@final
@dataclass(frozen=True)
class Table:
    """Fingerprints of architectures.

    Attributes:
        versions: of timm and torchvision.
        heads: names of classifiers' modules, of all architectures.
        groups: by head (its place among `heads`) and fingerprint.
        names: all architectures in the table.
    """

    versions: Mapping[str, str]
    heads: tuple[tuple[str, ...], ...]
    groups: Mapping[tuple[int, int], Groups]
    names: frozenset[str]


@final
@dataclass(frozen=True)
class Match:
    """Architectures that some tensors fit.

    Attributes:
        prefix: before all their names.
        head: names of the classifier's modules.
        groups: the architectures.
        classes: outputs of the classifier where the tensors have one, else None.
    """

    prefix: str
    head: tuple[str, ...]
    groups: Groups
    classes: int | None


def digest(name: str, shape: tuple[int, ...]) -> int:
    """Digest a tensor's name and shape to 64 bits."""
    return int.from_bytes(hashlib.blake2b(f"{name}\0{shape}".encode(), digest_size=8).digest(), "big")


def fingerprint(shapes: Shapes, head: tuple[str, ...]) -> int:
    """Make the fingerprint of an architecture.

    Args:
        shapes: of its floating-point tensors.
        head: names of the classifier's modules.

    Returns:
        64 bits.
    """
    return sum(digest(name, shape) for name, shape in shapes.items() if not in_head(name, head)) % _SIZE


def in_head(name: str, head: tuple[str, ...]) -> bool:
    """Tell whether a tensor is one of the classifier's."""
    return any(name.startswith(f"{module}.") for module in head)


@cache
def known_fingerprints() -> Table:
    """Read the table that comes with gcaudit."""
    found = json.loads(gzip.decompress(bundled_path("fingerprints.json.gz").read_bytes()))
    return table_of(found)


def table_of(found: Mapping[str, Any]) -> Table:
    """Read a table.

    Args:
        found: as `scripts/fingerprints.py` writes it.

    Returns:
        The table.
    """
    groups = {(head, int(key, 16)): tuple(tuple(group) for group in value) for head, key, value in found["fingerprints"]}
    names = frozenset(name for each in groups.values() for group in each for name in group)
    return Table(found["versions"], tuple(tuple(head) for head in found["heads"]), groups, names)


def prefixes_of(names: Iterable[str]) -> dict[str, list[str]]:
    """Group names by all prefixes that end in a dot; the empty one has all of them."""
    found: dict[str, list[str]] = {}
    for name in names:
        end = 0
        while True:
            found.setdefault(name[:end], []).append(name)
            end = name.find(".", end) + 1
            if not end:
                break
    return found


def identify(shapes: Shapes, table: Table) -> list[Match]:
    """Find the architectures that tensors fit behind any prefix, whatever their classifier is.

    Args:
        shapes: of all floating-point tensors.
        table: of fingerprints.

    Returns:
        Matches; several where the tensors hold several networks.
    """
    found = []
    for prefix, members in prefixes_of(shapes).items():
        if len(members) < _FEWEST:
            continue
        inner = {name[len(prefix) :]: shapes[name] for name in members}
        digests = {name: digest(name, shape) for name, shape in inner.items()}
        whole = sum(digests.values())
        for place, head in enumerate(table.heads):
            of_head = [name for name in inner if in_head(name, head)]
            groups = table.groups.get((place, (whole - sum(digests[name] for name in of_head)) % _SIZE))
            if groups:
                found.append(Match(prefix, head, groups, _classes(inner, head)))
    return found


def _classes(shapes: Shapes, head: tuple[str, ...]) -> int | None:
    sizes = {shapes[f"{module}.weight"][0] for module in head if shapes.get(f"{module}.weight")}
    return sizes.pop() if len(sizes) == 1 else None

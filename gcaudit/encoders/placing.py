"""Where in a checkpoint the weights of a network lie: behind which prefix of the names, and in which of several sets."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from torch import nn

from gcaudit.checkpoints import WeightSet

_SECONDARY = re.compile(r"(^|[._])(encoder_k|momentum|ema|averaged?|student|offline|target)([._]|$)")
"""Words in names of a second copy of a network, which follows the first or teaches from it less well."""
_AS_GOOD = 0.999


@final
@dataclass(frozen=True)
class Place:
    """A prefix under which the names of a network are found.

    Attributes:
        prefix: before the names.
        numbers: in the tensors whose names and shapes are the network's.
        names: how many names are the network's.
    """

    prefix: str
    numbers: int
    names: int


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a module's tensors of floating-point numbers."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items() if tensor.is_floating_point()}


def places(given: Mapping[str, Sequence[int]], expected: Mapping[str, Sequence[int]]) -> list[Place]:
    """Find the prefixes behind which a network's names lie.

    Args:
        given: shapes by name, of a checkpoint.
        expected: those of the network.

    Returns:
        The best first; of equally good ones that whose name says nothing of a second copy, then the shortest.
    """
    names: dict[str, int] = {}
    numbers: dict[str, int] = {}
    for name, shape in given.items():
        start = 0
        while True:
            inner = expected.get(name[start:])
            if inner is not None:
                prefix = name[:start]
                names[prefix] = names.get(prefix, 0) + 1
                numbers[prefix] = numbers.get(prefix, 0) + (math.prod(shape) if tuple(shape) == tuple(inner) else 0)
            start = name.find(".", start) + 1
            if not start:
                break
    found = [Place(prefix, numbers[prefix], count) for prefix, count in names.items()]
    return sorted(found, key=lambda place: (-place.numbers, -place.names, *_standing(place.prefix)))


def _standing(prefix: str) -> tuple[bool, int, str]:
    return _SECONDARY.search(prefix) is not None, len(prefix), prefix


def as_good(found: Sequence[Place]) -> list[Place]:
    """Take the best place and those that fit as well."""
    return [place for place in found if found[0].numbers and place.numbers >= _AS_GOOD * found[0].numbers]


def best_set(sets: Sequence[WeightSet], expected: Mapping[str, Sequence[int]], start: str = "") -> WeightSet:
    """Take the set of tensors that fits a network best.

    Args:
        sets: in their customary order, which decides between equally good ones.
        expected: shapes by name, of the network.
        start: of the prefix behind which its names lie.

    Returns:
        One of them.
    """
    found = (places(one.shapes, expected) for one in sets)
    numbers = [max((place.numbers for place in each if place.prefix.startswith(start)), default=0) for each in found]
    most = max(numbers)
    return next(one for one, count in zip(sets, numbers, strict=True) if count >= _AS_GOOD * most)

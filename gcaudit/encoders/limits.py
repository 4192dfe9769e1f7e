"""A bound on what a network may be built of: a file that names its own architecture may name one without end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from gcaudit.errors import ArchitectureError

_MOST_TENSORS = 50_000
_SPARE = 50_000_000
_RANGES = frozenset((torch.arange, torch.linspace))
_SIZED = frozenset((torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full, torch.eye)) | _RANGES


def room_for(numbers: int) -> int:
    """Return how many numbers a network may have that a file can fill.

    Args:
        numbers: in the file.

    Returns:
        Twice as many, and some for what a network computes by itself.
    """
    return 2 * numbers + _SPARE


@contextmanager
def at_most(numbers: int | None, name: str) -> Iterator[None]:
    """Refuse to build a network of more numbers, before memory is taken for them.

    Args:
        numbers: that may be made; None sets no bound.
        name: of the architecture.

    Raises:
        ArchitectureError: the network is larger, or has more tensors than any.
    """
    if numbers is None:
        yield
        return
    with _Counter(numbers, name):
        yield


class _Counter(TorchFunctionMode):
    """Counts the tensors that are made, before they are."""

    def __init__(self, most: int, name: str) -> None:
        super().__init__()
        self._most, self._name, self._numbers, self._tensors = most, name, 0, 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _SIZED:
            self._tensors += 1
            self._numbers += _steps(args, kwargs or {}) if function in _RANGES else _numbers(args, kwargs or {})
            if self._numbers > self._most or self._tensors > _MOST_TENSORS:
                raise _TooLargeError(
                    f"expected a network of up to {self._most} numbers, as the file may fill, found that {self._name} has more; "
                    "name the architecture with --arch, or pass --max-parameters N"
                )
        return function(*args, **(kwargs or {}))


class _TooLargeError(ArchitectureError):
    """The network is larger than may be."""


def _steps(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return the largest whole number among the arguments of a range: no range is longer."""
    return max((abs(value) for value in (*args, *kwargs.values()) if isinstance(value, int)), default=1)


def _numbers(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    sizes = kwargs.get("size", args)
    if sizes and isinstance(sizes[0], list | tuple):
        sizes = sizes[0]
    whole = [abs(size) for size in sizes if isinstance(size, int)]
    return math.prod(whole) if whole else 1

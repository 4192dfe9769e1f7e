"""How the tensors of a checkpoint match a module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor


@final
@dataclass(frozen=True)
class Fit:
    """How tensors match a module.

    Attributes:
        prefix: what was stripped from the checkpoint's keys.
        tensors: the module's key to tensor, for all that match.
        missing: the module's keys without a tensor, those of the head apart.
        unexpected: the checkpoint's keys without a place, those of the head apart.
        misshapen: the checkpoint's keys of tensors of another shape, those of the head apart, each with its tensor and the module's.
        head: `fits`, `resized` (another number of classes) or `absent`.
        head_left: the checkpoint's keys of a head that has no place in the network.
        outside: the checkpoint's keys of other networks and of modules that serve training alone.
        prefixes: other prefixes behind which the names and shapes fit as well.
    """

    prefix: str
    tensors: Mapping[str, Tensor]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: Mapping[str, tuple[Tensor, Tensor]]
    head: str
    head_left: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every tensor has its place."""
        return not (self.missing or self.unexpected or self.misshapen)

    def better_than(self, other: Fit) -> bool:
        """Tell whether more tensors have their place."""
        return len(self.tensors) > len(other.tensors)

"""Which model, and how it is to be read: what is asked of this room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True)
class ModelRequest:
    """Which model, and how it is to be read.

    Attributes:
        spec: `demo`, a path, `timm:NAME[.TAG]`, `hf-hub:ORG/REPO[@REV]`, `torchvision:NAME[:WEIGHTS]`, or a module.
        arch: what a bare state dict is.
        arch_args: keyword arguments of the architecture.
        ema: take averaged weights.
        weights_key: under which the weights lie in the file; None looks for them.
        prefix: before the network's names in the file; None looks for it.
        allow_missing: make missing and unexpected keys a warning.
        max_parameters: numbers that a network may have; None takes as many as the file may fill, where the file names its architecture.
        layer: take this layer's output instead of the classifier's input.
        changes: preprocessing typed by the user: mean, std, input_size (H, W), crop_pct, interpolation.
    """

    spec: str | nn.Module
    arch: str | None = None
    arch_args: Mapping[str, Any] = field(default_factory=dict)
    ema: bool = False
    weights_key: str | None = None
    prefix: str | None = None
    allow_missing: bool = False
    max_parameters: int | None = None
    layer: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read a path as its text."""
        if isinstance(self.spec, PurePath):
            object.__setattr__(self, "spec", str(self.spec))

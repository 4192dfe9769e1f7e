"""A frozen network whose embedding can be taken: what this room gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from gcaudit.checkpoints import Checkpoint
from gcaudit.encoders.preprocessing import Preprocessing
from gcaudit.encoders.taps import Tap
from gcaudit.report import ReportWarning


@final
@dataclass(frozen=True)
class Encoder:
    """A frozen network in eval mode whose embedding can be taken.

    Attributes:
        module: the network; parameters need no gradient.
        tap: where the embedding is taken.
        dim: D.
        head_outputs: classes of its own head, None when it has none.
        linear_head: the head is one linear layer on the embedding, as its outputs have shown.
        preprocessing: from pictures to its input.
        spec: as the user named it.
        arch: the architecture's name.
        sha256: of the file, or of the weights of a model that is no file.
        parameters: how many numbers it has learned.
        checkpoint: the file it came from, if any.
        warnings: what the report should say of it.
    """

    module: nn.Module
    tap: Tap
    dim: int
    head_outputs: int | None
    preprocessing: Preprocessing
    spec: str
    arch: str
    sha256: str
    parameters: int
    linear_head: bool = False
    checkpoint: Checkpoint | None = None
    warnings: tuple[ReportWarning, ...] = ()

    def embed(self, pixels: Tensor) -> Tensor:
        """Embed images given in pixel scale; normalisation is part of the function.

        Args:
            pixels: (N, C, H, W) in [0, 1].

        Returns:
            (N, D) embeddings.
        """
        return self.encode(self.preprocessing.normalize(pixels))[0]

    def encode(self, inputs: Tensor, *, logits: bool = False) -> tuple[Tensor, Tensor | None]:
        """Embed images given as the network's own input.

        Args:
            inputs: (N, C, H, W), normalised.
            logits: also return the head's output.

        Returns:
            (N, D) embeddings, and (N, classes) logits or None.
        """
        return self.tap(self.module, inputs, logits=logits and self.head_outputs is not None)

    def head_weight(self) -> Tensor | None:
        """Return the weights of the head where it is one linear layer on the embedding.

        Returns:
            (classes, D) float64 on the CPU; None also where a norm, a second head or anything else stands between embedding and logits.
        """
        if self.head_outputs is None or not self.linear_head:
            return None
        head = self.module.get_submodule(self.tap.layer)
        assert isinstance(head, nn.Linear | nn.Conv2d)
        return head.weight.detach().flatten(1).to("cpu", torch.float64)

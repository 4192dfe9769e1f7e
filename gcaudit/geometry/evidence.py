"""Evidence: all that one pass over a data set has seen, and that the metrics need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from gcaudit.geometry.curvature import Flatness
from gcaudit.geometry.moments import ClassMoments
from gcaudit.geometry.pairs import ClassPairs, measure_pairs
from gcaudit.geometry.rows import Rows
from gcaudit.geometry.spectrum import Spectrum, decompose


@final
@dataclass(frozen=True)
class LogitEnergies:
    """Energies of the head's outputs, of the images that have one of the embedding.

    Attributes:
        values: (M,) float64, in the order of `Evidence.energy_rows`.
        estimator: how they were taken; `exact` where there are no more classes than vectors.
        vectors: VJPs behind each.
    """

    values: Tensor
    estimator: str
    vectors: int


@final
@dataclass(frozen=True)
class HeldOut:
    """Images of the same classes that no class mean is of.

    Attributes:
        embeddings: (M, D) float32 or float64 rows on the CPU.
        labels: (M,) int64 in 0..K-1; a class may have none.
    """

    embeddings: Rows
    labels: Tensor


@final
@dataclass(frozen=True)
class Evidence:
    """What was observed on one data set.

    Attributes:
        embeddings: (N, D) float32 or float64 rows on the CPU, in the order of the data set.
        labels: (N,) int64 in 0..K-1.
        class_names: K names.
        moments: class moments of the embeddings.
        fingerprint: names the data; episodes are drawn from it.
        energies: (M,) float64 energies g(x), or None when they were not measured.
        energy_rows: (M,) int64 rows of `embeddings` that the energies belong to.
        estimator: how the energies were taken (`sketch`, `exact`, `outputs`).
        vectors: VJPs behind each energy.
        predictions: (N,) int64 classes the model's own head says, numbered like `labels`, -1 for a class outside of them;
            None with `predictions_reason`.
        predictions_reason: why there are no predictions.
        logits: (N, Z) outputs of the model's own head, whatever classes it was trained on, in the order of `embeddings`; None with
            `logits_reason`.
        logits_reason: why there are no logits.
        head_weight: (K, D) float64 weights of a linear head, row c for class c of `labels`; None with `head_reason`.
        head_reason: why there are no weights.
        logit_energies: of the head's outputs, or None when they were not measured.
        flatness: of the loss of the model's head on images of this data set; None with `flatness_reason`.
        flatness_reason: why there is none.
        lipschitz: a constant that the embedding's change over that of the pixels never exceeds; None with `lipschitz_reason`.
        lipschitz_reason: why there is none.
        held_out: images of the same classes that are in nothing of the above, or None.
    """

    embeddings: Rows
    labels: Tensor
    class_names: tuple[str, ...]
    moments: ClassMoments
    fingerprint: str
    energies: Tensor | None = None
    energy_rows: Tensor | None = None
    estimator: str = "sketch"
    vectors: int = 1
    predictions: Tensor | None = None
    predictions_reason: str = "the model's head was not evaluated"
    logits: Rows | None = None
    logits_reason: str = "the outputs of the model's head were not kept"
    head_weight: Tensor | None = None
    head_reason: str = "the weights of the model's head were not given"
    logit_energies: LogitEnergies | None = None
    flatness: Flatness | None = None
    flatness_reason: str = "the loss of the model's head was not looked at"
    lipschitz: float | None = None
    lipschitz_reason: str = "the network's layers were not looked at"
    held_out: HeldOut | None = None

    @property
    def classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)

    @property
    def images(self) -> int:
        """N, the number of images."""
        return len(self.labels)

    @cached_property
    def spectrum(self) -> Spectrum:
        """Singular values and vectors of the embeddings; made at the first use, which takes a pass over them, and shared by all scores."""
        return decompose(self.embeddings, self.labels, self.moments)

    @cached_property
    def pairs(self) -> ClassPairs:
        """Distances between class means without bias; made at the first use, of classes with at least 2 images each."""
        return measure_pairs(self.embeddings, self.labels, self.moments, self.fingerprint)

    def energy_counts(self) -> Tensor:
        """Return how many energies each class has.

        Returns:
            (K,) int64; zeros when no energies were measured.
        """
        if self.energy_rows is None:
            return torch.zeros(self.classes, dtype=torch.int64)
        return torch.bincount(self.labels[self.energy_rows], minlength=self.classes)

"""Chosen images, by class: what this room gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gcaudit.data.readers import Reader
from gcaudit.report import ReportWarning


@final
@dataclass(frozen=True)
class ImageSet:
    """Chosen images, by class.

    Attributes:
        spec: as typed, or the type of a Python object.
        split: which was taken.
        family: what class names belong to; equal names of one family are the same class.
        reader: random access.
        labels: (N,) int64 in 0..K-1.
        index: (N,) int64 row of each image in the reader, ascending: the image's index in its data set.
        class_names: K names.
        class_numbers: K numbers of these classes in the whole data set.
        total_classes: classes in the whole data set.
        warnings: what the report should say of them.
        columns: of a table, those taken for images and labels.
    """

    spec: str
    split: str | None
    family: str
    reader: Reader
    labels: Tensor
    index: Tensor
    class_names: tuple[str, ...]
    class_numbers: tuple[int, ...]
    total_classes: int
    warnings: tuple[ReportWarning, ...] = ()
    columns: tuple[str, str] | None = None

    def where(self, place: int) -> str:
        """Say where an image comes from.

        Args:
            place: of the image, in 0..N-1.

        Returns:
            As its reader says.
        """
        return self.reader.where(int(self.index[place]))

    @property
    def counts(self) -> Tensor:
        """(K,) images of each class."""
        return torch.bincount(self.labels, minlength=len(self.class_names))

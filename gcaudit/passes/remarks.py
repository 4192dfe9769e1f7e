"""What a pass has to say of the pictures that went through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch

from gcaudit.data import REMARKS, Batch, ImageSet
from gcaudit.encoders import Preprocessing
from gcaudit.errors import DataError
from gcaudit.report import ReportWarning, warn

_SMALLER, _LARGER = 2, 16
"""Pictures so many times smaller or larger than the input are hardly what the network was trained on."""


@final
class Remarks:
    """Collects what happened to the pictures of a pass.

    Attributes:
        failures: why images could not be decoded.
    """

    def __init__(self, images: ImageSet, preprocessing: Preprocessing) -> None:
        """Start with nothing.

        Args:
            images: the image set.
            preprocessing: of the encoder.
        """
        self.failures: list[str] = []
        self._images, self._preprocessing = images, preprocessing
        self._sizes = torch.zeros(len(images.labels), 2, dtype=torch.int64)
        self._remarks: dict[str, list[int]] = {}
        self._shape: tuple[int, ...] | None = None

    def update(self, batch: Batch) -> None:
        """Take note of a batch.

        Args:
            batch: as decoded.

        Raises:
            DataError: the encoder takes images of another number of channels.
        """
        if batch.sizes is not None:
            self._sizes[batch.positions] = batch.sizes
        for place, remark in batch.remarks:
            self._remarks.setdefault(remark, []).append(place)
        if not len(batch.positions):
            return
        self._shape = tuple(batch.pixels.shape[1:])
        channels = self._preprocessing.input_size[0]
        if self._shape[0] != channels:
            found = " x ".join(str(n) for n in self._shape)
            hint = "; (H, W, C) images have to be permuted" if self._shape[-1] == channels else ""
            raise DataError(f"expected images (N, {channels}, H, W) for this encoder, found {found}{hint}")

    @property
    def left_alone(self) -> int:
        """Pictures of the input's size that were neither resized nor cropped, since nobody has asked for a crop."""
        _, height, width = self._preprocessing.input_size
        alike = (self._sizes[:, 0] == width) & (self._sizes[:, 1] == height)
        return int(alike.sum()) if self._preprocessing.leaves_input_size else 0

    def warnings(self) -> list[ReportWarning]:
        """Return what the report should say."""
        found = []
        if self.failures:
            line = f"{{n}} images could not be decoded and were left out; the first: {self.failures[0]}"
            found.append(warn("left-out", line, self.failures))
        for remark, places in sorted(self._remarks.items()):
            found.append(warn(*REMARKS[remark], self._first(places), len(places)))
        return [*found, *self._size_warnings()]

    def _first(self, places: Sequence[int]) -> list[str]:
        """Name the first three of some places."""
        return [self._images.reader.where(int(self._images.index[place])) for place in sorted(places)[:3]]

    def _size_warnings(self) -> list[ReportWarning]:
        """Tell of sizes that ask whether the input is right, and of an assumed crop where it mattered."""
        _, height, width = self._preprocessing.input_size
        pictures = self._sizes.prod(1) > 0
        short, edge = self._sizes.min(1).values, min(height, width)
        found = []
        for what, chosen in (("smaller", short * _SMALLER < edge), ("larger", short > _LARGER * edge)):
            places = (pictures & chosen).nonzero().flatten().tolist()
            if places:
                middle = " x ".join(str(n) for n in self._sizes[places].median(0).values.tolist())
                line = (
                    f"{{n}} pictures are much {what} than the input of {width} x {height} (the middle one {middle}); "
                    "pass --input-size if training used another"
                )
                found.append(warn("picture-size", line, self._first(places), len(places)))
        if self._shape is not None and self._shape[1:] != (height, width):
            given = " x ".join(str(n) for n in reversed(self._shape[1:]))
            line = f"images come as tensors of {given} and are taken as they are, while the preprocessing says {width} x {height}"
            found.append(warn("picture-size", line))
        resized = pictures & ((self._sizes[:, 0] != width) | (self._sizes[:, 1] != height))
        return [*found, *self._assumed_crop(resized.nonzero().flatten().tolist())]

    def _assumed_crop(self, resized: Sequence[int]) -> list[ReportWarning]:
        preprocessing = self._preprocessing
        assumed = [part for part in ("crop_pct", "interpolation") if part in preprocessing.assumed]
        if not resized or not assumed:
            return []
        values = {"crop_pct": f"crop {preprocessing.crop_pct:.4g}", "interpolation": f"{preprocessing.interpolation} interpolation"}
        options = " and ".join(f"--{part.replace('_', '-')}" for part in assumed)
        told = " and ".join(values[part] for part in assumed)
        line = f"{told} assumed for {{n}} pictures of other sizes than the input; pass {options}"
        return [warn("preprocessing", line, self._first(resized), len(resized))]

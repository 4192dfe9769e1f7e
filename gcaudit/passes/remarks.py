"""What a pass has to say of the pictures that went through it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from gcaudit.data import REMARKS, Batch, ImageSet
from gcaudit.encoders import Preprocessing
from gcaudit.errors import DataError
from gcaudit.report import ReportWarning, warn

_LOWEST_LEVEL = 1 / 64
_SMALLER, _LARGER = 2, 16
_MUCH = {"smaller": f"less than 1/{_SMALLER} of", "larger": f"more than {_LARGER} times"}
"""Pictures so many times smaller or larger than the input are hardly what the network was trained on."""


@final
class _Group:
    """Images of which one thing is said: how many there are, and the first three."""

    def __init__(self) -> None:
        self.count = 0
        self.places: list[int] = []

    def add(self, places: Sequence[int]) -> None:
        self.count += len(places)
        self.places = sorted([*self.places, *sorted(places)[:3]])[:3]


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
        self._groups: defaultdict[str, _Group] = defaultdict(_Group)
        self._odd_sizes: dict[str, list[Tensor]] = {"smaller": [], "larger": []}
        self._shape: tuple[int, ...] | None = None
        self._highest = 0.0

    def update(self, batch: Batch) -> None:
        """Take note of a batch.

        Args:
            batch: as decoded.

        Raises:
            DataError: the encoder takes images of another number of channels.
        """
        if batch.sizes is not None:
            self._sort(batch.positions, batch.sizes)
        for place, remark in batch.remarks:
            self._groups[remark].add([place])
        if not len(batch.positions):
            return
        self._shape = tuple(batch.pixels.shape[1:])
        if batch.sizes is None or not bool(batch.sizes.any()):  # tensors, which are taken as they are
            self._highest = max(self._highest, float(batch.pixels.max()) / (1 if batch.pixels.is_floating_point() else 255))
        channels = self._preprocessing.input_size[0]
        if self._shape[0] != channels:
            found = " x ".join(str(n) for n in self._shape)
            hint = "; (H, W, C) images have to be permuted" if self._shape[-1] == channels else ""
            raise DataError(f"expected images (N, {channels}, H, W) for this encoder, found {found}{hint}")

    def _sort(self, positions: Tensor, sizes: Tensor) -> None:
        """Sort pictures by what their size means for the input."""
        _, height, width = self._preprocessing.input_size
        pictures = sizes.prod(1) > 0  # tensors have none
        short, edge = sizes.min(1).values, min(height, width)
        alike = (sizes[:, 0] == width) & (sizes[:, 1] == height)
        odd = {"smaller": pictures & (short * _SMALLER < edge), "larger": pictures & (short > _LARGER * edge)}
        for name, chosen in {"alike": alike, "resized": pictures & ~alike, **odd}.items():
            self._groups[name].add(positions[chosen].tolist())
        for name, chosen in odd.items():
            self._odd_sizes[name].append(sizes[chosen])

    @property
    def left_alone(self) -> int:
        """Pictures of the input's size that were neither resized nor cropped, since nobody has asked for a crop."""
        return self._groups["alike"].count if self._preprocessing.leaves_input_size else 0

    def warnings(self) -> list[ReportWarning]:
        """Return what the report should say."""
        found = []
        if self.failures:
            line = f"{{n}} images could not be decoded and were left out; the first: {self.failures[0]}"
            found.append(warn("left-out", line, self.failures))
        found += [self._warn(*REMARKS[remark], remark) for remark in sorted(REMARKS) if self._groups[remark].count]
        return [*found, *self._size_warnings()]

    def _warn(self, kind: str, line: str, group: str) -> ReportWarning:
        """Make a warning of a group of images."""
        found = self._groups[group]
        where = [self._images.where(place) for place in found.places]
        return warn(kind, line, where, found.count)

    def _size_warnings(self) -> list[ReportWarning]:
        """Tell of sizes that ask whether the input is right, and of an assumed crop where it mattered."""
        _, height, width = self._preprocessing.input_size
        found = []
        for what, sizes in self._odd_sizes.items():
            if self._groups[what].count:
                middle = " x ".join(str(n) for n in torch.cat(sizes).median(0).values.tolist())
                line = (
                    f"{{n}} pictures are much {what} ({_MUCH[what]} its side) than the input of {width} x {height} (the middle one {middle}); "
                    "pass --input-size if training used another"
                )
                found.append(self._warn("picture-size", line, what))
        if self._shape is not None and self._shape[1:] != (height, width):
            given = " x ".join(str(n) for n in reversed(self._shape[1:]))
            line = f"images come as tensors of {given} and are taken as they are, while the preprocessing says {width} x {height}"
            found.append(warn("picture-size", line))
        if 0 < self._highest < _LOWEST_LEVEL:
            line = f"no pixel is above {self._highest:.2g} of 1: were they divided by 255 twice?"
            found.append(warn("preprocessing", line))
        return [*found, *self._assumed_crop()]

    def _assumed_crop(self) -> list[ReportWarning]:
        preprocessing = self._preprocessing
        assumed = [part for part in ("crop_pct", "interpolation") if part in preprocessing.assumed]
        if not self._groups["resized"].count or not assumed:
            return []
        values = {"crop_pct": f"crop {preprocessing.crop_pct:.4g}", "interpolation": f"{preprocessing.interpolation} interpolation"}
        options = " and ".join(f"--{part.replace('_', '-')}" for part in assumed)
        told = " and ".join(values[part] for part in assumed)
        line = f"{told} assumed for {{n}} pictures of other sizes than the input; pass {options}"
        return [self._warn("preprocessing", line, "resized")]

"""A batch size found by timing, on batches that count.

How many images a batch should have depends on the network, the machine and its caches, and cannot be told from any of them alone. So the first
batches of a pass are run at growing sizes, twice each, and the size that ran most images a second is kept. Nothing is run for the
sake of timing: results do not depend on the batch size, so every batch is used.
"""

from __future__ import annotations

import math
from typing import final

_GAIN = 1.03
_RUNS = 2


def _power_of_two(value: float) -> int:
    return 1 << max(0, math.floor(math.log2(max(1.0, value))))


@final
class BatchSize:
    """The size of the batches of one kind of pass.

    Attributes:
        size: images of the next batch.
        largest: no batch will have more.
        settled: whether the size is final.

    Example:
        >>> batch = BatchSize(8, 16)
        >>> for seconds in (1.0, 0.5, 1.2, 1.1):  # 16 then 14.5 images a second
        ...     batch.record(batch.size, seconds)
        >>> batch.size, batch.settled
        (8, True)
    """

    def __init__(self, size: int, largest: int, *, fixed: bool = False) -> None:
        """Start.

        Args:
            size: the first to try.
            largest: the largest to try.
            fixed: keep `size`.
        """
        self.size = size
        self.largest = max(size, largest)
        self.settled = fixed or size >= self.largest
        self._best = (0.0, size)
        self._rates: list[float] = []

    def record(self, images: int, seconds: float) -> None:
        """Note how long a batch took.

        Args:
            images: of the batch; one that was not full tells nothing.
            seconds: that it took.
        """
        if self.settled or images != self.size:
            return
        self._rates.append(images / max(seconds, 1e-9))
        if len(self._rates) < _RUNS:
            return
        rate = max(self._rates)
        self._rates = []
        if rate > _GAIN * self._best[0]:
            self._best = (rate, self.size)
            if 2 * self.size <= self.largest:
                self.size *= 2
                return
        self.size, self.settled = self._best[1], True

    def cap(self, largest: int) -> None:
        """Forbid larger batches, since memory does not allow them.

        Args:
            largest: images.
        """
        self.largest = min(self.largest, max(1, largest))
        rate, best = self._best
        if self.size > self.largest:
            self.size, self.settled = best if rate and best <= self.largest else self.largest, True


def sizes_to_try(pixels: int, device: str) -> tuple[int, int]:
    """Say where the search starts and where it ends.

    Args:
        pixels: of an image, all channels.
        device: type of the device.

    Returns:
        The first size and the largest.
    """
    photos = 3 * 224 * 224 / max(1, pixels)
    if device == "cpu":
        return min(32, _power_of_two(8 * photos)), min(256, _power_of_two(64 * photos))
    return min(256, _power_of_two(32 * photos)), min(4096, _power_of_two(512 * photos))

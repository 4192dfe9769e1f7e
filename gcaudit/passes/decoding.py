"""How long a pass waits for images, and how many processes decode them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import final

import torch

from gcaudit.data import Batch, ImageSet, Transform, open_picture

_FEW_IMAGES = 256
_TIMED = 8
_WORTH_SECONDS = 3.0
"""What a process takes to start, and the share of a core that it takes from the network, is made up for by as much decoding."""
_MOST_WORKERS = 4


def choose_workers(images: ImageSet, transform: Transform) -> int:
    """Choose the number of decoding processes by how long some images take to be read and decoded.

    Args:
        images: the data set.
        transform: from a picture to pixels.

    Returns:
        0 where all of them take a few seconds.
    """
    size = len(images.labels)
    if size < _FEW_IMAGES:
        return 0
    places = torch.linspace(0, size - 1, _TIMED + 1).long().tolist()
    began = time.perf_counter()
    for number, place in enumerate(places):
        if number == 1:  # the first opens files and loads decoders
            began = time.perf_counter()
        with suppress(Exception):  # what ails an image is told in the pass
            raw = images.reader.read(int(images.index[place]))
            if not isinstance(raw, torch.Tensor):
                transform(open_picture(raw, turn=False)[0])
    seconds = (time.perf_counter() - began) / _TIMED * size
    return 0 if seconds < _WORTH_SECONDS else min(_MOST_WORKERS, os.cpu_count() or 1)


@final
class Clock:
    """Hands batches on, and adds up how long they were waited for.

    Attributes:
        seconds: so far.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        """Start at 0.

        Args:
            batches: as they are decoded.
        """
        self._batches, self.seconds = batches, 0.0

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches."""
        batches = iter(self._batches)
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.seconds += time.perf_counter() - began
            if batch is None:
                return
            yield batch

"""Where a pass's embeddings, predictions and logits go on their way from the device to the host."""

from __future__ import annotations

from collections import deque
from typing import Any, final

import torch
from torch import Tensor

from gcaudit.data import ImageSet
from gcaudit.errors import AuditError
from gcaudit.passes.embeddings import EmbeddingStore
from gcaudit.passes.runner import Outputs, Runner

_IN_FLIGHT = 2


@final
class OutputCollector:
    """Brings a pass's outputs to the host, without making it wait for the batch that was just launched.

    Attributes:
        store: the embeddings.
        predictions: (N,) int64 of the head, or None when they are not wanted.
        logits: the head's outputs, or None when they are not wanted.
    """

    def __init__(self, runner: Runner, images: ImageSet, predictions: Tensor | None, logits: bool) -> None:
        """Reserve the space.

        Args:
            runner: whose outputs will come.
            images: the image set.
            predictions: (N,) int64 to fill, or None.
            logits: whether to keep the head's outputs, if there is a head.
        """
        self.images = images
        self.store = EmbeddingStore(len(images.labels), runner.encoder.dim, runner.kind)
        self.predictions = predictions
        outputs = runner.encoder.head_outputs
        self.logits = EmbeddingStore(len(images.labels), outputs, torch.float32) if logits and outputs is not None else None
        self.asynchronous = runner.device.type == "cuda"
        self.waiting: deque[tuple[Any, Tensor, list[Tensor | None]]] = deque()

    @property
    def wants_head(self) -> bool:
        """Whether the head has to be run."""
        return self.predictions is not None or self.logits is not None

    def put(self, places: Tensor, embeddings: Tensor, found: Outputs) -> None:
        """Take the outputs of a batch.

        Args:
            places: (B,) int64 places in the data set, on the CPU.
            embeddings: (B, D) on the device, in the pass's type.
            found: the batch's outputs.
        """
        parts = [
            embeddings,
            found.predictions if self.predictions is not None else None,
            found.logits.to(torch.float32) if self.logits is not None and found.logits is not None else None,
        ]
        if not self.asynchronous:
            self._keep(places, [None if part is None else part.cpu() for part in parts])
            return
        copies = [None if part is None else self._copy(part) for part in parts]
        event = torch.cuda.current_stream(embeddings.device).record_event()
        self.waiting.append((event, places, copies))
        self.drain(_IN_FLIGHT)

    def _copy(self, values: Tensor) -> Tensor:
        return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)

    def drain(self, leave: int = 0) -> None:
        """Wait for outputs on their way.

        Args:
            leave: so many batches may stay under way.
        """
        while len(self.waiting) > leave:
            event, places, parts = self.waiting.popleft()
            event.synchronize()
            self._keep(places, parts)

    def _keep(self, places: Tensor, parts: list[Tensor | None]) -> None:
        embeddings, predictions, logits = parts
        assert embeddings is not None
        check_finite(self.images, embeddings, "embedding", places)
        self.store.put(places, embeddings)
        if self.predictions is not None and predictions is not None:
            self.predictions[places] = predictions
        if self.logits is not None and logits is not None:
            check_finite(self.images, logits, "output of the head", places)
            self.logits.put(places, logits)


def check_finite(images: ImageSet, values: Tensor, what: str, places: Tensor) -> None:
    """Make sure that nothing overflowed.

    Args:
        images: the image set.
        values: (B, ...) numbers.
        what: they are, for the message.
        places: (B,) int64 of the images.

    Raises:
        AuditError: NaN or inf, naming the first image that has it.
    """
    if bool(torch.isfinite(values.sum())):  # one sum tells of any, and is far cheaper than a look at each
        return
    bad = (~torch.isfinite(values)).flatten(1).any(1).nonzero()
    if len(bad):
        raise AuditError(
            f"expected a finite {what}, found NaN or inf for {images.where(int(places[int(bad[0])]))}; "
            "try --precision float64, or check the weights"
        )

"""What is kept of one model and one data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gcaudit.geometry import ClassSummary
from gcaudit.metrics import Role
from gcaudit.report import DataBlock, ReportEvidence, ReportWarning


@final
@dataclass(frozen=True)
class Block:
    """What was measured on one data set with one model.

    Attributes:
        role: of the data set.
        data: its part of the report.
        evidence: arrays behind the numbers.
        digests: (N, 16) uint8 digests of the images, to find those that two data sets share.
        perceptual: (N, 64) uint8 hashes of what they look like, to find those that are nearly the same.
        family: what the class names belong to; equal names of one family are the same class.
        warnings: what the report should say.
        used: how the pass was run: device, batch size, versions.
        seconds: wall time of the pass.
        decode_seconds: of it, how long the pass waited for images.
        summary: of the classes, to be set beside the other data set's; None where nothing asks for it.
    """

    role: Role
    data: DataBlock
    evidence: ReportEvidence
    digests: NDArray[np.uint8]
    perceptual: NDArray[np.uint8]
    family: str
    warnings: tuple[ReportWarning, ...]
    used: Mapping[str, Any]
    seconds: float
    decode_seconds: float = 0.0
    summary: ClassSummary | None = None

"""What lies beside a report: the influence of each image and episode, so that two reports can be compared pairwise.

A value's influences are scaled so that the sum of their squares is its squared standard error. For two models seen on the same images,
the squared standard error of a*new - b*old is the sum of squares of a*psi_new - b*psi_old, which is far smaller than that
of independent data when hard images are hard for both. Means over episodes have influences of images and of episodes, whose parts add up.

The file is `NAME.evidence.npz` beside `NAME.json`, and names the report it belongs to by its digest.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, final

from gcaudit.errors import RequestError, one_line
from gcaudit.files import OpenFile, read_arrays

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Arrays = Mapping[str, "NDArray[np.float64]"]
_MOST_BYTES = 2**28
_MOST_PACKED = 20
"""How many times larger than the file arrays may be beyond that."""


@final
@dataclass(frozen=True)
class ReportEvidence:
    """Arrays behind the numbers of a report.

    Attributes:
        influences: of images by `ROLE.METRIC`, and `ROLE.METRIC@N_SHOT` for the points of a curve; (N,), or (2, N) where the sum of products of two
            measurements takes the place of the sum of squares.
        draws: by name, for people: `ROLE.energies` with `ROLE.energy_images`, and `target.episode_accuracies@N_SHOT`.
        episodes: influences of episodes, by the same names as those of images; (E,).
    """

    influences: Arrays = field(default_factory=dict, compare=False)
    draws: Arrays = field(default_factory=dict, compare=False)
    episodes: Arrays = field(default_factory=dict, compare=False)


def evidence_path(report: Path) -> Path:
    """Name the file beside a report.

    Args:
        report: path of the JSON report.

    Returns:
        `NAME.evidence.npz`.
    """
    return report.with_name(f"{report.stem}.evidence.npz")


def _digest(text: str) -> NDArray[np.uint8]:
    import numpy as np

    return np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype=np.uint8)


def save_evidence(path: Path, evidence: ReportEvidence, report_text: str) -> None:
    """Write the arrays of a report.

    Args:
        path: of the file.
        evidence: the arrays.
        report_text: the JSON that they belong to.
    """
    import numpy as np

    arrays = {f"influence/{key}": values for key, values in evidence.influences.items()}
    arrays |= {f"episodes/{key}": values for key, values in evidence.episodes.items()}
    arrays |= {f"draws/{key}": values for key, values in evidence.draws.items()}
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".gcaudit-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, report=_digest(report_text), **arrays)  # type: ignore[arg-type]
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_evidence(path: Path, report_text: str) -> ReportEvidence | None:
    """Read the arrays beside a report.

    Args:
        path: of the file.
        report_text: the JSON that they should belong to.

    Returns:
        The arrays; None when there is no file.

    Raises:
        RequestError: the file is damaged, or belongs to another report.
    """
    if not path.exists():
        return None
    import numpy as np  # here, so that reports without evidence are read without it

    try:
        with OpenFile(path) as opened:
            arrays = read_arrays(opened.file, max(_MOST_BYTES, _MOST_PACKED * opened.size))
    except Exception as error:  # a damaged archive raises many kinds
        raise RequestError(f"{path}: expected saved evidence: {one_line(error)}; remove it, or score again") from None
    if not np.array_equal(arrays.pop("report", np.zeros(0)), _digest(report_text)):
        raise RequestError(f"{path}: expected the evidence of the report beside it, found another's; remove it, or score again")

    def under(prefix: str) -> dict[str, NDArray[np.float64]]:
        return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}

    return ReportEvidence(under("influence/"), under("draws/"), under("episodes/"))

"""How heavy the tail of energies is, and intervals of their mean that allow for it.

A mean of skewed numbers has a skewed error, and a sample that lacks the large ones looks more precise than it is. The bootstrap-t finds how long the
two sides of the interval of log(mean) have to be: with B resamples of the influences psi of a value T,

    t*_b = log(1 + sum psi*_b / T) / (s*_b / (T + sum psi*_b)),   interval  T exp(-t*_{.975} s/T)  to  T exp(-t*_{.025} s/T)

The tail index is Hill's over the largest tenth, at least 10: energies above x become rarer as x^-index; below 2 they have no variance, and below about
1.5 the mean is ruled by images that are rarer than any sample can show. Energies of trained networks are close to log-normal: the skewness of their logarithms is
near 0 and their mean below twice the median, so that a low index is the log-normal's own. Where it is not (skewness above 0.6, or a mean above 2.3
medians), below 1.5 whatever the rest, and where 1% of the images hold a quarter of the sum, no interval keeps its word: it is withheld.

References: Hall, "Theoretical comparison of bootstrap confidence intervals", Annals of Statistics 1988; Hill, "A simple general approach to inference
about the tail of a distribution", Annals of Statistics 1975; Resnick, "Heavy-tail phenomena", Springer 2007, chapter 4 (how well the index is known).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gcaudit.geometry.counter import derive_seed

_FEWEST = 10
_HEAVY = 3.0
_WITHHELD, _DOUBTFUL = 1.5, 2.25
_SKEWED, _FAR_MEAN = 0.6, 2.3
_RULED = 0.25
_DRAWS = 999
_NUMBERS = 2**25
_CHUNK = 2**21


@final
@dataclass(frozen=True)
class Tail:
    """What the largest energies have to say.

    Attributes:
        count: how many energies there are.
        median: of all.
        top_share: share of the sum that the largest 1% (at least one) hold.
        index: Hill's tail index; None where the largest are equal, or there are too few.
        mean: of all.
        log_skewness: of the logarithms of those above 0.
    """

    count: int
    median: float
    top_share: float
    index: float | None
    mean: float
    log_skewness: float

    @property
    def heavy(self) -> bool:
        """Whether the normal distribution is a poor guide to the error of the mean."""
        return self.index is not None and self.index < _HEAVY

    @property
    def reason(self) -> str | None:
        """Why no interval of the mean of these energies can be trusted, or None."""
        if self.index is None:
            return None
        highest = self.index * (1 + _largest(self.count) ** -0.5)  # one standard error above
        odd = self.log_skewness > _SKEWED or self.mean > _FAR_MEAN * self.median
        if highest < _WITHHELD or (highest < _DOUBTFUL and odd) or (self.count >= 100 and self.top_share > _RULED):
            return (
                f"the energies have a heavy tail (index {self.index:.2g}; 1% of {self.count} images hold {self.top_share:.0%} of their sum): "
                "no interval of their mean can be trusted; take more images, or look at the median"
            )
        return None


def describe_tail(energies: Tensor) -> Tail:
    """Describe energies.

    Args:
        energies: (M,) float64 >= 0, M > 0.

    Returns:
        The tail.
    """
    falling = energies.sort(descending=True).values
    total, top = float(falling.sum()), max(1, len(falling) // 100)
    share = float(falling[:top].sum()) / total if 0 < total < math.inf else 0.0
    logs = falling[falling > 0].log()
    spread = float(logs.std(correction=0)) if len(logs) else 0.0
    skewness = float((logs - logs.mean()).pow(3).mean()) / spread**3 if spread > 0 else 0.0
    return Tail(len(energies), float(energies.median()), share, _tail_index(falling), total / len(energies), skewness)


def _largest(count: int) -> int:
    return max(_FEWEST, count // 10)


def _tail_index(falling: Tensor) -> float | None:
    largest = _largest(len(falling))
    if len(falling) <= largest or not falling[largest] > 0:
        return None
    mean = float((falling[:largest] / falling[largest]).log().mean())
    return 1 / mean if 0 < mean < math.inf else None


def tail_reason(energies: Tensor) -> str | None:
    """Say why no interval of the mean of such energies can be trusted.

    Args:
        energies: (M,) float64.

    Returns:
        One line, or None.
    """
    return describe_tail(energies).reason


def critical_values(influence: Tensor, value: float) -> tuple[float, float] | None:
    """Find how long the sides of an interval have to be, in standard errors of log(value), by the bootstrap-t.

    Args:
        influence: (N,) float64; zeros are images that have no say.
        value: the value > 0.

    Returns:
        The 2.5% and 97.5% quantile of t*, which do not depend on the order of the images; None where they are not finite.
    """
    psi = influence[influence != 0].sort().values
    count = len(psi)
    if count < 2:
        return None
    generator = torch.Generator().manual_seed(derive_seed(0, "bootstrap-t") % 2**63)
    draws = max(199, min(_DRAWS, _NUMBERS // count))
    found = []
    for start in range(0, draws, max(1, _CHUNK // count)):
        size = min(draws - start, max(1, _CHUNK // count))
        taken = psi[torch.randint(count, (size, count), generator=generator)]
        moved = 1 + taken.sum(1) / value
        spread = taken.std(1) * count**0.5 / value
        # a resample that reaches 0 is as far to the left as can be
        found.append(torch.where(moved > 0, moved.clamp(min=1e-300).log() * moved / spread, -torch.inf))
    low, high = (
        torch.cat(found).nan_to_num(nan=0.0, neginf=-torch.inf).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    )
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None

"""The variance that images bring to a mean over episodes, from the influences of both halves of the episodes.

Of few episodes an influence is mostly noise of the draw; the sum of products of both halves is free of it (see `episodes`). Torch is not needed for that, so
that reports can be judged without it.
"""

from __future__ import annotations

from typing import Any

LEAST_SHARE = 0.25
"""Of the squared length of both halves' mean, which the noise of the draw makes longer."""


def image_variance(first: Any, second: Any) -> float:
    """Return the variance that images bring to a mean over episodes.

    Args:
        first: (N,) influences of one half of the episodes, or a combination of such: a tensor or an array.
        second: (N,) those of the other half.

    Returns:
        The sum of products, at least a quarter of the squared length of their mean: with few episodes the sum may fall below 0.

    Example:
        >>> import numpy as np
        >>> image_variance(np.array([3.0, 4.0]), np.array([1.0, 2.0]))
        11.0
    """
    mean = (first + second) / 2
    return max(float((first * second).sum()), LEAST_SHARE * float((mean * mean).sum()))

"""Letters of a ranking: models that share one cannot be told apart, by a procedure that holds 95% over the whole table.

Of M equal models some two look different at 95% each in most tables: there are M(M - 1)/2 pairs. So the limit is that of the largest of all studentised
differences, as in Tukey's procedure: with g normal with the covariance of the values, the 95% point of max |g_a - g_b|/s_ab. Where models were seen on the
same images their errors go together, and the limit is lower than Bonferroni's.

Letters then say exactly which pairs differ: two models share a letter when, and only when, they cannot be told apart. A letter may skip a model.

References: Hothorn, Bretz, Westfall, "Simultaneous inference in general parametric models", Biometrical Journal 2008; Piepho, "An algorithm for a
letter-based representation of all-pairwise comparisons", Journal of Computational and Graphical Statistics 2004 (insert and absorb).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEVEL = 0.95
_NUMBERS = 2**27
_MOST, _FEWEST = 10_000, 500
_ALPHABET = 26


def told_apart(values: NDArray[np.float64], covariance: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say which values differ at 95% over all pairs.

    Args:
        values: (M,).
        covariance: (M, M) of their errors; a row whose diagonal is infinite belongs to a value of which nothing is known.

    Returns:
        (M, M), symmetric.
    """
    size = len(values)
    found = np.zeros((size, size), dtype=bool)
    known = np.flatnonzero(np.isfinite(np.diagonal(covariance)))
    if len(known) < 2:
        return found
    part = covariance[np.ix_(known, known)]
    variances = np.diagonal(part)
    first, second = np.triu_indices(len(known), 1)
    errors = np.sqrt(np.maximum(0.0, variances[first] + variances[second] - 2 * part[first, second]))
    limit = _largest(part, (first, second), errors)
    apart = np.abs(values[known][first] - values[known][second]) > limit * errors
    found[known[first], known[second]] = found[known[second], known[first]] = apart
    return found


def _largest(
    covariance: NDArray[np.float64], pairs: tuple[NDArray[np.int64], NDArray[np.int64]], errors: NDArray[np.float64]
) -> float:
    """Return the 95% point of the largest studentised difference of equal values."""
    counted = errors > 1e-9 * np.sqrt(np.diagonal(covariance).max())
    first, second, errors = pairs[0][counted], pairs[1][counted], errors[counted]
    if not len(errors):
        return 0.0
    roots, axes = np.linalg.eigh(covariance)
    spread = axes * np.sqrt(np.maximum(0.0, roots))
    draws = min(_MOST, max(_FEWEST, _NUMBERS // len(errors)))
    rng = np.random.default_rng(0)
    chunk = max(1, _NUMBERS // 64 // len(errors))
    found = []
    for start in range(0, draws, chunk):
        drawn = rng.normal(size=(min(chunk, draws - start), len(roots))) @ spread.T
        found.append((np.abs(drawn[:, first] - drawn[:, second]) / errors).max(1))
    return float(np.quantile(np.concatenate(found), _LEVEL))


def letters_of(apart: NDArray[np.bool_]) -> list[str]:
    """Give letters to models.

    Args:
        apart: (M, M) symmetric, which differ; best first.

    Returns:
        For each its letters, in the order of the best model that has them; past z they go on with aa.
    """
    size = len(apart)
    groups = [(1 << size) - 1] if size else []
    for i, j in zip(*np.nonzero(np.triu(apart, 1)), strict=True):
        both = (1 << int(i)) | (1 << int(j))
        split = [group for group in groups if group & both == both]
        if not split:
            continue
        kept = [group for group in groups if group & both != both]
        for group in (group & ~(1 << int(place)) for group in split for place in (j, i)):
            if not any(group & other == group for other in kept):
                kept = [other for other in kept if other & group != other]
                kept.append(group)
        groups = kept
    members = sorted([place for place in range(size) if group >> place & 1] for group in groups)
    letters = [""] * size
    for number, rows in enumerate(members):
        for place in rows:
            letters[place] += ("," if letters[place] and number >= _ALPHABET else "") + _letter(number)
    return letters


def _letter(number: int) -> str:
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, _ALPHABET)
        text = chr(ord("a") + rest) + text
    return text

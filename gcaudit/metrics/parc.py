"""PARC: do images of different classes lie further apart than images of one class?

Embeddings are standardised, each coordinate to mean 0 and variance 1 (divided by N); coordinates without variance are left out. The distance of
two images is 1 - r, r the Pearson correlation of their D coordinates; that of their labels is 0 for one class and K/(K-1) for two. PARC is 100
times Spearman's rank correlation of both over all N(N-1)/2 pairs, ties with their mean rank.

Labels have two distances only, so the correlation follows from the ranks of the pairs within classes: with m pairs, w of them within classes, and
R the sum of the latter's ranks,

    rho = (w (m + 1)/2 - R) / sqrt(V w (m - w)/m),   V = ((m^3 - m) - sum over ties of (t^3 - t))/12

which takes one sort, of one number a pair. Correlations that agree to 2^-40 are tied: what is left is rounding. The published code takes the
correlation of labels in floating point, where pairs within a class come out as 0 or 1e-16, depending on the class, and then ranks these: 60.84 where
the definition gives 60.68.

The paper also has a form with principal components first; this is the one without. It needs all pairs, hence at most 8192 images. There is no
standard error: an image enters the ranks of all pairs and the standardisation of all others, and pairs are not independent draws.

Reference: Bolya, Mittapalli, Hoffman, "Scalable diverse model selection for accessible transfer learning", NeurIPS 2021.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gcaudit.geometry import Estimate, Evidence, balanced_subset, labels_reason, missing, normal_estimate

_IMAGES = 8192
_ROWS = 512
_TIES = 2.0**40
_RESOLUTION = 64 * torch.finfo(torch.float64).eps


def _unit_rows(z: Tensor) -> Tensor:
    """Standardise columns, then centre rows and give them length 1; a row without variance becomes NaN."""
    z = z / z.abs().amax(0).clamp(min=torch.finfo(torch.float64).tiny)
    z = z - z.mean(0)
    deviation = z.square().mean(0).sqrt()
    keep = deviation > _RESOLUTION
    z = z[:, keep] / deviation[keep]
    z = z - z.mean(1, keepdim=True)
    lengths = z.norm(dim=1, keepdim=True)
    return z / torch.where(lengths > _RESOLUTION * z.shape[1], lengths, torch.nan)


def _pair_distances(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1 - r of all pairs, and of those within classes, in whole units of the resolution."""
    count = len(rows)
    everything = torch.empty(count * (count - 1) // 2, dtype=torch.int64)
    within, filled = [], 0
    for start in range(0, count, _ROWS):
        block = rows[start : start + _ROWS] @ rows[start:].T
        units = ((1 - block) * _TIES).round_().to(torch.int64)
        later = torch.ones(units.shape, dtype=torch.bool).triu_(1)
        found = units[later]
        everything[filled : filled + len(found)] = found
        filled += len(found)
        within.append(units[later & (labels[start : start + _ROWS, None] == labels[start:])])
    return everything, torch.cat(within)


def spearman_with_classes(everything: Tensor, within: Tensor) -> float | None:
    """Correlate the ranks of pairs with being of different classes.

    Args:
        everything: (m,) int64 distances of all pairs; sorted in place.
        within: (w,) int64 distances of the pairs within classes, 0 < w < m.

    Returns:
        Spearman's rho; None where all distances are equal.
    """
    everything.numpy().sort()
    queries = within.sort().values
    below = torch.searchsorted(everything, queries)
    up_to = torch.searchsorted(everything, queries, right=True)
    pairs, inside = len(everything), len(within)
    # both sums are whole numbers, exact in 64 bits: ranks are below 2^25, and there are fewer pairs than that
    excess = inside * (pairs + 1) - int((below + up_to + 1).sum())
    ends = torch.nonzero(everything[1:] != everything[:-1]).flatten() + 1
    runs = torch.diff(ends, prepend=ends.new_zeros(1), append=ends.new_tensor([pairs])).to(torch.float64)
    spread = (float(pairs) ** 3 - pairs - float((runs**3 - runs).sum())) / 12
    if len(ends) == 0:
        return None
    return excess / 2 / math.sqrt(spread * inside * (pairs - inside) / pairs)


def parc(evidence: Evidence) -> Estimate:
    """Measure PARC, the rank correlation of distances between images and between labels.

    Of more than 8192 images a class-balanced 8192 are taken; n says how many.

    Args:
        evidence: at least two classes, one of them with two images; at least two dimensions.

    Returns:
        The estimate, from -100 to 100; higher is better. Invariant under the scale and shift of each coordinate, but not under rotation.
    """
    reason = labels_reason(evidence)
    if reason:
        return missing(reason, evidence.images)
    chosen = balanced_subset(evidence, "parc", _IMAGES)
    labels = evidence.labels[chosen]
    if len(torch.unique(labels)) == len(labels):
        return missing("no class has two images: no pair is within a class", len(chosen))
    rows = _unit_rows(evidence.embeddings[chosen].to(torch.float64))
    flat = int(torch.isnan(rows).any(1).sum()) if rows.shape[1] else len(rows)
    if flat:
        return missing(
            f"{flat} of {len(rows)} images have the same number in all standardised dimensions: no correlation", len(chosen)
        )
    rho = spearman_with_classes(*_pair_distances(rows, labels))
    if rho is None:
        return missing("all pairs of images are equally far apart", len(chosen))
    return normal_estimate(100 * rho, None, len(chosen), "no standard error: pairs share images and are ranked among all others")

"""How sure the difference of two reports' values is, and those of many at once.

Images that are hard for one model are mostly hard for another, so on the same images the squared error of a - f b is the sum of squares of psi_a - f psi_b of
the images' influences, which is far smaller than that of independent data. A mean over episodes has two parts: that of the images, measured twice so
that the sum of products is free of the noise of the draw, and that of the episodes, which pairs where both drew the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from gcaudit.gate.comparable import pool_part
from gcaudit.gate.rules import Rule
from gcaudit.geometry import LEAST_SHARE, NORMAL_95, image_variance
from gcaudit.report import MetricValue, Report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@final
@dataclass(frozen=True)
class _Parts:
    """What the error of a value is made of.

    Attributes:
        images: (2, N) two measurements of the images' influences, which are the same where there is no noise of a draw; None where they were
            not kept, or do not count.
        episodes: (E,) influences of episodes, or None.
        place: the images that these are of.
        draw: the episodes that these are of.
        stderr: the whole, or None.
    """

    images: Array | None
    episodes: Array | None
    place: tuple[object, ...]
    draw: tuple[object, ...]
    stderr: float | None


def _parts(report: Report, rule: Rule, value: MetricValue) -> _Parts:
    block = report.blocks()[rule.role]
    place = (block.fingerprint, block.images)
    draw = (report.settings.get("seed"), value.episodes, value.n_way, value.n_shot, value.n_query)
    stderr = pool_part(value)[0] if rule.pool else value.stderr
    evidence = report.evidence
    images = None if evidence is None else evidence.influences.get(rule.name)
    episodes = None if evidence is None else evidence.episodes.get(rule.name)
    if value.n_way is not None and value.pool_stderr is None:  # an older version kept those of episodes alone
        images, episodes = None, images
    if stderr is None:
        images = episodes = None
    if images is not None and images.ndim == 1:
        images = images[None].repeat(2, axis=0)
    return _Parts(None if rule.pool else images, episodes, place, draw, stderr)


def _together(a: _Parts, b: _Parts, rule: Rule) -> bool:
    """Whether the parts that count are of the same images, and were kept."""
    if a.place != b.place:
        return False
    if rule.pool:
        return _same_draw(a, b)
    return a.images is not None and b.images is not None and a.images.shape == b.images.shape


def _same_draw(a: _Parts, b: _Parts) -> bool:
    return a.episodes is not None and b.episodes is not None and a.draw == b.draw and a.episodes.shape == b.episodes.shape


def _difference(a: _Parts, b: _Parts, factor: float) -> float:
    """Return the squared error of a - factor * b, whose parts are of the same images."""
    total = 0.0
    if a.images is not None and b.images is not None:
        total += image_variance(*(a.images - factor * b.images))
    if a.episodes is not None and b.episodes is not None:
        if _same_draw(a, b):
            return total + float(((a.episodes - factor * b.episodes) ** 2).sum())
        return total + float((a.episodes**2).sum() + factor**2 * (b.episodes**2).sum())
    return total


def contrast_error(
    report: Report, baseline: Report, rule: Rule, factor: float, pair: tuple[MetricValue, MetricValue]
) -> tuple[float | None, bool]:
    """Say how sure the difference of two reports is.

    Args:
        report: the new one.
        baseline: the old one.
        rule: that names the metric, and says whether the images are held fixed.
        factor: of the old value.
        pair: the new value and the old.

    Returns:
        The standard error of new - factor * old, None when it is not known; and whether images or episodes were paired.
    """
    a, b = _parts(report, rule, pair[0]), _parts(baseline, rule, pair[1])
    if a.stderr is None or b.stderr is None:
        return None, False
    if not _together(a, b, rule):
        return math.hypot(a.stderr, factor * b.stderr), False
    return math.sqrt(_difference(a, b, factor)), True


def joint_covariance(reports: Sequence[Report], rule: Rule, values: Sequence[MetricValue]) -> tuple[Array, NDArray[np.bool_]]:
    """Say how sure many reports' values are, and how they go together.

    Args:
        reports: M reports.
        rule: that names the metric.
        values: M values, each with a standard error.

    Returns:
        (M, M) covariances, positive semidefinite, 0 where two are not on the same images; and (M, M), whether they are.
    """
    import numpy as np  # here, so that a report is judged without it

    parts = [_parts(report, rule, value) for report, value in zip(reports, values, strict=True)]
    size = len(parts)
    products, raw, drawn, paired = np.zeros((size, size)), np.zeros((size, size)), np.zeros((size, size)), np.eye(size, dtype=bool)
    for i, a in enumerate(parts):
        for j, b in enumerate(parts[: i + 1]):
            if not _together(a, b, rule):
                drawn[i, j] = (a.stderr or 0.0) ** 2 if i == j else 0.0
                continue
            paired[i, j] = paired[j, i] = True
            if a.images is not None and b.images is not None:
                products[i, j] = products[j, i] = (a.images[0] @ b.images[1] + a.images[1] @ b.images[0]) / 2
                raw[i, j] = raw[j, i] = a.images.mean(0) @ b.images.mean(0)
            if _same_draw(a, b):
                assert a.episodes is not None
                assert b.episodes is not None
                drawn[i, j] = drawn[j, i] = a.episodes @ b.episodes
    # what the noise of the draw makes negative is none
    roots, axes = np.linalg.eigh(products - LEAST_SHARE * raw) if size else (np.zeros(0), np.zeros((0, 0)))
    held: Array = (axes * np.maximum(0.0, roots)) @ axes.T + LEAST_SHARE * raw + drawn
    return held, paired


def student_of(values: Sequence[MetricValue]) -> float:
    """Return the largest quantile of Student's distribution among values.

    Args:
        values: of reports; those of older versions count as normal.

    Returns:
        At least 1.96.
    """
    return max([NORMAL_95, *(value.student for value in values if value.student is not None)])

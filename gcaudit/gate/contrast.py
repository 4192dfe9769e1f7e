"""How sure the difference of two reports' values is, and those of many at once.

Images that are hard for one model are mostly hard for another, so on the same images the squared error of a - f b is the sum of squares of psi_a - f psi_b of
the images' influences, which is far smaller than that of independent data. A mean over episodes has two parts: that of the images, measured twice so
that the sum of products is free of the noise of the draw, and that of the episodes, which pairs where both drew the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from gcaudit.gate.rules import Rule
from gcaudit.report import MetricValue, Report

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
    stderr = value.pool_stderr if rule.pool else value.stderr
    evidence = report.evidence
    images = None if evidence is None else evidence.influences.get(rule.name)
    episodes = None if evidence is None else evidence.episodes.get(rule.name)
    if stderr is None:
        images = episodes = None
    if images is not None and images.ndim == 1:
        images = np.stack((images, images))
    return _Parts(None if rule.pool else images, episodes, place, draw, stderr)


def _together(a: _Parts, b: _Parts, rule: Rule) -> bool:
    """Whether the parts that count are of the same images, and were kept."""
    if a.place != b.place:
        return False
    if rule.pool:
        return a.episodes is not None and b.episodes is not None and a.draw == b.draw and a.episodes.shape == b.episodes.shape
    return a.images is not None and b.images is not None and a.images.shape == b.images.shape


def _covariance(a: _Parts, b: _Parts) -> float:
    """Of two values whose parts are of the same images."""
    total = 0.0
    if a.images is not None and b.images is not None:
        total += float((a.images[0] @ b.images[1] + a.images[1] @ b.images[0]) / 2)
    if a.episodes is not None and b.episodes is not None and a.draw == b.draw and a.episodes.shape == b.episodes.shape:
        total += float(a.episodes @ b.episodes)
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
        return float(np.hypot(a.stderr, factor * b.stderr)), False
    squares = _covariance(a, a) + factor**2 * _covariance(b, b) - 2 * factor * _covariance(a, b)
    return float(np.sqrt(max(0.0, squares))), True


def joint_covariance(reports: Sequence[Report], rule: Rule, values: Sequence[MetricValue]) -> tuple[Array, NDArray[np.bool_]]:
    """Say how sure many reports' values are, and how they go together.

    Args:
        reports: M reports.
        rule: that names the metric.
        values: M values, each with a standard error.

    Returns:
        (M, M) covariances, 0 where two are not on the same images; and (M, M), whether they are.
    """
    parts = [_parts(report, rule, value) for report, value in zip(reports, values, strict=True)]
    size = len(parts)
    found, paired = np.zeros((size, size)), np.eye(size, dtype=bool)
    for i, a in enumerate(parts):
        found[i, i] = _covariance(a, a) if _together(a, a, rule) else (a.stderr or 0.0) ** 2
        for j, b in enumerate(parts[:i]):
            if _together(a, b, rule):
                found[i, j] = found[j, i] = _covariance(a, b)
                paired[i, j] = paired[j, i] = True
    return found, paired

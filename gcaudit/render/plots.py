"""Plots, as the bytes of a file."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten as whole_words
from typing import Any, final

from gcaudit.errors import RequestError, plain, shorten
from gcaudit.gate import Rule, parse_name
from gcaudit.metrics import find_metric
from gcaudit.render.placement import Box, Segment, Taken, place_labels, shorten_names
from gcaudit.render.predictions import models_by_reason
from gcaudit.zoo import Comparison, Prediction, Truth

_COLOUR, _PALE, _GREY = "#2f5f96", "#9db8d6", "#8a8a8a"
_SETTINGS: Any = {"svg.hashsalt": "gcaudit", "svg.fonttype": "path", "font.family": "DejaVu Sans", "text.usetex": False}
_UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
_LABEL, _SMALL, _MIDDLE, _TITLE = 7, 7.5, 9, 10
_DECADE = 10.0
_MOST_REASONS = 4
_RESERVED = "\n "
"""A line of the note, for what is known only once the layout is settled."""


def scatter_plot(found: Comparison, metric: str, path: Path) -> bytes:
    """Plot a score against accuracy, a panel for each source and target.

    Bars are 95% intervals. An axis is logarithmic where all its values are positive and span a decade, and says so. Below each panel stand the models
    that it lacks, with the reasons. Equal content gives equal bytes.

    Args:
        found: the comparison, with a truth.
        metric: `ROLE.METRIC`.
        path: its suffix says the format.

    Returns:
        The file's content.

    Raises:
        RequestError: no model has both the score and an accuracy, or the format is unknown to matplotlib.
    """
    truth = found.truth
    entries = [entry for entry in found.predictions if entry.metric == metric]
    if truth is None or not any(entry.models for entry in entries):
        title = "accuracies" if truth is None else truth.title
        raise RequestError(f"expected models with both {metric} and {title} to plot, found none; see the reasons in the ranking")
    from matplotlib import rc_context

    with rc_context(_SETTINGS), warnings.catch_warnings():
        # names may be in scripts that the font lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        return _file(_draw(entries, truth), path)


def _file(figure: Any, path: Path) -> bytes:
    buffer = io.BytesIO()
    kind = path.suffix.lower().removeprefix(".")
    try:
        figure.savefig(buffer, format=kind, metadata=_UNDATED.get(kind))
    except ValueError:
        raise RequestError(f"expected --scatter METRIC=FILE of .svg, .png or .pdf, found {path}; choose another suffix") from None
    return buffer.getvalue()


def _draw(entries: Sequence[Prediction], truth: Truth) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, math.ceil(math.sqrt(len(entries))))
    rows = math.ceil(len(entries) / columns)
    width, height = _panel_size(max(len(entry.models) for entry in entries), len(entries))
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    panels = []
    for number, entry in enumerate(entries):
        axes = figure.add_subplot(rows, columns, number + 1)
        panels.append((axes, entry, _draw_panel(axes, entry, truth, width)))
    canvas.draw()
    # labels are placed in what the layout has left for the panels: it must not move them again
    figure.set_layout_engine("none")
    for axes, entry, note in panels:
        lacking = _label_points(axes, entry, canvas.get_renderer(), figure.dpi)
        note.set_text(note.get_text().removesuffix(_RESERVED) + ("\n" + _no_room(lacking) if lacking else ""))
    return figure


def _shortened(text: str) -> str:
    """Cut a reason behind a word, or within one that is too long by itself."""
    found = whole_words(plain(text), 160, placeholder=" ...")
    return found if found.strip() != "..." else plain(text, 156)


def _panel_size(models: int, panels: int) -> tuple[float, float]:
    """Return inches, more of them for more labels."""
    size = 5.4 if models <= 12 else 6.6 if models <= 25 else 8.2
    return (size, 0.86 * size + 0.4) if panels <= 9 else (5.4, 5.0)


def _draw_panel(axes: Any, entry: Prediction, truth: Truth, width: float) -> Any:
    """Draw all but the labels; returns the note below, which they may add to."""
    notes = [
        f"without {shorten([_cut(m) for m in models], 3)}: {_shortened(why)}" for why, models in models_by_reason(entry).items()
    ]
    notes = notes[:_MOST_REASONS] + ([f"and {len(notes) - _MOST_REASONS} more reasons"] if len(notes) > _MOST_REASONS else [])
    notes = ([f"models of {entry.condition}"] if entry.condition else []) + notes
    tau = entry.agreement.weighted_tau
    told = ["no model has both a score and an accuracy" if not entry.models else ""]
    if tau.value is not None:
        interval = "" if tau.ci95 is None else f" [{tau.ci95[0]:.2f}, {tau.ci95[1]:.2f}]"
        told = [f"weighted tau {tau.value:.2f}{interval}, {len(entry.models)} models; + predicts well"]
    elif entry.models:
        told = [plain(tau.reason or "", 120)]
    axes.set_title(_lines([_cut(entry.place, 120), *told], width, _MIDDLE), fontsize=_MIDDLE, parse_math=False)
    horizontal = _axis(entry.scores, entry.score_intervals)
    vertical = _axis(entry.accuracies, entry.accuracy_intervals)
    across = _lines([_title(parse_name(entry.metric, "a metric"), entry.how, horizontal.log)], width, _MIDDLE)
    axes.set_xlabel(across, fontsize=_MIDDLE)
    axes.set_ylabel(_lines([_accuracy_title(entry, truth, vertical.log)], 0.8 * width, _MIDDLE), fontsize=_MIDDLE, parse_math=False)
    axes.tick_params(labelsize=_SMALL)
    axes.grid(visible=True, color="#ececec", linewidth=0.6)
    axes.set_axisbelow(True)
    if entry.models:
        axes.set(xscale="log" if horizontal.log else "linear", yscale="log" if vertical.log else "linear")
        axes.set(xlim=horizontal.limits, ylim=vertical.limits)
        for x, y, wide, tall in zip(entry.scores, entry.accuracies, horizontal.bars, vertical.bars, strict=True):
            axes.plot(wide, (y, y), color=_PALE, linewidth=0.9, zorder=2)
            axes.plot((x, x), tall, color=_PALE, linewidth=0.9, zorder=2)
        axes.scatter(entry.scores, entry.accuracies, s=16, color=_COLOUR, linewidths=0, zorder=3)
    else:
        axes.set(xticks=[], yticks=[])
    return axes.annotate(
        _lines(notes, width, _LABEL) + _RESERVED,
        (0, 0),
        xycoords="axes fraction",
        xytext=(0, -24 - 11.5 * (1 + across.count("\n"))),
        textcoords="offset points",
        va="top",
        fontsize=_LABEL,
        color="#555555",
        annotation_clip=False,
        parse_math=False,
    )


def _lines(lines: Sequence[str], width: float, size: float) -> str:
    """Break lines that would be wider than a panel; a letter is about 0.55 of its size."""
    letters = int(0.85 * width * 72 / (0.55 * size))
    return "\n".join(part for line in lines for part in textwrap.wrap(line, letters))


def _cut(name: str, most: int = 40) -> str:
    return shorten_names([name], most)[0]


def _no_room(names: Sequence[str]) -> str:
    return f"no room for the names of {shorten([_cut(name, 20) for name in names], 2)}"


def _title(rule: Rule, how: str, log: bool) -> str:
    """Name a metric, where and how it was measured, and its better side."""
    metric = find_metric(rule.metric)
    shot = f"{rule.shot}-shot" if rule.shot is not None and "shot" not in how else ""
    head = ", ".join(part for part in (f"{metric.title} on {rule.role}", how or shot) if part)
    better = () if metric.direction == "none" else (f"{metric.direction} is better",)
    told = ", ".join((*better, *(("log scale",) if log else ())))
    return f"{head} ({told})" if told else head


def _accuracy_title(entry: Prediction, truth: Truth, log: bool) -> str:
    if truth.rule is not None:
        return _title(truth.rule, truth.how, log)
    percent = max(entry.accuracies, default=0.0) > 1
    told = f"accuracy{' in %' if percent else ''}, from {_cut(Path(truth.title).name)} (higher is better"
    return told + (", log scale)" if log else ")")


@final
@dataclass(frozen=True)
class _Axis:
    """One axis of a panel: whether it is logarithmic, its limits, and the bars of the values, cut at the limits."""

    log: bool
    limits: tuple[float, float]
    bars: tuple[tuple[float, float], ...]


def _axis(values: Sequence[float], intervals: Sequence[tuple[float, float] | None]) -> _Axis:
    """Choose scale and limits: a few bars that are far longer than the others, or than the values' range, are cut."""
    if not values:
        return _Axis(False, (0.0, 1.0), ())
    log = min(values) > 0 and max(values) / min(values) >= _DECADE
    there, back = (math.log10, lambda number: 10.0**number) if log else (float, float)
    spots = [there(value) for value in values]
    floor = min(spots) - 1  # where an interval goes down to what has no logarithm
    bars = [
        (spot, spot) if ends is None else tuple(there(end) if end > 0 or not log else floor for end in ends)
        for spot, ends in zip(spots, intervals or [None] * len(values), strict=True)
    ]
    lengths = sorted(high - low for low, high in bars)
    reach = max(max(spots) - min(spots), lengths[len(lengths) // 2])
    low = max(min(low for low, _ in bars), min(spots) - reach)
    high = min(max(high for _, high in bars), max(spots) + reach)
    room = 0.07 * (high - low) or 0.05 * abs(high) or 0.05
    low, high = low - room, high + room
    return _Axis(log, (back(low), back(high)), tuple((back(max(a, low)), back(min(b, high))) for a, b in bars))


def _label_points(axes: Any, entry: Prediction, renderer: Any, dpi: float) -> list[str]:
    """Write names beside points; returns those that there is no room for."""
    scale = dpi / 72
    spots = _on_screen(axes, list(zip(entry.scores, entry.accuracies, strict=True)))
    bounds = axes.get_window_extent(renderer)
    edge = 2 * scale
    frame = Box(bounds.x0 + edge, bounds.y0 + edge, bounds.x1 - edge, bounds.y1 - edge)
    reach = 2.4 * scale
    points = tuple(Box(x - reach, y - reach, x + reach, y + reach) for x, y in spots)
    taken = Taken(frame, points, _bars_on_screen(axes, entry))
    texts = [
        axes.annotate(
            name,
            (x, y),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=_LABEL,
            va="bottom",
            annotation_clip=False,
            parse_math=False,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0},
            zorder=4,
        )
        for name, x, y in zip(shorten_names(entry.models, 28), entry.scores, entry.accuracies, strict=True)
    ]
    extents = [text.get_window_extent(renderer) for text in texts]
    places = place_labels(spots, [(extent.width, extent.height) for extent in extents], taken, scale)
    for text, extent, placed in zip(texts, extents, places, strict=True):
        if placed is None:
            text.remove()
            continue
        text.set_position(((placed.box.left - extent.x0) / scale, (placed.box.low - extent.y0) / scale))
        if placed.leader is not None:
            inverse = axes.transData.inverted().transform(placed.leader)
            axes.plot(*zip(*inverse, strict=True), color=_GREY, linewidth=0.5, zorder=2.5, scalex=False, scaley=False)
    return [name for name, placed in zip(entry.models, places, strict=True) if placed is None]


def _on_screen(axes: Any, spots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in axes.transData.transform(spots)] if spots else []


def _bars_on_screen(axes: Any, entry: Prediction) -> tuple[Segment, ...]:
    horizontal, vertical = _axis(entry.scores, entry.score_intervals), _axis(entry.accuracies, entry.accuracy_intervals)
    found = []
    for x, y, across, along in zip(entry.scores, entry.accuracies, horizontal.bars, vertical.bars, strict=True):
        left, right, low, high = _on_screen(axes, [(across[0], y), (across[1], y), (x, along[0]), (x, along[1])])
        found += [(left, right), (low, high)]
    return tuple(segment for segment in found if segment[0] != segment[1])

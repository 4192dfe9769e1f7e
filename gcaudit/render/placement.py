"""Where the labels of points go, so that they cover neither each other nor the points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import final

Spot = tuple[float, float]
Segment = tuple[Spot, Spot]

_RADII = (5.0, 9.0, 14.0, 20.0, 28.0, 38.0, 50.0, 65.0, 82.0, 102.0, 126.0, 155.0, 190.0, 230.0, 280.0)
"""Distances of a label from its point, in points."""
_NEAR, _FIRST, _FAR, _AROUND = 4, 2, 14.0, 60.0
"""How many distances are near; the first of a column; from which on there is a leader; how far away other things push a label."""
_CROWD, _CROWDED = 4, (30.0, 13.0)
"""How many points are a crowd, and how near they are, across and up."""
_ANGLES = (20, 160, -20, 200, 0, 180, 90, -90, 45, 135, -45, 225, 68, 112, -68, 248, 10, -10, 170, 190, 32, 148, -32, 212)
"""In degrees, the most readable first."""


@final
@dataclass(frozen=True)
class Box:
    """A rectangle on the screen."""

    left: float
    low: float
    right: float
    high: float

    def meets(self, other: Box) -> bool:
        """Tell whether two rectangles share more than an edge.

        Args:
            other: the other one.
        """
        return self.left < other.right and other.left < self.right and self.low < other.high and other.low < self.high

    def holds(self, other: Box) -> bool:
        """Tell whether another rectangle lies within this one.

        Args:
            other: the other one.
        """
        return self.left <= other.left and other.right <= self.right and self.low <= other.low and other.high <= self.high

    def crossed(self, line: Segment) -> bool:
        """Tell whether a segment runs through the rectangle (Liang and Barsky's clipping).

        Args:
            line: its ends.
        """
        (x, y), (to_x, to_y) = line
        first, last = 0.0, 1.0
        for start, step, low, high in ((x, to_x - x, self.left, self.right), (y, to_y - y, self.low, self.high)):
            if step == 0:
                if not low < start < high:
                    return False
                continue
            enter, leave = sorted(((low - start) / step, (high - start) / step))
            first, last = max(first, enter), min(last, leave)
        return first < last


@final
@dataclass(frozen=True)
class Placed:
    """Where a label goes.

    Attributes:
        box: that it fills.
        leader: line from the point to the label, when that is far.
    """

    box: Box
    leader: Segment | None


@final
@dataclass(frozen=True)
class Taken:
    """What a label keeps away from.

    Attributes:
        frame: that it stays in.
        points: that it may not cover; its leader may cross them when there is no other way.
        bars: lines that it does not cover as long as there is another place.
        labels: other ones, which neither it nor its leader may cover.
        leaders: of other labels, which it may not cover; its own may cross them when there is no other way.
    """

    frame: Box
    points: tuple[Box, ...]
    bars: tuple[Segment, ...] = ()
    labels: tuple[Box, ...] = ()
    leaders: tuple[Segment, ...] = ()

    def beside(self, placed: Placed) -> Taken:
        """Add a label.

        Args:
            placed: the label.
        """
        leaders = self.leaders if placed.leader is None else (*self.leaders, placed.leader)
        return replace(self, labels=(*self.labels, placed.box), leaders=leaders)


def place_labels(
    spots: Sequence[Spot], sizes: Sequence[tuple[float, float]], taken: Taken, scale: float = 1.0
) -> list[Placed | None]:
    """Find places for the labels of all points of a plot.

    Where points crowd, their labels go into a column beside the crowd, in the order of the points; the others go beside their points. Depends on
    nothing but the arguments.

    Args:
        spots: the points.
        sizes: width and height of each label.
        taken: what the labels keep away from.
        scale: length of a point on the screen.

    Returns:
        A place for each label, or None where there is none.
    """
    found: dict[int, Placed] = {}
    for crowd in _crowds(spots, scale):
        for number, placed in (_column([(k, spots[k], sizes[k]) for k in crowd], taken, scale) or {}).items():
            found[number] = placed
            taken = taken.beside(placed)
    for number in sorted(set(range(len(spots))) - set(found), key=lambda k: (-spots[k][1], spots[k][0], k)):
        single = place_label(spots[number], sizes[number], taken, scale)
        if single is not None:
            found[number] = single
            taken = taken.beside(single)
    return [found.get(number) for number in range(len(spots))]


def _crowds(spots: Sequence[Spot], scale: float) -> list[list[int]]:
    """Chain points that are near each other; return those chains that are long, longest first, each from top to bottom."""
    chain = list(range(len(spots)))
    for k, (x, y) in enumerate(spots):
        for other in range(k):
            if abs(spots[other][0] - x) < _CROWDED[0] * scale and abs(spots[other][1] - y) < _CROWDED[1] * scale:
                chain = [chain[k] if link == chain[other] else link for link in chain]
    members = [[k for k, link in enumerate(chain) if link == name] for name in dict.fromkeys(chain)]
    crowds = [sorted(each, key=lambda k: (-spots[k][1], spots[k][0], k)) for each in members if len(each) >= _CROWD]
    return sorted(crowds, key=lambda each: -len(each))


def _column(members: Sequence[tuple[int, Spot, tuple[float, float]]], taken: Taken, scale: float) -> dict[int, Placed] | None:
    """Stack labels beside their points: the nearest stack that covers nothing, or else halves of it."""
    step = max(size[1] for _, _, size in members)
    left, right = (choose(spot[0] for _, spot, _ in members) for choose in (min, max))
    middle = (members[0][1][1] + members[-1][1][1]) / 2
    top = min(max(middle + step * len(members) / 2, taken.frame.low + step * len(members)), taken.frame.high)
    shifts = sorted(range(-len(members), len(members) + 1), key=abs)
    for gap, shift, side in product(_RADII[_FIRST:], shifts, (1, -1)):
        edge = right + gap * scale if side > 0 else left - gap * scale
        rows = [(k, spot, size, top + (shift - row) * step) for row, (k, spot, size) in enumerate(members)]
        found = {k: _in_column(spot, size, edge, high, side) for k, spot, size, high in rows}
        if all(taken.frame.holds(each.box) and _is_free(each, taken, (), tidy=False) for each in found.values()):
            return found
    half = len(members) // 2
    if half < _CROWD:
        return None
    upper = _column(members[:half], taken, scale) or {}
    for placed in upper.values():
        taken = taken.beside(placed)
    return upper | (_column(members[half:], taken, scale) or {})


def _in_column(spot: Spot, size: tuple[float, float], edge: float, high: float, side: int) -> Placed:
    box = Box(edge, high - size[1], edge + size[0], high) if side > 0 else Box(edge - size[0], high - size[1], edge, high)
    return Placed(box, (spot, (edge, high - size[1] / 2)))


def place_label(spot: Spot, size: tuple[float, float], taken: Taken, scale: float = 1.0) -> Placed | None:
    """Find a place for a label: the first of a fixed list, from near to far and away from its neighbours, at which it collides with nothing.

    Args:
        spot: the point it belongs to.
        size: its width and height.
        taken: what it keeps away from.
        scale: length of a point on the screen.

    Returns:
        The place, or None when there is none.
    """
    angles = _outward(spot, taken, scale)
    near = _RADII[:_NEAR]
    for radii, bars, tidy in ((near, taken.bars, True), (near, (), True), (_RADII, (), True), (_RADII, (), False)):
        for radius in radii:
            for angle in angles:
                placed = _candidate(spot, size, radius * scale, math.radians(angle), far=radius >= _FAR)
                if taken.frame.holds(placed.box) and _is_free(placed, taken, bars, tidy=tidy):
                    return placed
    return None


def _outward(spot: Spot, taken: Taken, scale: float) -> list[int]:
    """Sort directions by how far they lead away from the points and labels around, in steps of 45 degrees."""
    centres = [((box.left + box.right) / 2 - spot[0], (box.low + box.high) / 2 - spot[1]) for box in (*taken.points, *taken.labels)]
    around = [(x, y) for x, y in centres if scale < math.hypot(x, y) < _AROUND * scale]
    x, y = (sum(centre[k] for centre in around) for k in (0, 1))
    if math.hypot(x, y) < scale:
        return list(_ANGLES)
    away = math.degrees(math.atan2(-y, -x))
    return sorted(_ANGLES, key=lambda angle: int(abs((angle - away + 180) % 360 - 180) // 45))


def _candidate(spot: Spot, size: tuple[float, float], radius: float, angle: float, *, far: bool) -> Placed:
    (x, y), (width, height) = spot, size
    across, up = math.cos(angle), math.sin(angle)
    centre_x, centre_y = x + (radius + width / 2) * across, y + (radius + height / 2) * up
    box = Box(centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2)
    if not far:
        return Placed(box, None)
    end = (min(max(x, box.left), box.right), min(max(y, box.low), box.high))
    return Placed(box, (spot, end))


def _is_free(placed: Placed, taken: Taken, bars: Sequence[Segment], *, tidy: bool) -> bool:
    box, leader = placed.box, placed.leader
    if any(box.meets(other) for other in (*taken.points, *taken.labels)) or any(
        box.crossed(line) for line in (*taken.leaders, *bars)
    ):
        return False
    if leader is None:
        return True
    if any(other.crossed(leader) for other in taken.labels):
        return False
    (x, y), _ = leader
    at_spot = Box(x, y, x, y)
    over_points = any(other.crossed(leader) for other in taken.points if not other.holds(at_spot))
    return not tidy or not (over_points or any(_cross(leader, other) for other in taken.leaders))


def _cross(one: Segment, other: Segment) -> bool:
    def side(line: Segment, spot: Spot) -> float:
        (a, b), (c, d) = line
        return (c - a) * (spot[1] - b) - (d - b) * (spot[0] - a)

    return side(one, other[0]) * side(one, other[1]) < 0 and side(other, one[0]) * side(other, one[1]) < 0


def shorten_names(names: Sequence[str], most: int) -> list[str]:
    """Cut long names in their middle, and leave them different.

    Args:
        names: of models; two may be equal.
        most: signs of a name, more where names would become equal.

    Returns:
        As many names.
    """
    for limit in (most, most + 8, most + 20):
        found = {name: _middle(name, limit) for name in dict.fromkeys(names)}
        if len(set(found.values())) == len(found):
            return [found[name] for name in names]
    return [f"{_middle(name, most)} ({number + 1})" for number, name in enumerate(names)]


def _middle(name: str, most: int) -> str:
    if len(name) <= most:
        return name
    head = (most - 1) // 2
    return f"{name[:head]}…{name[len(name) - (most - 1 - head) :]}"

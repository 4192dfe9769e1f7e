"""Scatter plots: what they say, and where the names of points stand."""

import re
from pathlib import Path

import numpy as np
import pytest

from gcaudit.errors import RequestError
from gcaudit.gate.rules import parse_name
from gcaudit.geometry.agreement import agreement
from gcaudit.render.placement import Box, Placed, Taken, place_label, place_labels, shorten_names
from gcaudit.render.plots import scatter_plot
from gcaudit.zoo.compare import Comparison
from gcaudit.zoo.ranking import Ranking
from gcaudit.zoo.truth import LeftOut, Prediction, Truth

CSV = Truth("folder/acc.csv", {})
PROBE = Truth("target.probe_accuracy", {}, rule=parse_name("target.probe_accuracy", "a metric"), how="5-way 1-shot")


def entry(scores, accuracies, names=None, metric="source.cdnv", target="birds", **more):
    names = names or [f"model-{n}" for n in range(len(scores))]
    found = agreement(scores, accuracies, "lower")
    return Prediction("cifar10", target, metric, tuple(names), tuple(scores), tuple(accuracies), found, **more)


def draw(entries, truth=CSV, path="x.svg", metric="source.cdnv"):
    ranking = Ranking("source.cdnv", "CDNV", "lower", (), ())
    return scatter_plot(Comparison(ranking, truth, tuple(entries), (), 0, 0, Path("x"), 0.0), metric, Path(path))


def texts(svg):
    """What matplotlib notes beside the outlines of letters."""
    return [line.strip() for found in re.findall(r"<!--(.*?)-->", svg.decode(), re.DOTALL) for line in found.splitlines()]


THREE = ((0.1, 0.2, 0.3), (0.9, 0.7, 0.8))


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_equal_content_gives_equal_bytes(suffix):
    first, second = (draw([entry(*THREE, left_out=(LeftOut("x", "gone"),))], path=f"x.{suffix}") for _ in range(2))
    assert first == second
    assert b"<dc:date>" not in first
    assert b"CreationDate" not in first


def test_axes_say_what_they_show():
    said = texts(draw([entry(*THREE)]))
    assert "CDNV on source (lower is better)" in said
    assert "accuracy, from acc.csv (higher is better)" in said
    assert "cifar10 -&gt; birds" in said or "cifar10 -> birds" in said
    said = texts(draw([entry((0.1, 0.2, 0.3), (90.0, 70.0, 80.0))]))
    assert "accuracy in %, from acc.csv (higher is better)" in said
    gc = entry((1.0, 5.0, 10.0), THREE[1], metric="source.gc", how="sketch estimator, pixel space")
    said = " ".join(texts(draw([gc], PROBE, metric="source.gc")))
    assert "geometric complexity (GC) on source, sketch estimator, pixel space (lower is better, log scale)" in said
    assert "few-shot probe accuracy on target, 5-way 1-shot (higher is better)" in said
    said = " ".join(texts(draw([entry(*THREE, metric="target.probe_accuracy@5")], metric="target.probe_accuracy@5")))
    assert "few-shot probe accuracy on target, 5-shot (higher is better)" in said
    said = " ".join(texts(draw([entry(*THREE, metric="source.poincare_lower_bound")], metric="source.poincare_lower_bound")))
    assert "at least (estimate) on source" in said
    assert "lower is better" not in said


@pytest.mark.parametrize(
    ("scores", "log"), [((1.0, 5.0, 10.0), True), ((1.0, 5.0, 9.9), False), ((0.0, 5.0, 100.0), False), ((-1.0, 5.0, 100.0), False)]
)
def test_an_axis_is_logarithmic_where_positive_values_span_a_decade(scores, log):
    said = " ".join(texts(draw([entry(scores, THREE[1])])))
    assert ("log scale" in said) == log


def test_intervals_are_bars_of_both_directions():
    bare = draw([entry(*THREE)])
    bars = draw(
        [entry(*THREE, score_intervals=((0.05, 0.15), (0.1, 0.3), None), accuracy_intervals=(None, (0.6, 0.8), (0.7, 0.9)))]
    )
    lines = re.findall(
        r'd="M ([\d.]+) ([\d.]+) \nL ([\d.]+) ([\d.]+) \n" clip-path="[^"]*" style="fill: none; stroke: #9db8d6', bars.decode()
    )
    assert sum(a != c and b == d for a, b, c, d in lines) == 2
    assert sum(a == c and b != d for a, b, c, d in lines) == 2
    lines = re.findall(
        r'd="M ([\d.]+) ([\d.]+) \nL ([\d.]+) ([\d.]+) \n" clip-path="[^"]*" style="fill: none; stroke: #9db8d6', bare.decode()
    )
    assert all((a, b) == (c, d) for a, b, c, d in lines)


def test_intervals_that_reach_nothing_or_too_far_leave_the_plot_whole():
    scores = (1.0, 5.0, 20.0)
    near = draw([entry(scores, THREE[1], score_intervals=((0.9, 1.1), (4.0, 6.0), (19.0, 21.0)))])
    far = draw([entry(scores, THREE[1], score_intervals=((-1e9, 1.1), (4.0, 6.0), (19.0, 1e300)))])
    assert "log scale" in " ".join(texts(far))
    assert abs(len(far) - len(near)) < 0.5 * len(near)


def test_models_that_are_lacking_are_noted_with_reasons():
    left = [LeftOut(f"big-{n}", "may not be compared with the others: input 3x384x384") for n in range(5)]
    left += [LeftOut("lost", "no such file"), *(LeftOut(f"y{n}", f"reason {n}") for n in range(4))]
    said = " ".join(texts(draw([entry(*THREE, left_out=tuple(left), condition="input 3x224x224")])))
    assert "models of input 3x224x224" in said
    assert "without big-0, big-1, big-2 and 2 more: may not be compared with the others: input 3x384x384" in said
    assert "without lost: no such file" in said
    assert "and 2 more reasons" in said


def test_panels_wrap():
    def size(count):
        svg = draw([entry(*THREE, target=f"t{n}") for n in range(count)]).decode()
        return [float(number) for number in re.search(r'<svg [^>]*viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()]

    width, height = size(1)
    assert size(2) == pytest.approx([2 * width, height])
    assert size(4) == pytest.approx([2 * width, 2 * height])
    assert size(7) == pytest.approx([3 * width, 3 * height])
    assert size(20)[0] < 3.1 * width


def test_a_panel_without_models_says_so():
    lacking = entry((), (), target="cars", left_out=(LeftOut("a", "no accuracy in acc.csv"),))
    said = " ".join(texts(draw([entry(*THREE), lacking])))
    assert "no model has both a score and an accuracy" in said
    assert "without a: no accuracy in acc.csv" in said


def test_names_are_shown_and_never_obeyed():
    names = ["$\\frac{1}$", "a_very_long_name_of_a_model_that_goes_on_and_on.in1k", "模型"]
    said = texts(draw([entry(*THREE, names=names, target="$x$")]))
    assert "$\\frac{1}$" in said
    assert "a_very_long_n…on_and_on.in1k" in said
    assert "cifar10 -&gt; $x$" in said or "cifar10 -> $x$" in said


def test_nothing_to_plot():
    for entries, truth in (([], CSV), ([entry((), ())], CSV), ([entry(*THREE)], None)):
        with pytest.raises(RequestError, match=r"expected models with both source.cdnv and .* to plot, found none"):
            draw(entries, truth)


def test_unknown_formats():
    with pytest.raises(RequestError, match=r"expected --scatter METRIC=FILE of .svg, .png or .pdf, found x.bmpx; choose another"):
        draw([entry(*THREE)], path="x.bmpx")


FRAME = Box(0, 0, 500, 400)


def around(spots, reach=2.0):
    return Taken(FRAME, tuple(Box(x - reach, y - reach, x + reach, y + reach) for x, y in spots))


@pytest.mark.parametrize("spread", [0.0, 1.0, 8.0, 60.0])
@pytest.mark.parametrize("count", [1, 3, 10, 40])
def test_labels_cover_neither_points_nor_each_other(count, spread):
    rng = np.random.default_rng(count)
    centres = rng.uniform(100, 300, (4, 2))
    spots = [tuple(map(float, centres[n % 4] + spread * rng.normal(size=2))) for n in range(count)]
    taken = around(spots)
    found = place_labels(spots, [(70.0 + 5 * (n % 3), 9.0) for n in range(count)], taken)
    assert all(isinstance(each, Placed) for each in found)
    boxes = [each.box for each in found]
    assert all(FRAME.holds(box) for box in boxes)
    assert not any(box.meets(other) for n, box in enumerate(boxes) for other in (*boxes[:n], *taken.points))
    assert not any(box.crossed(each.leader) for box in boxes for each in found if each.leader is not None)
    assert found == place_labels(spots, [(70.0 + 5 * (n % 3), 9.0) for n in range(count)], taken)


def test_a_lone_label_stands_beside_its_point_without_a_leader():
    (placed,) = place_labels([(200.0, 200.0)], [(50.0, 9.0)], around([(200.0, 200.0)]))
    assert placed.leader is None
    assert 202 <= placed.box.left <= 212
    (placed,) = place_labels([(490.0, 200.0)], [(50.0, 9.0)], around([(490.0, 200.0)]))
    assert placed.box.right <= 500


def test_bars_are_spared_where_there_is_room():
    spot = (200.0, 200.0)
    taken = Taken(FRAME, around([spot]).points, (((150.0, 200.0), (260.0, 200.0)), ((200.0, 150.0), (200.0, 250.0))))
    placed = place_label(spot, (40.0, 9.0), taken)
    assert not any(placed.box.crossed(bar) for bar in taken.bars)


def test_a_far_label_has_a_leader_and_no_room_gives_none():
    spot = (200.0, 200.0)
    wall = Taken(FRAME, (Box(185, 185, 215, 215),))
    placed = place_label(spot, (30.0, 9.0), wall)
    assert placed.leader[0] == spot
    assert not placed.box.meets(wall.points[0])
    assert place_label(spot, (600.0, 9.0), wall) is None
    assert place_labels([spot] * 5, [(600.0, 9.0)] * 5, around([spot])) == [None] * 5


def test_names_that_find_no_room_are_said():
    long = [f"{'W' * 27}{n}" for n in range(110)]
    said = " ".join(texts(draw([entry([0.1 + 1e-6 * n for n in range(110)], [0.5 + 1e-6 * n for n in range(110)], names=long)])))
    assert "no room for the names of WWW" in said
    assert re.search(r"and \d+ more", said)


@pytest.mark.parametrize(
    ("line", "crossed"),
    [
        (((0, 5), (20, 5)), True),
        (((5, -5), (5, 20)), True),
        (((0, 11), (20, 11)), False),
        (((11, 0), (11, 20)), False),
        (((-5, 0), (5, 20)), False),
        (((-5, 5), (-1, 5)), False),
        (((2, 2), (3, 3)), True),
    ],
)
def test_lines_through_boxes(line, crossed):
    assert Box(0, 0, 10, 10).crossed(line) == crossed


def test_short_names_stay_different():
    assert shorten_names(["abc", "x" * 50], 20) == ["abc", "x" * 9 + "…" + "x" * 10]
    long = [f"{'a' * 30}-{n}-{'b' * 30}" for n in range(3)]
    found = shorten_names(long, 20)
    assert len(set(found)) == 3
    assert max(map(len, found)) <= 40
    assert found[0].endswith("(1)")
    assert shorten_names([f"{'a' * 12}{n}{'b' * 12}" for n in range(3)], 20) == [f"{'a' * 12}{n}{'b' * 12}" for n in range(3)]
    assert shorten_names(["same", "same"], 20) == ["same", "same"]

"""Line plots in SVG. Series differ by colour, by the shape of their points and by their dashes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

from servable.report.frame import CHARACTER, Frame, Hit, Size, axes, drawing, empty, frame, is_log, marks, write_at
from servable.report.markup import Node, node, place
from servable.report.plots import LinePlot, Point, Scale, Series
from servable.report.scales import tip

COLOURS = 8
POINTS_AT_MOST = 400
SHAPES = (
    "M-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0z",
    "M-3.2 -3.2h6.4v6.4h-6.4z",
    "M0 -4.4l4.2 7.4h-8.4z",
    "M0 -4.6l4.6 4.6l-4.6 4.6l-4.6 -4.6z",
)
DASHES = ("", "6 3", "2 3", "9 3 2 3")


def style(index: int, series: Series) -> str:
    """Return the class that colours a series; it stays the same in every plot where the order is the same."""
    return "bad" if series.bad else f"s{index % COLOURS + 1}"


def dashes_of(index: int, series: Series) -> str | None:
    """Return the dashes of a line: by its place where no points tell it apart, else once the colours repeat."""
    return DASHES[(index // COLOURS if series.dots else index + index // COLOURS) % len(DASHES)] or None


def draw_lines(plot: LinePlot, size: Size, name: str) -> Node:
    """Draw a plot at one size."""
    shown = [(index, series, _placeable(plot, series)) for index, series in enumerate(plot.series)]
    xs = [point.x for _, _, points in shown for point in points]
    ys = [value for _, _, points in shown for point in points for value in _extent(point, is_log(plot.y))]
    ys += [mark.value for mark in plot.marks if mark.across and math.isfinite(mark.value)]
    area = frame(size, plot.x, plot.y, xs, ys)
    drawn = axes(area, plot.x, plot.y)
    if not xs:
        drawn.append(empty(area))
    for index, series, points in shown:
        drawn += _line(area, index, series, points)
    drawn += _labels(area, [(series, points) for _, series, points in shown])
    drawn += marks(area, plot.marks)
    hits = [_hit(area, plot, index, series, point) for index, series, points in shown for point in points]
    return drawing(size, name, plot.summary(), drawn, hits)


def thin(points: Sequence[Point], at_most: int) -> list[Point]:
    """Return fewer points that look the same: of each stretch the lowest and the highest, so that no spike is lost."""
    if len(points) <= at_most:
        return list(points)
    width = len(points) / (at_most // 2)
    kept: list[Point] = []
    for _, stretch in groupby(enumerate(points), key=lambda pair: int(pair[0] / width)):
        found = [point for _, point in stretch]
        ends = {id(min(found, key=lambda point: point.y)), id(max(found, key=lambda point: point.y))}
        kept += [point for point in found if id(point) in ends]
    return kept


def _placeable(plot: LinePlot, series: Series) -> list[Point]:
    points = [
        point
        for point in series.finite()
        if not (is_log(plot.x) and point.x <= 0) and not (is_log(plot.y) and point.y <= 0)
    ]
    return thin(points, POINTS_AT_MOST)


def _extent(point: Point, positive: bool) -> list[float]:
    values = [value for value in (point.y, point.low, point.high) if value is not None]
    return [value for value in values if math.isfinite(value) and (value > 0 or not positive)]


def _line(area: Frame, index: int, series: Series, points: Sequence[Point]) -> list[Node]:
    colour = style(index, series)
    drawn: list[Node] = []
    steps = [f"{'M' if new else 'L'}{place(area.px(p.x))} {place(area.py(p.y))}" for p, new in _runs(series, points)]
    if len(points) > 1 and series.line:
        dashes = dashes_of(index, series)
        drawn.append(node("path", {"class": f"line {colour}", "d": "".join(steps), "stroke-dasharray": dashes}))
    bounded = [point for point in points if point.low is not None and point.high is not None]
    drawn += [_interval(area, point, colour) for point in bounded]
    if (series.dots and len(points) <= 60) or len(points) == 1:
        shape = SHAPES[index % len(SHAPES)]
        for point in points:
            at = f"translate({place(area.px(point.x))} {place(area.py(point.y))})"
            drawn.append(node("path", {"class": f"dot {colour}", "d": shape, "transform": at}))
    return drawn


def _runs(series: Series, points: Sequence[Point]) -> list[tuple[Point, bool]]:
    """Pair each point with whether a new line begins there: behind a value that was not measured."""
    gaps = [index for index, point in enumerate(series.points) if not math.isfinite(point.y)]
    if not gaps:
        return [(point, index == 0) for index, point in enumerate(points)]
    order = {id(point): index for index, point in enumerate(series.points)}
    paired: list[tuple[Point, bool]] = []
    before = -1
    for point in points:
        here = order[id(point)]
        paired.append((point, not paired or any(before < gap < here for gap in gaps)))
        before = here
    return paired


def _interval(area: Frame, point: Point, colour: str) -> Node:
    assert point.low is not None
    assert point.high is not None
    x, low, high = area.px(point.x), area.py(point.low), area.py(point.high)
    path = f"M{place(x)} {place(low)}V{place(high)}" + "".join(f"M{place(x - 4)} {place(y)}h8" for y in (low, high))
    return node("path", {"class": f"interval {colour}", "d": path})


def _labels(area: Frame, shown: Sequence[tuple[Series, Sequence[Point]]]) -> list[Node]:
    """Name the points that have room for it; the others are named where the reader points, and in the table."""
    drawn: list[Node] = []
    named = [point for series, points in shown if series.labels for point in points if point.label]
    if len(named) > 40:
        return drawn
    taken = [box for series, points in shown for box in _covered(area, series, points)]
    for point in named:
        width = len(point.label) * CHARACTER * 0.88
        x, y = area.px(point.x), area.py(point.y)
        for left, base in ((x + 8, y + 14), (x + 8, y - 7), (x - 8 - width, y - 7), (x - 8 - width, y + 14)):
            inside = left > area.left and left + width < area.size.width - 2 and area.top < base < area.bottom - 2
            middle = base - 4
            if inside and not any(a < left + width and left < b and abs(c - middle) < 10 for a, b, c in taken):
                taken.append((left, left + width, middle))
                drawn.append(write_at("label", left, base, point.label))
                break
    return drawn


def _covered(area: Frame, series: Series, points: Sequence[Point]) -> Iterator[tuple[float, float, float]]:
    """Yield what points and lines cover, as left, right and middle."""
    places = [(area.px(point.x), area.py(point.y)) for point in points]
    yield from ((x - 5, x + 5, y) for x, y in places)
    for (x1, y1), (x2, y2) in pairwise(places if series.line else []):
        steps = max(1, int(math.hypot(x2 - x1, y2 - y1) / 6))
        for step in range(1, steps):
            x, y = x1 + (x2 - x1) * step / steps, y1 + (y2 - y1) * step / steps
            yield x - 3, x + 3, y


def _hit(area: Frame, plot: LinePlot, index: int, series: Series, point: Point) -> Hit:
    head = point.label or f"{plot.x.label} {tip(point.x, plot.x.unit, plot.x.scale)}"
    text = f"{series.name}: {tip(point.y, plot.y.unit)}" if series.name else tip(point.y, plot.y.unit)
    if point.low is not None and point.high is not None:
        text += f" ({tip(point.low, plot.y.unit)} to {tip(point.high, plot.y.unit)})"
    if point.label and plot.x.scale is not Scale.NINES:
        text += f" at {tip(point.x, plot.x.unit)}"
    return Hit(area.px(point.x), area.py(point.y), index, head, text)

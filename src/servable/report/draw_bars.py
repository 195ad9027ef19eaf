"""Bars and histograms in SVG. Both start at zero, always: a bar's length is its value."""

from __future__ import annotations

import math
from dataclasses import replace

from servable.report.frame import (
    CHARACTER,
    Frame,
    Hit,
    Size,
    axes,
    drawing,
    empty,
    frame,
    marks,
    rule,
    shorten,
    write_at,
)
from servable.report.markup import Attributes, Node, node, place
from servable.report.plots import Axis, Bar, BarPlot, HistogramPlot, Mark, Scale
from servable.report.scales import axis_title, fit, tip
from servable.report.units import PLAIN

ROW = 30.0
VALUE_ROOM = 74.0


def draw_bars(plot: BarPlot, size: Size, name: str) -> Node:
    """Draw one bar below the other; names stand beside them where there is room, else above."""
    beside = size.width >= 500
    row = ROW if beside else ROW + 16
    longest = max((len(bar.label) for bar in plot.bars), default=0) * CHARACTER
    left = min(longest + 14, size.width * 0.38) if beside else 14.0
    size = replace(size, height=30 + row * max(1, len(plot.bars)) + 44)
    values = [value for bar in plot.bars for value in (bar.value, bar.low, bar.high) if value is not None]
    values += [plot.reference.value] if plot.reference else []
    linear = replace(plot.axis, scale=Scale.LINEAR, from_zero=True)
    area = Frame(
        size,
        left,
        size.width - VALUE_ROOM,
        30,
        size.height - 44,
        fit(linear, values, size.x_ticks),
        fit(Axis(""), (), 2),
    )
    drawn = _value_axis(area, linear)
    hits: list[Hit] = []
    if not plot.bars:
        drawn.append(empty(area))
    for index, bar in enumerate(plot.bars):
        top = area.top + index * row + (0 if beside else 16)
        drawn.append(_name(area, bar, top, beside))
        drawn += _bar(area, plot, bar, top)
        if bar.value is not None and math.isfinite(bar.value):
            hits.append(Hit(area.px(bar.value), top + ROW / 2, 0, bar.label, _bar_text(plot, bar)))
    if plot.reference is not None:
        drawn += _reference(area, plot.reference)
    return drawing(size, name, plot.summary(), drawn, hits)


def _value_axis(area: Frame, axis: Axis) -> list[Node]:
    drawn: list[Node] = []
    for tick in area.x.ticks:
        at = area.px(tick.value)
        drawn.append(rule("grid", at, area.top - 4, at, area.bottom))
        drawn.append(write_at("tick", at, area.bottom + 18, tick.text, "middle"))
    zero = area.px(0.0)
    drawn.append(rule("rule", zero, area.top - 4, zero, area.bottom))
    drawn.append(write_at("title", area.size.width - 8, area.size.height - 6, axis_title(axis, area.x), "end"))
    return drawn


def _name(area: Frame, bar: Bar, top: float, beside: bool) -> Node:
    room = area.left - 12 if beside else area.size.width - area.left
    name = shorten(bar.label, room)
    if beside:
        return write_at("name", area.left - 8, top + ROW / 2 + 3, name, "end")
    return write_at("name", area.left, top, name)


def _bar(area: Frame, plot: BarPlot, bar: Bar, top: float) -> list[Node]:
    middle = top + ROW / 2 - 1
    if bar.value is None or not math.isfinite(bar.value):
        words = shorten(bar.reason or "not measured", area.size.width - area.px(0.0) - 10)
        return [write_at("failed", area.px(0.0) + 6, middle + 4, words)]
    start, end = sorted((area.px(0.0), area.px(bar.value)))
    box: Attributes = {"x": start, "y": top + 5, "width": max(end - start, 1.0), "height": ROW - 12, "rx": 2.0}
    drawn = [node("rect", {"class": "bar bad" if bar.bad else "bar s1", **box})]
    if bar.low is not None and bar.high is not None and math.isfinite(bar.low) and math.isfinite(bar.high):
        low, high = area.px(bar.low), area.px(bar.high)
        caps = "".join(f"M{place(x)} {place(middle - 4)}v8" for x in (low, high))
        drawn.append(node("path", {"class": "whisker", "d": f"M{place(low)} {place(middle)}H{place(high)}{caps}"}))
        end = max(end, high)
    drawn.append(write_at("value", end + 6, middle + 4, tip(bar.value, plot.axis.unit)))
    return drawn


def _bar_text(plot: BarPlot, bar: Bar) -> str:
    text = tip(bar.value or 0.0, plot.axis.unit)
    if bar.low is not None and bar.high is not None:
        text += f" ({tip(bar.low, plot.axis.unit)} to {tip(bar.high, plot.axis.unit)})"
    return text + (f", {bar.reason}" if bar.reason else "")


def _reference(area: Frame, mark: Mark) -> list[Node]:
    at = area.px(mark.value)
    left = at > (area.left + area.right) / 2
    words = write_at("mark-text", at + (-5 if left else 5), area.top - 10, mark.label, "end" if left else "start")
    return [rule("mark", at, area.top - 18, at, area.bottom), words]


def draw_histogram(plot: HistogramPlot, size: Size, name: str) -> Node:
    """Draw how many values fell where. On a logarithmic axis the bins are as wide as they look."""
    y = Axis(plot.count_label, PLAIN)
    edges = [edge for edge in plot.edges if math.isfinite(edge) and not (plot.x.scale is Scale.LOG and edge <= 0)]
    area = frame(
        size, replace(plot.x, from_zero=False), y, edges if plot.counts else [], [float(c) for c in plot.counts]
    )
    drawn = axes(area, plot.x, y)
    hits: list[Hit] = []
    if not sum(plot.counts):
        drawn.append(empty(area))
    for low, high, count in zip(plot.edges, plot.edges[1:], plot.counts, strict=False):
        if not count or low not in edges or high not in edges:
            continue
        start, end, top = area.px(low), area.px(high), area.py(count)
        width = max(end - start - 1, 0.8)
        box = {"x": start + 0.5, "y": top, "width": width, "height": max(area.bottom - top, 0.8)}
        drawn.append(node("rect", {"class": "bar s1", **box}))
        head = f"{tip(low, plot.x.unit)} to {tip(high, plot.x.unit)}"
        hits.append(Hit((start + end) / 2, top, 0, head, f"{count:,} {plot.count_label}"))
    drawn += marks(area, plot.marks)
    return drawing(size, name, plot.summary(), drawn, hits)

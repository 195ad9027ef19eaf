"""The frame of a plot in SVG: axes, grid, ticks and marks; what it measures is in pixels."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from servable.report.markup import Node, node
from servable.report.plots import Axis, Mark, Scale
from servable.report.scales import Fitted, axis_title, fit

CHARACTER = 7.4
"""Mean width of a character in the plots' type; only used to keep texts apart."""


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a drawing. Every plot is drawn twice: a phone gets other ticks, not smaller type."""

    name: str
    width: float
    height: float
    x_ticks: int
    y_ticks: int


WIDE = Size("wide", 560, 320, 8, 6)
NARROW = Size("narrow", 340, 270, 5, 5)


@dataclass(frozen=True, slots=True)
class Hit:
    """Where the reader can point, and what is said there."""

    x: float
    y: float
    series: int
    head: str
    text: str


@dataclass(frozen=True, slots=True)
class Frame:
    """The area that data is drawn in, with both axes."""

    size: Size
    left: float
    right: float
    top: float
    bottom: float
    x: Fitted
    y: Fitted

    def px(self, value: float) -> float:
        """Return the horizontal place of a value."""
        return self.left + self.x.place(value) * (self.right - self.left)

    def py(self, value: float) -> float:
        """Return the vertical place of a value; more is higher."""
        return self.bottom - self.y.place(value) * (self.bottom - self.top)


def frame(size: Size, x: Axis, y: Axis, xs: Sequence[float], ys: Sequence[float]) -> Frame:
    """Fit both axes and leave room for their texts."""
    fitted_x, fitted_y = fit(x, xs, size.x_ticks), fit(y, ys, size.y_ticks)
    widest = max((len(tick.text) for tick in fitted_y.ticks), default=1)
    last = max((len(tick.text) for tick in fitted_x.ticks if fitted_x.place(tick.value) > 0.9), default=1)
    left = 12 + widest * CHARACTER
    right = size.width - max(14, last * CHARACTER / 2 + 4)
    return Frame(size, left, right, 34, size.height - 44, fitted_x, fitted_y)


def write_at(kind: str, x: float, y: float, text: str, anchor: str = "start") -> Node:
    """Write words; ``anchor`` says whether they begin, end or have their middle there."""
    return node("text", {"class": kind, "x": x, "y": y, "text-anchor": None if anchor == "start" else anchor}, text)


def rule(kind: str, x1: float, y1: float, x2: float, y2: float) -> Node:
    """Draw a straight line."""
    return node("line", {"class": kind, "x1": x1, "y1": y1, "x2": x2, "y2": y2})


def axes(area: Frame, x: Axis, y: Axis) -> list[Node]:
    """Draw grid, ticks and titles. The title of y stands above its axis, where it can be read without turning."""
    drawn: list[Node] = []
    for tick in area.y.ticks:
        at = area.py(tick.value)
        drawn.append(rule("grid" if tick.text else "grid minor", area.left, at, area.right, at))
        if tick.text:
            drawn.append(write_at("tick", area.left - 7, at + 4, tick.text, "end"))
    taken = -math.inf
    for tick in sorted(area.x.ticks, key=lambda tick: tick.value):
        at = area.px(tick.value)
        drawn.append(rule("rule", at, area.bottom, at, area.bottom + (6 if tick.text else 3)))
        half = len(tick.text) * CHARACTER / 2
        if tick.text and at - half > taken:
            drawn.append(write_at("tick", at, area.bottom + 20, tick.text, "middle"))
            taken = at + half + 5
    drawn.append(rule("rule", area.left, area.bottom, area.right, area.bottom))
    drawn.append(write_at("title", 4, 14, axis_title(y, area.y)))
    drawn.append(write_at("title", area.right, area.size.height - 6, axis_title(x, area.x), "end"))
    return drawn


def marks(area: Frame, wanted: Sequence[Mark]) -> list[Node]:
    """Draw lines such as an objective, each with its name; what lies outside the axes is left out."""
    drawn: list[Node] = []
    for mark in (mark for mark in wanted if mark.across and area.y.low <= mark.value <= area.y.high):
        at = area.py(mark.value)
        drawn.append(rule("mark", area.left, at, area.right, at))
        drawn.append(write_at("mark-text", area.left + 6, at - 5, mark.label))
    upright = [mark for mark in wanted if not mark.across and area.x.low <= mark.value <= area.x.high]
    upright.sort(key=lambda mark: mark.value)
    ends = [area.px(mark.value) for mark in upright[1:]] + [area.size.width]
    for mark, end in zip(upright, ends, strict=False):
        at = area.px(mark.value)
        drawn.append(rule("mark", at, area.top - 10, at, area.bottom))
        # Where there is no room for the name, its first word is mostly what tells it from the others.
        for name in (mark.label, mark.label.partition(" ")[0]):
            if name and len(name) * CHARACTER * 0.9 < end - at - 3:
                drawn.append(write_at("mark-text", at + 4, area.top - 3, name))
                break
    return drawn


def shorten(text: str, room: float) -> str:
    """Return text that is no wider than so many pixels; with room for nothing, an ellipsis."""
    most = max(1, int(room / CHARACTER))
    return text if len(text) <= most else text[: most - 1] + "…"


def drawing(size: Size, name: str, summary: str, children: Sequence[Node], hits: Sequence[Hit] = ()) -> Node:
    """Wrap what was drawn, with the text for those who hear it and the places to point at."""
    points = [[round(hit.x, 1), round(hit.y, 1), hit.series, hit.head, hit.text] for hit in hits]
    label = f"{name}-{size.name}"
    return node(
        "svg",
        {
            "class": f"plot {size.name}",
            "viewBox": f"0 0 {size.width:g} {size.height:g}",
            "width": size.width,
            "height": size.height,
            "role": "img",
            "aria-labelledby": label,
            "tabindex": "0" if hits else None,
            "data-points": json.dumps(points, ensure_ascii=False, separators=(",", ":")) if hits else None,
        },
        node("title", {"id": label}, summary),
        *children,
    )


def empty(area: Frame) -> Node:
    """Say that there is nothing, in the middle of where it would be."""
    return write_at("empty", (area.left + area.right) / 2, (area.top + area.bottom) / 2, "no data", "middle")


def is_log(axis: Axis) -> bool:
    """Return whether values at or below zero have no place on the axis."""
    return axis.scale is Scale.LOG

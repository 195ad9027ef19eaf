"""Plots as data. Each one can say in a sentence what it shows, and give its numbers as rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from servable.report.units import PLAIN, Unit, quantity


class Scale(Enum):
    """How values become places. ``NINES`` is for shares near 1: 90 %, 99 % and 99.9 % stand equally far apart."""

    LINEAR = "linear"
    LOG = "log"
    NINES = "nines"


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis. A linear one starts at zero if ``from_zero``."""

    label: str
    unit: Unit = PLAIN
    scale: Scale = Scale.LINEAR
    from_zero: bool = True


@dataclass(frozen=True, slots=True)
class Point:
    """One value, perhaps with the bounds of its interval in y and a ``label`` (such as "32 in flight")."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """Points that belong together. ``bad`` ones count failures and take the colour of failures.

    ``line``, ``dots`` and ``labels`` say whether points are joined, marked, and named where there is room.
    """

    name: str
    points: Sequence[Point]
    bad: bool = False
    line: bool = True
    dots: bool = True
    labels: bool = True

    def finite(self) -> list[Point]:
        """Return the points that have a place; a gap in the measurement is a gap in the line."""
        return [point for point in self.points if math.isfinite(point.x) and math.isfinite(point.y)]


@dataclass(frozen=True, slots=True)
class Mark:
    """A line across the plot at one value of y (``across``) or x, such as an objective."""

    value: float
    label: str
    across: bool = True


@dataclass(frozen=True, slots=True)
class LinePlot:
    """Lines over a common x."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    note: str = ""
    marks: Sequence[Mark] = field(default=())

    def summary(self) -> str:
        """Say in words what the lines do, for who cannot see them."""
        parts = [
            f"{series.name}: {_span(series, self.x.unit, self.y.unit)}" for series in self.series if series.finite()
        ]
        return f"{self.title}. {self.y.label} over {self.x.label}. " + ("; ".join(parts) or "No data") + "."

    def values(self) -> Iterator[tuple[Series, Point]]:
        """Yield every point that has a place."""
        for series in self.series:
            for point in series.finite():
                yield series, point


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, from zero to ``value``; ``low`` and ``high`` bound its confidence interval.

    ``reason`` stands in place of a bar that could not be measured.
    """

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    bad: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BarPlot:
    """Bars, one below the other. They start at zero; ``reference`` draws a line, such as 1 for ratios."""

    title: str
    axis: Axis
    bars: Sequence[Bar]
    note: str = ""
    reference: Mark | None = None

    def summary(self) -> str:
        """Say in words how long the bars are."""
        parts = [
            f"{bar.label}: {quantity(bar.value, self.axis.unit)}" + (f" ({bar.reason})" if bar.reason else "")
            for bar in self.bars
        ]
        return f"{self.title}. {self.axis.label}. " + ("; ".join(parts) or "No data") + "."


@dataclass(frozen=True, slots=True)
class HistogramPlot:
    """How many values fell between each two neighbouring ``edges``; there is one edge more than counts."""

    title: str
    x: Axis
    edges: Sequence[float]
    counts: Sequence[int]
    note: str = ""
    marks: Sequence[Mark] = field(default=())
    count_label: str = "requests"

    def __post_init__(self) -> None:
        """Refuse edges that do not go with the counts."""
        if self.counts and len(self.edges) != len(self.counts) + 1:
            raise ValueError(f"{len(self.counts)} counts need {len(self.counts) + 1} edges, not {len(self.edges)}")

    def summary(self) -> str:
        """Say in words where most values are."""
        total = sum(self.counts)
        if not total:
            return f"{self.title}. No data."
        top = max(range(len(self.counts)), key=self.counts.__getitem__)
        low, high = (quantity(edge, self.x.unit) for edge in self.edges[top : top + 2])
        return (
            f"{self.title}. {total:,} {self.count_label} by {self.x.label}; most, {self.counts[top]:,}, "
            f"between {low} and {high}."
        )


def _span(series: Series, x_unit: Unit, y_unit: Unit) -> str:
    points = series.finite()
    if len(points) == 1:
        return f"{quantity(points[0].y, y_unit)} at {quantity(points[0].x, x_unit)}"
    lowest, highest = min(points, key=lambda point: point.y), max(points, key=lambda point: point.y)
    return (
        f"{len(points)} points, lowest {quantity(lowest.y, y_unit)} at {quantity(lowest.x, x_unit)}, "
        f"highest {quantity(highest.y, y_unit)} at {quantity(highest.x, x_unit)}"
    )

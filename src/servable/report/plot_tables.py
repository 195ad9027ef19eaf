"""The numbers of a plot as a table: for readers who do not see it, and for those who want to calculate."""

from __future__ import annotations

from servable.report.blocks import Cell, Column, Interval, Plot, Table
from servable.report.plots import BarPlot, HistogramPlot, LinePlot, Scale
from servable.report.scales import percentile
from servable.report.units import PLAIN


def table_of(plot: Plot) -> Table:
    """Return a plot's data."""
    if isinstance(plot, BarPlot):
        return _of_bars(plot)
    if isinstance(plot, HistogramPlot):
        rows = [
            (low, high, count)
            for low, high, count in zip(plot.edges, plot.edges[1:], plot.counts, strict=False)
            if count
        ]
        return Table((Column("from", plot.x.unit), Column("to", plot.x.unit), Column(plot.count_label)), rows)
    return _of_lines(plot)


def _of_bars(plot: BarPlot) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for bar in plot.bars:
        value: Cell = bar.value
        if bar.value is not None and bar.low is not None and bar.high is not None:
            value = Interval(bar.value, bar.low, bar.high)
        rows.append((bar.label, value, bar.reason))
    columns = (Column(""), Column(plot.axis.label, plot.axis.unit), Column("note"))
    if not any(bar.reason for bar in plot.bars):
        return Table(columns[:2], [row[:2] for row in rows])
    return Table(columns, rows)


def _of_lines(plot: LinePlot) -> Table:
    xs = sorted({point.x for _, point in plot.values()})
    shared = all(len(series.finite()) == len({point.x for point in series.finite()}) for series in plot.series)
    if shared and not any(point.label for _, point in plot.values()):
        found = [{point.x: _value(point.y, point.low, point.high) for point in s.finite()} for s in plot.series]
        columns = [Column(plot.x.label, PLAIN if plot.x.scale is Scale.NINES else plot.x.unit)]
        columns += [Column(series.name or plot.y.label, plot.y.unit) for series in plot.series]
        return Table(columns, [[_x(plot, x), *(values.get(x) for values in found)] for x in xs])
    rows = [
        (series.name, point.label, _x(plot, point.x), _value(point.y, point.low, point.high))
        for series, point in plot.values()
    ]
    x_column = Column(plot.x.label, PLAIN if plot.x.scale is Scale.NINES else plot.x.unit)
    return Table((Column("series"), Column("point"), x_column, Column(plot.y.label, plot.y.unit)), rows)


def _x(plot: LinePlot, x: float) -> Cell:
    return percentile(x) if plot.x.scale is Scale.NINES else x


def _value(value: float, low: float | None, high: float | None) -> Cell:
    return value if low is None or high is None else Interval(value, low, high)

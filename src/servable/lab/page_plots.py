"""The plots of a measurement: load and latency, percentiles, time, parts of a request."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from servable.core.errors import ServingError
from servable.lab.histogram import Histogram, curve
from servable.lab.objective import parse_objective
from servable.lab.result import Latency, Part, Result, Split, Step
from servable.report.blocks import Block, Column, Notice, Section, Table, Tone
from servable.report.plots import Axis, Bar, BarPlot, HistogramPlot, LinePlot, Mark, Point, Scale, Series
from servable.report.units import PER_SECOND, PLAIN, SECONDS, SHARE

CURVES_AT_MOST = 6
MARKS_AT_MOST = 24
BINS = 48
PARTS = ("encode", "send", "wait", "queue", "compute", "decode")
LATENCY = Axis("latency", SECONDS, Scale.LOG, from_zero=False)


def load_section(result: Result) -> Iterator[Section]:
    """Yield latency against throughput, where there is more than one load."""
    steps = [step for step in result.steps if step.latency.count]
    if len(result.steps) < 2 or not steps:
        return
    plots: list[Block] = [
        LinePlot(
            "Latency against throughput",
            Axis("right answers", PER_SECOND),
            LATENCY,
            _load_series(steps),
            "Down and to the right is better. Where the line turns up, the server is full.",
            _objective(result),
        )
    ]
    offered = [step for step in result.steps if step.offered_rate_per_s is not None]
    if offered:
        plots.append(
            LinePlot(
                "Offered and answered",
                Axis("offered", PER_SECOND),
                Axis("requests", PER_SECOND),
                (
                    Series("offered", [_at_offered(step, step.offered_rate_per_s or 0.0) for step in offered]),
                    Series("answered rightly", [_at_offered(step, step.throughput_per_s) for step in offered]),
                ),
                "Where the lines part, requests wait, fail or are not answered in time.",
            )
        )
    if any(step.server for step in steps):
        points = [
            Point(s.throughput_per_s, s.server.cpu_us_per_request / 1e6, label=s.label) for s in steps if s.server
        ]
        axis = Axis("CPU time a request", SECONDS)
        plots.append(
            LinePlot("What the server pays", Axis("right answers", PER_SECOND), axis, (Series("server", points),))
        )
    yield Section("Load", plots)


def _load_series(steps: Sequence[Step]) -> list[Series]:
    clean = [step for step in steps if not step.errors and not step.wrong]
    failing = [step for step in steps if step.errors or step.wrong]
    p50 = [Point(step.throughput_per_s, step.latency.p50_ms / 1e3, label=step.label) for step in clean]
    p99 = [Point(step.throughput_per_s, step.latency.p99_ms / 1e3, label=step.label) for step in clean]
    found = [Series("p50", p50, labels=False), Series("p99", p99)]
    if failing:
        points = [Point(s.throughput_per_s, s.latency.p99_ms / 1e3, label=s.label) for s in failing]
        found.append(Series("p99 of loads with failures", points, bad=True, line=False))
    return found


def _at_offered(step: Step, rate: float) -> Point:
    return Point(step.offered_rate_per_s or 0.0, rate)


def _objective(result: Result) -> tuple[Mark, ...]:
    if result.search is None:
        return ()
    try:
        limits = parse_objective(result.search.objective).limits
    except ServingError:
        return ()
    return tuple(Mark(limit.limit_ms / 1e3, f"p{limit.percent:g} allowed") for limit in limits)


def latency_section(result: Result) -> Iterator[Section]:
    """Yield percentile curves and histograms."""
    steps = [step for step in result.steps if step.latency.histogram]
    if not steps:
        return
    try:
        blocks: list[Block] = [_percentile_curves(_spread(steps)), _histogram(best(steps))]
    except ServingError as error:
        yield Section("Latency", (Notice(f"The curves are missing: {error.message}.", Tone.WARNING),))
        return
    yield Section("Latency", blocks)


def best(steps: Sequence[Step]) -> Step:
    """Return the step with the highest rate; one with failures only where no other is."""
    return max(steps, key=lambda step: (not step.errors and not step.wrong, step.throughput_per_s))


def _spread(steps: Sequence[Step], most: int = CURVES_AT_MOST) -> list[Step]:
    """Return at most so many steps, the first and the last among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(index * (len(steps) - 1) / (most - 1))] for index in range(most)]


def _percentile_curves(steps: Sequence[Step]) -> LinePlot:
    series = []
    for step in steps:
        series.append(Series(_with_count(step.label, step.latency), _curve(step.latency), dots=False))
        if len(steps) <= 2 and step.corrected is not None and step.corrected.histogram:
            name = f"{step.label}, as clients with a schedule would meet it"
            series.append(Series(name, _curve(step.corrected), dots=False))
    note = "How many requests were at least this fast. Each step to the right leaves a tenth of them."
    return LinePlot("Percentiles", Axis("requests at least as fast", SHARE, Scale.NINES), LATENCY, series, note)


def _with_count(label: str, latency: Latency) -> str:
    return f"{label} (n = {latency.count:,})"


def _curve(latency: Latency) -> list[Point]:
    return [Point(share / 100, ms / 1e3) for share, ms in curve(Histogram.decode(latency.histogram), points=80)]


def _histogram(step: Step) -> HistogramPlot:
    counted = Histogram.decode(step.latency.histogram)
    low, high = max(counted.percentile(0), 1e-6), counted.percentile(100)
    low, high = low * 0.98, max(high, low) * 1.02
    edges = [low * (high / low) ** (index / BINS) for index in range(BINS + 1)]
    above = [round(counted.share_above(edge) * counted.count) for edge in edges]
    counts = [before - after for before, after in pairwise(above)]
    counts[0] += counted.count - above[0]
    counts[-1] += above[-1]
    return HistogramPlot(
        f"Distribution, {step.label}",
        Axis("latency", SECONDS, Scale.LOG, from_zero=False),
        [edge / 1e3 for edge in edges],
        counts,
        f"{counted.count:,} right answers. The axis is logarithmic, and so are the bins.",
        (Mark(step.latency.p50_ms / 1e3, "p50", across=False), Mark(step.latency.p99_ms / 1e3, "p99", across=False)),
    )


def time_section(result: Result) -> Iterator[Section]:
    """Yield what happened second by second; the steps stand one behind the other."""
    steps = [step for step in result.steps if step.seconds]
    if not sum(len(step.seconds) for step in steps) > 1:
        return
    right, failed, median, slow, marks = [], [], [], [], []
    offset = 0.0
    for step in steps:
        if 1 < len(steps) <= MARKS_AT_MOST:
            marks.append(Mark(offset, step.label if len(steps) <= CURVES_AT_MOST else "", across=False))
        for second in step.seconds:
            at = offset + second.at_s
            # The last second of a window is seldom a whole one.
            length = min(1.0, step.duration_s - second.at_s) if step.duration_s > second.at_s else 1.0
            if length >= 0.1:
                right.append(Point(at, second.ok / length))
            failed.append(Point(at, second.errors + second.wrong))
            median.append(_second(at, second.p50_ms))
            slow.append(_second(at, second.p99_ms))
        offset += max(step.duration_s, step.seconds[-1].at_s + 1)
        for points in (right, median, slow):
            points.append(Point(offset, math.nan))
    time = Axis("time", SECONDS)
    blocks: list[Block] = [
        LinePlot(
            "Rate", time, Axis("right answers", PER_SECOND), (Series("right answers", right, dots=False),), "", marks
        ),
        LinePlot(
            "Latency",
            time,
            LATENCY,
            (Series("p50", median, dots=False), Series("p99", slow, dots=False)),
            "Of what ended in each second. A gap: nothing was right in it.",
            marks,
        ),
    ]
    if any(point.y for point in failed):
        counted = Axis("errors and wrong answers", PLAIN)
        blocks.append(LinePlot("Failures", time, counted, (Series("a second", failed, bad=True),), "", marks))
    yield Section("Over time", blocks)


def _second(at: float, value_ms: float | None) -> Point:
    return Point(at, math.nan if value_ms is None else value_ms / 1e3)


def parts_section(result: Result) -> Iterator[Section]:
    """Yield where a request's time went, as far as client and server told."""
    steps = [step for step in result.steps if parts(step.split)]
    if not steps:
        return
    step = best(steps)
    bars = [Bar(name, part.mean_ms / 1e3) for name, part in parts(step.split)]
    note = (
        "Send and wait make up the latency; queue and compute are parts of wait, told by the server. "
        "Encoding happened before the run, decoding behind each answer: neither delays a request."
    )
    plot = BarPlot(f"Mean of each part, {step.label}", Axis("time", SECONDS), bars)
    tables = (_parts_table(steps, "Mean", "mean_ms"), _parts_table(steps, "99th percentile", "p99_ms"))
    yield Section("Where the time goes", (plot, *tables), note)


def _parts_table(steps: Sequence[Step], caption: str, field: str) -> Table:
    found = [dict(parts(step.split)) for step in steps]
    names = [name for name in PARTS if any(name in known for known in found)]
    rows = [
        (step.label, *(getattr(known[name], field) / 1e3 if name in known else None for name in names))
        for step, known in zip(steps, found, strict=True)
    ]
    return Table((Column("load"), *(Column(name, SECONDS) for name in names)), rows, caption)


def parts(split: Split) -> list[tuple[str, Part]]:
    """Return the parts that are known, in the order in which they happen."""
    named = [(name, getattr(split, name)) for name in PARTS]
    return [(name, part) for name, part in named if part is not None]

"""Counters and histograms for the request path: an increment costs about 0.1 µs, exposition is prometheus_client's.

``prometheus_client``'s own instruments cost 0.3 to 1.3 µs for each observation. These are plain lists, written and
read on the event loop only, and handed to its registry by a collector.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

LATENCY_BUCKETS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
MOST_WAITING = 1024
"""Values that wait for their buckets."""
ROWS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Count:
    """One time series that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Distribution:
    """One histogram series: counts by bucket (the last is +Inf) and the sum of all values.

    Values wait in a list, and are sorted into buckets many at a time: that costs half of doing it one by one.
    """

    __slots__ = ("_counts", "_limits", "_total", "waiting")

    def __init__(self, limits: Sequence[float]) -> None:
        self._limits = limits
        self._counts = [0] * (len(limits) + 1)
        self._total = 0.0
        self.waiting: list[float] = []
        """For those who append to it themselves: then call ``fold`` from ``MOST_WAITING`` on."""

    def observe(self, value: float) -> None:
        """Count one value."""
        waiting = self.waiting
        waiting.append(value)
        if len(waiting) >= MOST_WAITING:
            self.fold()

    def fold(self) -> None:
        """Sort what waits into its buckets; about 40 µs for ``MOST_WAITING`` values."""
        if self.waiting:
            values = np.array(self.waiting, np.float64)
            self.waiting.clear()
            found = np.bincount(np.searchsorted(self._limits, values), minlength=len(self._counts))
            self._counts = [old + new for old, new in zip(self._counts, found.tolist(), strict=True)]
            self._total += float(values.sum())

    @property
    def counts(self) -> list[int]:
        """How many values are in each bucket, not in those before it."""
        self.fold()
        return self._counts

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    @property
    def total(self) -> float:
        """The sum of all values."""
        self.fold()
        return self._total

    def cumulative(self, limits: Sequence[float] | None = None) -> list[int]:
        """Return how many values are at most as large as each limit, then how many there are.

        ``limits`` must be some of its own: one histogram is shown with several sets of buckets.
        """
        sums = list(accumulate(self.counts))
        if limits is None:
            return sums
        return [*(sums[bisect_left(self._limits, limit)] for limit in limits), sums[-1]]

    def buckets(self, limits: Sequence[float] | None = None) -> list[tuple[str, float]]:
        """Return the cumulative buckets as Prometheus writes them."""
        shown = self._limits if limits is None else limits
        names = (*map(str, map(float, shown)), "+Inf")
        return [(name, float(count)) for name, count in zip(names, self.cumulative(limits), strict=True)]

    def empty(self) -> Distribution:
        """Return another with the same limits."""
        return Distribution(self._limits)

    def add(self, other: Distribution, times: int = 1) -> None:
        """Take in what another of the same limits has counted, so many times."""
        self._counts = [mine + times * theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self._total += times * other.total


class CounterFamily(Collector):
    """All series of one counter."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str]) -> None:
        self.name, self.help_text, self.labels = name, help_text, tuple(labels)
        self._series: dict[tuple[str, ...], Count] = {}

    def series(self, *values: str) -> Count:
        """Return the series with these label values; keep it to avoid the look-up."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = Count()
        return found

    def items(self) -> list[tuple[tuple[str, ...], Count]]:
        """Return the series there are, each with its label values. For any thread."""
        return list(self._series.items())

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Hand the present values to prometheus_client."""
        family = CounterMetricFamily(self.name, self.help_text, labels=self.labels)
        for values, count in self.items():
            family.add_metric(values, count.value)
        yield family


class HistogramFamily(Collector):
    """All series of one histogram."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str], limits: Sequence[float]) -> None:
        self.name, self.help_text, self.labels, self.limits = name, help_text, tuple(labels), tuple(limits)
        self._series: dict[tuple[str, ...], Distribution] = {}

    def series(self, *values: str) -> Distribution:
        """Return the series with these label values; keep it to avoid the look-up."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = Distribution(self.limits)
        return found

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Hand the present values to prometheus_client."""
        family = HistogramMetricFamily(self.name, self.help_text, labels=self.labels)
        for values, distribution in self._series.items():
            family.add_metric(values, distribution.buckets(), distribution.total)
        yield family

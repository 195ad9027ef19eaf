"""Latencies by the thousand: an HdrHistogram whose counting is vectorised, in the layout and coding of everyone's.

Values are nanoseconds from 1 to one hour; each is known to 3 significant digits.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from servable.core.errors import ServingError, failed_precondition, invalid_argument
from servable.lab.result import Latency

HIGHEST_NS = 3_600_000_000_000
_DIGITS = 3
_SUB_BITS = 11  # 2048 sub-buckets tell 3 digits
_HALF = 1 << (_SUB_BITS - 1)
_BUCKETS = HIGHEST_NS.bit_length() - _SUB_BITS + 1
_SIZE = (_BUCKETS + 1) * _HALF
_NS_PER_MS = 1e6

Counts = npt.NDArray[np.int64]


class Histogram:
    """Counts of latencies. Histograms add up, across steps, processes and machines."""

    __slots__ = ("counts",)

    def __init__(self, counts: Counts | None = None) -> None:
        self.counts: Counts = np.zeros(_SIZE, np.int64) if counts is None else counts

    def record(self, nanoseconds: npt.ArrayLike) -> None:
        """Count values; those below 1 or above an hour count as the nearest that can be told."""
        np.add.at(self.counts, buckets(nanoseconds), 1)

    def add(self, other: Histogram) -> None:
        """Count all that another has counted."""
        self.counts += other.counts

    @property
    def count(self) -> int:
        """Return the number of values."""
        return int(self.counts.sum())

    def percentiles(self, wanted: Sequence[float]) -> list[float]:
        """Return the values in ms that these percentages of all values do not exceed; zeros if there are none."""
        total = np.cumsum(self.counts)
        everything = int(total[-1])
        if not everything:
            return [0.0] * len(wanted)
        ranks = [max(1, math.ceil(percent / 100 * everything - 1e-9)) for percent in wanted]
        return [float(value) / _NS_PER_MS for value in _highest(np.searchsorted(total, ranks))]

    def percentile(self, percent: float) -> float:
        """Return one of them, in ms."""
        return self.percentiles((percent,))[0]

    def share_above(self, limit_ms: float) -> float:
        """Return the share of values that are surely above a limit."""
        everything = self.count
        if not everything:
            return 0.0
        limit = np.clip(np.asarray([limit_ms * _NS_PER_MS], np.int64), 1, HIGHEST_NS)
        return float(self.counts[int(_indices(limit)[0]) + 1 :].sum()) / everything

    def mean(self) -> float:
        """Return the mean in ms."""
        count = self.count
        if not count:
            return 0.0
        used = np.flatnonzero(self.counts)
        return float(_middle(used) @ self.counts[used]) / count / _NS_PER_MS

    def usual(self) -> float:
        """Return the mean in ms of all but the outliers: what takes ten times the median is none of the usual."""
        limit = 10 * self.percentile(50) * _NS_PER_MS
        used = np.flatnonzero(self.counts)
        used = used[_middle(used) <= limit]
        count = int(self.counts[used].sum())
        return float(_middle(used) @ self.counts[used]) / count / _NS_PER_MS if count else 0.0

    def corrected(self, interval_ns: int) -> Histogram:
        """Return what a client with a schedule would have met: each value, and the value less 1, 2, 3 ... intervals.

        So a stall counts for every request that it would have kept waiting.
        """
        found = Histogram(self.counts.copy())
        if interval_ns <= 0:
            return found
        used = np.flatnonzero(self.counts)
        values, counts = _highest(used), self.counts[used]
        long = values > interval_ns
        for value, count in zip(values[long], counts[long], strict=True):
            missed = np.arange(value - interval_ns, interval_ns - 1, -interval_ns)
            np.add.at(found.counts, _indices(missed), count)
        return found

    def summary(self, *, mean_ms: float | None = None) -> Latency:
        """Return the numbers that reports show, and the coded histogram."""
        count = self.count
        if not count:
            return Latency()
        used = np.flatnonzero(self.counts)
        p50, p90, p95, p99, p999 = self.percentiles((50, 90, 95, 99, 99.9))
        return Latency(
            count=count,
            mean_ms=self.mean() if mean_ms is None else mean_ms,
            min_ms=float(_lowest(used[:1])[0]) / _NS_PER_MS,
            p50_ms=p50,
            p90_ms=p90,
            p95_ms=p95,
            p99_ms=p99,
            p999_ms=p999,
            max_ms=float(_highest(used[-1:])[0]) / _NS_PER_MS,
            histogram=self.encode(),
        )

    def encode(self) -> str:
        """Return the base64 text that every HdrHistogram reads."""
        coded = _hdr().HdrHistogram(1, HIGHEST_NS, _DIGITS)
        used = np.flatnonzero(self.counts)
        if used.size:
            counts = np.ascontiguousarray(self.counts)
            ctypes.memmove(coded.counts, counts.ctypes.data, counts.nbytes)
            coded.set_internal_tacking_values(int(used[0]), int(used[-1]), self.count)
        text: bytes = coded.encode()
        return text.decode("ascii")

    @classmethod
    def decode(cls, text: str) -> Histogram:
        """Read such a text, of this layout; "" is an empty histogram."""
        if not text:
            return cls()
        try:
            coded = _hdr().HdrHistogram.decode(text.encode("ascii"))
            laid_out = coded.counts_len == _SIZE and coded.significant_figures == _DIGITS
        except ServingError:
            raise
        except Exception as error:  # noqa: BLE001  # the library has no error of its own
            raise invalid_argument(f"this is no coded HdrHistogram: {error}") from None
        if not laid_out:
            raise invalid_argument("the histogram is not in nanoseconds up to one hour with 3 significant digits")
        known = coded.encoder.payload.counts_len
        counts = np.zeros(_SIZE, np.int64)
        counts[:known] = np.ctypeslib.as_array(coded.counts)[:known]
        return cls(counts)


def curve(histogram: Histogram, *, points: int = 200) -> list[tuple[float, float]]:
    """Return (percentage, ms) for a percentile plot: closer together towards 100, up to where one value decides."""
    count = histogram.count
    if not count:
        return []
    nines = max(1.0, math.log10(count))
    percents = [100 * (1 - 10 ** (-nines * step / (points - 1))) for step in range(points)]
    return list(zip(percents, histogram.percentiles(percents), strict=True))


def buckets(nanoseconds: npt.ArrayLike) -> Counts:
    """Return the place of each value among a histogram's counters."""
    return _indices(np.clip(np.asarray(nanoseconds, np.int64), 1, HIGHEST_NS))


def _indices(values: npt.NDArray[np.int64]) -> Counts:
    # frexp's exponent is the bit length; all values are far below 2**53, where floats are exact.
    bits = np.frexp(values.astype(np.float64))[1].astype(np.int64)
    bucket = np.maximum(bits - _SUB_BITS, 0)
    found: Counts = (bucket << (_SUB_BITS - 1)) + (values >> bucket)
    return found


def _bucket(indices: Counts) -> Counts:
    found: Counts = np.maximum((indices >> (_SUB_BITS - 1)) - 1, 0)
    return found


def _lowest(indices: Counts) -> Counts:
    bucket = _bucket(indices)
    found: Counts = (indices - (bucket << (_SUB_BITS - 1))) << bucket
    return found


def _highest(indices: Counts) -> Counts:
    found: Counts = _lowest(indices) + (np.int64(1) << _bucket(indices)) - 1
    return found


def _middle(indices: Counts) -> npt.NDArray[np.float64]:
    width = np.int64(1) << _bucket(indices)
    found: npt.NDArray[np.float64] = (_lowest(indices) + (width >> 1)).astype(np.float64)
    return found


def require_coding() -> None:
    """Raise FAILED_PRECONDITION now, not after a measurement, if histograms cannot be coded here."""
    _hdr()


def _hdr() -> Any:
    try:
        from hdrh import histogram
    except ImportError:
        raise failed_precondition("histograms are coded by hdrhistogram: pip install 'servable[lab]'") from None
    return histogram

"""What one client process saw, slice by slice. Pure: every time is passed in, in ns of one clock.

A request counts in the slice in which it *ends*; its latency runs from when it *should have begun*. What ends outside
of the measured window counts nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from servable.lab.exchange import Fault, Told
from servable.lab.histogram import Histogram, buckets

SLICE_NS = 250_000_000
SLICES_PER_SECOND = 4
NEVER = 2**63 - 1
_PARTS = ("latency", "send", "wait", "decode", "queue", "compute", "query")
_MOST_KINDS = 64
"""Kinds of errors told apart by text: a text that changes every time must not fill memory."""


@dataclass(slots=True)
class Sparse:
    """The counters of a histogram that are not zero: what travels between processes."""

    indices: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, histogram: Histogram) -> Sparse:
        """Take what a histogram has counted."""
        used = np.flatnonzero(histogram.counts)
        return cls(used, histogram.counts[used])

    @classmethod
    def count(cls, nanoseconds: npt.NDArray[np.int64]) -> Sparse:
        """Count values, without the counters of a whole histogram: this happens while requests wait to be sent."""
        found = buckets(nanoseconds)
        lowest = found.min()
        counts = np.bincount(found - lowest)
        used = np.flatnonzero(counts)
        return cls(used + lowest, counts[used])

    def add_to(self, histogram: Histogram) -> None:
        """Count it there."""
        histogram.counts[self.indices] += self.counts


@dataclass(slots=True)
class Slice:
    """A quarter of a second, or less at the end. ``number`` counts from the step's begin, warm-up included."""

    number: int
    ok: int = 0
    errors: int = 0
    wrong: int = 0
    latency: Sparse | None = None


@dataclass(slots=True)
class Recording:
    """The measured window of one client process."""

    ok: int = 0
    errors: int = 0
    wrong: int = 0
    verified: int = 0
    rows: int = 0
    reply_bytes: int = 0
    begin_ns: int = 0
    end_ns: int = 0
    cpu_ns: int = 0
    unfinished: list[int] = field(default_factory=list)
    """Ages in ns of the requests that had no answer when the window ended."""
    kinds: dict[tuple[str, str], int] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)
    first_slice: int = 0
    """The first that is measured; those before it were warm-up."""
    latency: Sparse | None = None
    send: Sparse | None = None
    wait: Sparse | None = None
    decode: Sparse | None = None
    queue: Sparse | None = None
    compute: Sparse | None = None
    query: Sparse | None = None
    """Bursts: from the begin to the last answer."""


class Recorder:
    """Counts what ends between ``begin_ns`` and ``end_ns``, or until ``count`` requests have ended."""

    def __init__(
        self,
        started_ns: int,
        begin_ns: int,
        end_ns: int,
        *,
        count: int | None = None,
        on_slice: Callable[[Slice], None] = lambda _: None,
        cpu: Callable[[], int] = lambda: 0,
    ) -> None:
        """``begin_ns`` is whole slices after ``started_ns``. ``cpu`` gives the process's CPU time in ns."""
        self._begin = begin_ns
        self._end = end_ns
        self._left = count
        self._on_slice = on_slice
        self._cpu = cpu
        self._cpu_at_begin = 0
        self._recording = Recording()
        self._totals = {name: Histogram() for name in _PARTS}
        self._latencies: list[int] = []
        self._sends: list[int] = []
        self._decodes: list[int] = []
        self._queries: list[int] = []
        self._told: list[Told] = []
        self._slice = Slice(0)
        self._boundary = started_ns + SLICE_NS
        self._measuring = False
        self.over = False
        """The window has ended: nothing counts any more."""
        if begin_ns <= started_ns:
            self._open(started_ns)

    @property
    def begin_ns(self) -> int:
        """Return when the measured window begins."""
        return self._begin

    def move_window(self, begin_ns: int, end_ns: int) -> None:
        """Change the window before it has begun: the warm-up was long enough."""
        if not self._measuring:
            self._begin, self._end = begin_ns, end_ns

    # --- the hot path

    def ok(self, now: int, intended: int, handed: int, size: int, rows: int, *, verified: bool = False) -> None:
        """Count a right answer; ``verified``: it was compared with what was expected."""
        if now >= self._boundary:
            self.tick(now)
            if self.over:
                return
        self._latencies.append(now - intended)
        self._sends.append(handed - intended)
        recording = self._recording
        recording.reply_bytes += size
        recording.rows += rows
        recording.verified += verified
        if self._left is not None:
            self._countdown(now)

    def failed(self, now: int, fault: Fault) -> None:
        """Count an error."""
        if now >= self._boundary:
            self.tick(now)
        if self.over:
            return
        self._slice.errors += 1
        kinds = self._recording.kinds
        key = (fault.code, fault.message)
        if key not in kinds and len(kinds) >= _MOST_KINDS:
            key = (fault.code, "(and other texts)")
        kinds[key] = kinds.get(key, 0) + 1
        self._countdown(now)

    def wrong(self, now: int) -> None:
        """Count an answer that is not what was expected."""
        if now >= self._boundary:
            self.tick(now)
        if not self.over:
            self._slice.wrong += 1
            self._recording.verified += 1
            self._countdown(now)

    def decoded(self, nanoseconds: int) -> None:
        """Note what reading and comparing an answer took."""
        self._decodes.append(nanoseconds)

    def query(self, nanoseconds: int) -> None:
        """Note the time from a burst's begin to its last answer."""
        self._queries.append(nanoseconds)

    def told(self, told: Told) -> None:
        """Note what the server said of its time."""
        self._told.append(told)

    # --- slices

    def tick(self, now: int) -> None:
        """Close the slices that have ended; call it now and then even if no answer comes."""
        while now >= self._boundary and not self.over:
            at = self._boundary
            self._close_slice()
            if not self._measuring and at >= self._begin:
                self._open(at)
            elif self._measuring and at >= self._end:
                self._finish(at)
            else:
                self._next_slice(at)

    def finish(self, now: int, ages: list[int]) -> Recording:
        """End the window, if it has not ended, and return what was seen. ``ages`` are those of what is unanswered."""
        self.tick(now)
        if not self.over:
            if not self._measuring:
                self._open(now)
            self._close_slice()
            self._finish(now)
        self._recording.unfinished = ages
        return self._recording

    def _countdown(self, now: int) -> None:
        if self._left is None or not self._measuring or self.over:
            return
        self._left -= 1
        if self._left == 0:
            self._close_slice()
            self._finish(now)

    def _open(self, at: int) -> None:
        """Begin the measured window: what was seen before is forgotten."""
        self._measuring = True
        kept = self._recording.slices
        self._recording = Recording(begin_ns=at, slices=kept, first_slice=len(kept))
        for histogram in self._totals.values():
            histogram.counts[:] = 0
        self._cpu_at_begin = self._cpu()
        self._next_slice(at)

    def _next_slice(self, at: int) -> None:
        self._slice = Slice(len(self._recording.slices))
        self._boundary = min(at + SLICE_NS, self._end if self._measuring else NEVER)

    def _close_slice(self) -> None:
        part, recording = self._slice, self._recording
        latencies = np.asarray(self._latencies, np.int64)
        sends = np.asarray(self._sends, np.int64)
        part.ok = len(latencies)
        if part.ok:
            part.latency = Sparse.count(latencies)
            part.latency.add_to(self._totals["latency"])
        self._count("send", sends)
        self._count("wait", latencies - sends)
        self._count("decode", self._decodes)
        self._count("query", self._queries)
        self._count("queue", [told.queue_ns for told in self._told if told.queue_ns >= 0])
        self._count("compute", [told.compute_ns for told in self._told if told.compute_ns >= 0])
        for values in (self._latencies, self._sends, self._decodes, self._queries, self._told):
            values.clear()
        recording.ok += part.ok
        recording.errors += part.errors
        recording.wrong += part.wrong
        recording.slices.append(part)
        self._on_slice(part)

    def _count(self, name: str, values: npt.ArrayLike) -> None:
        if np.size(values):
            self._totals[name].record(values)

    def _finish(self, at: int) -> None:
        recording = self._recording
        recording.end_ns = at
        recording.cpu_ns = self._cpu() - self._cpu_at_begin
        for name, histogram in self._totals.items():
            setattr(recording, name, Sparse.of(histogram) if histogram.count else None)
        self.over = True
        self._boundary = 0  # every answer looks, and sees that it is late

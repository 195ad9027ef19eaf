"""What is counted of the request path: requests, their waits, their batches; by model, version and signature.

What TensorFlow Serving shows of the same is shown with other names and buckets: each histogram here has the limits of
both, so that a request pays for one.

The number of series is bounded. Labels come from the configuration and from the models (names, versions, signatures)
or from fixed sets, never from a client; a model that goes through more than ``MOST_VERSIONS`` versions has the oldest
of them added up as the version "older".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from servable.core.errors import Code
from servable.core.messages import InferResponse, ModelRef
from servable.observe.instruments import (
    LATENCY_BUCKETS_S,
    MOST_WAITING,
    ROWS_BUCKETS,
    Count,
    CounterFamily,
    Distribution,
)
from servable.observe.timeline import BatchEvent, Timeline

Known = Callable[[str], bool]
Key = tuple[ModelRef, str]
"""A version and a signature."""
Labels = tuple[str, str, str]
"""Model, version and signature."""

MOST_VERSIONS = 64
"""Versions of one model that have series of their own."""
OLDER = "older"
MOST_SIZES = 64
"""Sizes of batches whose padding is told apart."""
OTHER = "other"


def _seconds(limits_us: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(limit * 1e-6 for limit in limits_us)


THEIR_LATENCY_US = tuple(10 * 1.8**exponent for exponent in range(33))
THEIR_QUEUE_US = tuple(100 * 1.2**exponent for exponent in range(52))
THEIR_GRAPH_US = tuple(1000 * 2.0**exponent for exponent in range(20))
THEIR_ROWS = tuple(2.0**exponent for exponent in range(14))
THEIR_LATENCY_S, THEIR_QUEUE_S, THEIR_GRAPH_S = map(_seconds, (THEIR_LATENCY_US, THEIR_QUEUE_US, THEIR_GRAPH_US))
"""TensorFlow Serving's buckets, in the unit in which things are counted here."""


def _both(theirs: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sorted({*LATENCY_BUCKETS_S, *theirs}))


_LATENCY_LIMITS, _QUEUE_LIMITS, _COMPUTE_LIMITS = map(_both, (THEIR_LATENCY_S, THEIR_QUEUE_S, THEIR_GRAPH_S))


class Answered:
    """The successes of one signature over one wire by one method."""

    __slots__ = ("latency", "runtime")

    def __init__(self) -> None:
        self.latency = Distribution(_LATENCY_LIMITS)
        self.runtime = Distribution(THEIR_LATENCY_S)

    def observe(self, seconds: float, compute_s: float) -> None:
        """Count one."""
        waiting = self.latency.waiting
        waiting.append(seconds)
        self.runtime.waiting.append(compute_s)
        if len(waiting) >= MOST_WAITING:
            self.latency.fold()
            self.runtime.fold()

    def add(self, other: Answered) -> None:
        """Take in those of another version."""
        self.latency.add(other.latency)
        self.runtime.add(other.runtime)


class Work:
    """The waits and batches of one signature, which has so many inputs."""

    __slots__ = ("compute", "computed_rows", "input_rows", "padding", "queue", "rows", "tensors")

    def __init__(self) -> None:
        self.queue = Distribution(_QUEUE_LIMITS)
        self.compute = Distribution(_COMPUTE_LIMITS)
        self.rows = Distribution(THEIR_ROWS)
        self.computed_rows = Distribution(THEIR_ROWS)
        self.input_rows = Distribution(THEIR_ROWS)
        self.padding = Count()
        self.tensors = 1

    def waited(self, seconds: float, rows: int) -> None:
        """Count the wait of a request."""
        waiting = self.queue.waiting
        waiting.append(seconds)
        self.input_rows.waiting.append(rows)
        if len(waiting) >= MOST_WAITING:
            self.queue.fold()
            self.input_rows.fold()

    def ran(self, rows: int, computed: int, seconds: float) -> None:
        """Count a batch."""
        waiting = self.compute.waiting
        waiting.append(seconds)
        self.rows.waiting.append(rows)
        self.computed_rows.waiting.append(computed)
        self.padding.value += computed - rows
        if len(waiting) >= MOST_WAITING:
            self.compute.fold()
            self.rows.fold()
            self.computed_rows.fold()

    def add(self, other: Work) -> None:
        """Take in those of another version."""
        self.queue.add(other.queue)
        self.compute.add(other.compute)
        self.rows.add(other.rows)
        self.computed_rows.add(other.computed_rows)
        self.input_rows.add(other.input_rows)
        self.padding.value += other.padding.value
        self.tensors = other.tensors


_Cells = TypeVar("_Cells", Answered, Work)


class BySignature(Generic[_Cells]):
    """Cells for each signature of each version; those of the oldest versions of a model are added up."""

    def __init__(self, make: Callable[[], _Cells]) -> None:
        self._make: Callable[[], _Cells] = make
        self.cells: dict[Key, _Cells] = {}
        self._older: dict[tuple[str, str], _Cells] = {}

    def new(self, key: Key) -> _Cells:
        """Make the cells of a signature that has none."""
        made = self.cells[key] = self._make()
        versions = dict.fromkeys(ref for ref, _ in self.cells if ref.name == key[0].name)
        if len(versions) > MOST_VERSIONS:
            self._fold(next(iter(versions)))
        return made

    def _fold(self, ref: ModelRef) -> None:
        for key in [key for key in self.cells if key[0] == ref]:
            older = self._older.get((ref.name, key[1]))
            if older is None:
                older = self._older[ref.name, key[1]] = self._make()
            older.add(self.cells.pop(key))

    def items(self) -> Iterator[tuple[Labels, _Cells]]:
        """Yield the cells, each with its labels."""
        for (name, signature), cells in self._older.items():
            yield (name, OLDER, signature), cells
        for (ref, signature), cells in self.cells.items():
            yield (ref.name, str(ref.version), signature), cells


class Meter:
    """Counts the requests of one method over one wire."""

    def __init__(self, wire: str, api: str, failures: CounterFamily, known: Known, timeline: Timeline) -> None:
        self.wire = wire
        self.api = api
        self.served = BySignature(Answered)
        self._cells = self.served.cells
        self._known = known
        self._failures = failures
        self._timeline = timeline

    def answered(self, response: InferResponse, seconds: float) -> None:
        """Count a success: from the complete head to the written reply."""
        key = (response.model, response.signature)
        cells = self._cells.get(key) or self.served.new(key)
        cells.observe(seconds, response.compute_s)
        if self._timeline.is_open:
            self._timeline.request(self.wire, self.api, response, seconds)

    def failed(self, ref: ModelRef | None, code: Code) -> None:
        """Count a failure. What the client asked for becomes a label only if a model of that name is configured."""
        name = ref.name if ref is not None and self._known(ref.name) else ""
        self._failures.series(name, "", "", self.wire, self.api, code.name).value += 1
        if self._timeline.is_open:
            self._timeline.failure(self.wire, self.api, code)


class PathMetrics(Collector):
    """Everything that is counted of the request path."""

    def __init__(self, known: Known) -> None:
        """``known`` tells whether a model of that name is configured."""
        self._known = known
        self.timeline = Timeline()
        self.failures = CounterFamily(
            "servable_requests", "Requests by outcome.", ("model", "version", "signature", "wire", "api", "code")
        )
        self.meters: dict[tuple[str, str], Meter] = {}
        self.work = BySignature(Work)
        self._works = self.work.cells
        self.padding: dict[int | str, Distribution] = {}
        """Rows of padding a batch, by the rows that were computed; what came as too many sizes is at ``OTHER``."""

    def meter(self, wire: str, api: str) -> Meter:
        """Return what counts the requests of one method over one wire."""
        found = self.meters.get((wire, api))
        if found is None:
            found = self.meters[wire, api] = Meter(wire, api, self.failures, self._known, self.timeline)
        return found

    def queued(self, ref: ModelRef, signature: str, rows: int, tensors: int, seconds: float) -> None:
        """Count the wait of one request with so many inputs of so many rows."""
        work = self._works.get((ref, signature))
        if work is None:
            work = self.work.new((ref, signature))
            work.tensors = tensors
        work.waited(seconds, rows)

    def batch(
        self, ref: ModelRef, signature: str, items: int, rows: int, computed: int, began: float, seconds: float
    ) -> None:
        """Count a batch of ``rows``, filled up to ``computed``."""
        key = (ref, signature)
        work = self._works.get(key) or self.work.new(key)
        work.ran(rows, computed, seconds)
        padding = self.padding.get(computed) or self._padding_of(computed)
        padding.observe(computed - rows)
        if self.timeline.is_open:
            self.timeline.batch(BatchEvent(ref, signature, items, rows, computed, began, seconds))

    def _padding_of(self, computed: int) -> Distribution:
        size = computed if len(self.padding) < MOST_SIZES else OTHER
        return self.padding.setdefault(size, Distribution(THEIR_ROWS))

    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        """Hand the present values to prometheus_client."""
        yield from self._requests()
        by_signature = ("model", "version", "signature")
        works = list(self.work.items())
        for name, help_text, limits, pick in _FAMILIES:
            histogram = HistogramMetricFamily(name, help_text, labels=by_signature)
            for labels, work in works:
                distribution = pick(work)
                histogram.add_metric(labels, distribution.buckets(limits), distribution.total)
            yield histogram
        padding = CounterMetricFamily(
            "servable_batch_padding_rows", "Rows that batches were filled up with.", labels=by_signature
        )
        for labels, work in works:
            padding.add_metric(labels, work.padding.value)
        yield padding

    def _requests(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        latency = HistogramMetricFamily(
            "servable_request_duration_seconds",
            "Time from the complete request head to the written reply, successes only.",
            labels=("model", "version", "signature", "wire", "api"),
        )
        (requests,) = self.failures.collect()
        for meter in self.meters.values():
            for labels, served in meter.served.items():
                more = (*labels, meter.wire, meter.api)
                requests.add_metric((*more, Code.OK.name), served.latency.count)
                latency.add_metric(more, served.latency.buckets(LATENCY_BUCKETS_S), served.latency.total)
        yield requests
        yield latency


Pick = Callable[[Work], Distribution]
_FAMILIES: tuple[tuple[str, str, tuple[float, ...], Pick], ...] = (
    (
        "servable_queue_duration_seconds",
        "Time a request waited for the engine.",
        LATENCY_BUCKETS_S,
        lambda work: work.queue,
    ),
    (
        "servable_batch_duration_seconds",
        "Time the engine computed a batch.",
        LATENCY_BUCKETS_S,
        lambda work: work.compute,
    ),
    ("servable_batch_rows", "Rows a batch, without padding.", ROWS_BUCKETS, lambda work: work.rows),
)

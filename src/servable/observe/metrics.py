"""What ``/metrics`` shows: requests, latencies, queueing, batches, and the state of every version.

Label values come from the configuration (models, versions) or from fixed sets (wires, codes), never from a client, so
the number of series is bounded. A request for an unknown model counts with model "", a failure with version "".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from servable.core.errors import Code
from servable.core.messages import ModelRef
from servable.core.status import VersionStatus
from servable.observe.instruments import (
    LATENCY_BUCKETS_S,
    ROWS_BUCKETS,
    Count,
    CounterFamily,
    Distribution,
    HistogramFamily,
)
from servable.observe.loop_lag import LAG_BUCKETS_S, LoopLag

if TYPE_CHECKING:
    import asyncio

Statuses = Callable[[], Iterable[tuple[str, VersionStatus]]]
Known = Callable[[str], bool]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Meter:
    """Counts the requests of one wire."""

    def __init__(self, wire: str, requests: CounterFamily, latency: HistogramFamily, known: Known) -> None:
        self._wire = wire
        self._known = known
        self._requests = requests
        self._latency = latency
        self._answered: dict[ModelRef, tuple[Count, Distribution]] = {}

    def answered(self, ref: ModelRef, seconds: float) -> None:
        """Count a success of a loaded version: from the complete head to the written reply."""
        cells = self._answered.get(ref)
        if cells is None:
            labels = (ref.name, str(ref.version), self._wire)
            cells = (self._requests.series(*labels, Code.OK.name), self._latency.series(*labels))
            self._answered[ref] = cells
        cells[0].value += 1
        cells[1].observe(seconds)

    def failed(self, ref: ModelRef | None, code: Code) -> None:
        """Count a failure. What the client asked for becomes a label only if a model of that name is configured."""
        name = ref.name if ref is not None and self._known(ref.name) else ""
        self._requests.series(name, "", self._wire, code.name).value += 1


class Metrics:
    """All instruments of one server and the registry that exposes them."""

    def __init__(self, statuses: Statuses, known: Known) -> None:
        self._known = known
        self.registry = CollectorRegistry(auto_describe=False)
        by_version = ("model", "version")
        self._requests = CounterFamily("servable_requests", "Requests by outcome.", (*by_version, "wire", "code"))
        self._latency = HistogramFamily(
            "servable_request_duration_seconds",
            "Time from the complete request head to the written reply, successes only.",
            (*by_version, "wire"),
            LATENCY_BUCKETS_S,
        )
        self._queue = HistogramFamily(
            "servable_queue_duration_seconds", "Time a request waited for the engine.", by_version, LATENCY_BUCKETS_S
        )
        self._compute = HistogramFamily(
            "servable_batch_duration_seconds", "Time the engine computed a batch.", by_version, LATENCY_BUCKETS_S
        )
        self._rows = HistogramFamily("servable_batch_rows", "Rows a batch.", by_version, ROWS_BUCKETS)
        self._batches: dict[ModelRef, tuple[Distribution, Distribution]] = {}
        self._queues: dict[ModelRef, Distribution] = {}
        self._dropped = CounterFamily(
            "servable_access_log_dropped", "Lines of the access log that were not written.", ("reason",)
        )
        self._logged = CounterFamily(
            "servable_request_log_records",
            "Requests picked for the request log, by what became of their record.",
            ("model", "code"),
        )
        self._tried = CounterFamily(
            "servable_canary_outcomes",
            "Requests that a version on trial was asked, by outcome; compared answers too.",
            ("model", "version", "outcome"),
        )
        self._trials = _Trials()
        self._transport = CounterFamily(
            "servable_transport_events", "What connections suffered, and what they were ended for.", ("event",)
        )
        self._lag = HistogramFamily(
            "servable_event_loop_lag_seconds", "How late the event loop came to a timer.", (), LAG_BUCKETS_S
        )
        self._stalls = CounterFamily(
            "servable_transport_stalls", "Waits for a client to take what was ready to be sent.", ("what",)
        )
        self._stall_seconds = CounterFamily(
            "servable_transport_stall_seconds", "How long those waits were, together.", ("what",)
        )
        counters = (
            self._requests,
            self._dropped,
            self._logged,
            self._tried,
            self._transport,
            self._stalls,
            self._stall_seconds,
        )
        for family in (*counters, self._lag, self._latency, self._queue, self._compute, self._rows):
            self.registry.register(family)
        self.registry.register(_VersionStates(statuses))
        self.registry.register(self._trials)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def meter(self, wire: str) -> Meter:
        """Return what counts the requests of a wire."""
        return Meter(wire, self._requests, self._latency, self._known)

    def batch(self, ref: ModelRef, items: int, rows: int, computed: int, seconds: float) -> None:
        """Count a batch of ``rows``, filled up to ``computed``."""
        cells = self._batches.get(ref)
        if cells is None:
            labels = (ref.name, str(ref.version))
            cells = self._batches[ref] = (self._rows.series(*labels), self._compute.series(*labels))
        cells[0].observe(rows)
        cells[1].observe(seconds)

    def queued(self, ref: ModelRef, seconds: float) -> None:
        """Count the wait of one request."""
        cell = self._queues.get(ref)
        if cell is None:
            cell = self._queues[ref] = self._queue.series(ref.name, str(ref.version))
        cell.observe(seconds)

    def dropped_lines(self, reason: str) -> Count:
        """Return the count of lines that the access log lost for one reason."""
        return self._dropped.series(reason)

    def tried(self, model: str, version: int, outcome: str) -> None:
        """Count an outcome of a version on trial."""
        self._tried.series(model, str(version), outcome).value += 1

    def trial(self, model: str, version: int, *, ended: bool) -> None:
        """Remember whether a version's trial has ended."""
        self._trials.ended[model, version] = ended

    def logged(self, model: str, code: Code) -> None:
        """Count a record of a request log: OK if it was written. May be called in any thread."""
        self._logged.series(model, code.name).value += 1

    def transport_event(self, event: str) -> None:
        """Count an event of the transport. The names are a fixed set."""
        self._transport.series(event).value += 1

    def transport_stall(self, what: str, seconds: float) -> None:
        """Count a wait of a reply for its client: for a window of the stream or the connection, or the socket."""
        self._stalls.series(what).value += 1
        self._stall_seconds.series(what).value += seconds

    def loop_lag(self, loop: asyncio.AbstractEventLoop) -> LoopLag:
        """Return what watches a loop."""
        return LoopLag(loop, self._lag.series())

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _VersionStates(Collector):
    """One gauge a version, 1 for the state it is in."""

    def __init__(self, statuses: Statuses) -> None:
        self._statuses = statuses

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the states at the moment of asking."""
        family = GaugeMetricFamily(
            "servable_version_state",
            "1 for the state that a version is in.",
            labels=("model", "version", "state", "engine", "precision"),
        )
        for model, status in self._statuses():
            family.add_metric((model, str(status.version), status.state.name, status.engine, status.precision), 1)
        yield family


class _Trials(Collector):
    """One gauge a version on trial: 1, and 0 once it was rolled back."""

    def __init__(self) -> None:
        self.ended: dict[tuple[str, int], bool] = {}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Say what is known now."""
        family = GaugeMetricFamily(
            "servable_canary_active",
            "1 for a version on trial, 0 once it was rolled back.",
            labels=("model", "version"),
        )
        for (model, version), ended in self.ended.items():
            family.add_metric((model, str(version)), 0 if ended else 1)
        yield family

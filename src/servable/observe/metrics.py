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
from servable.core.status import VersionStatus
from servable.observe.instruments import Count, CounterFamily, HistogramFamily
from servable.observe.loop_lag import LAG_BUCKETS_S, LoopLag
from servable.observe.path_metrics import Known, Meter, PathMetrics
from servable.observe.reading import first_value
from servable.observe.tfserving_metrics import TfServingMetrics

if TYPE_CHECKING:
    import asyncio

Statuses = Callable[[], Iterable[tuple[str, VersionStatus]]]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """All instruments of one server and the registry that exposes them."""

    def __init__(self, statuses: Statuses, known: Known) -> None:
        self.path = PathMetrics(known)
        self.batch, self.queued = self.path.batch, self.path.queued
        self.registry = CollectorRegistry(auto_describe=False)
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
        self.tfserving = TfServingMetrics(self.path, self._logged, known)
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
            self._dropped,
            self._logged,
            self._tried,
            self._transport,
            self._stalls,
            self._stall_seconds,
        )
        for family in (self.path, *counters, self._lag):
            self.registry.register(family)
        self.registry.register(_VersionStates(statuses))
        self.registry.register(self._trials)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def meter(self, wire: str, api: str) -> Meter:
        """Return what counts the requests of one method over one wire."""
        return self.path.meter(wire, api)

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
        """Return everything of ours in Prometheus' text format."""
        return generate_latest(self.registry)

    def monitoring(self) -> bytes:
        """Return what TensorFlow Serving shows, then everything of ours."""
        return self.tfserving.exposition() + self.exposition()

    def first_value(self, name: str) -> int:
        """Return the first series of a metric, 0 if there is none.

        ``name`` is in TensorFlow's form, ``/tensorflow/serving/request_count``, or one of ours.
        """
        return self.tfserving.first_value(name) or first_value(self.registry, name)


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

"""TensorFlow Serving's metrics: its names, labels, types and buckets, over what is counted here.

It counts a request for an unknown model under the name that the client sent; here that name is "", so that nobody can
fill the memory of a server with names. What it has for each path of a version, the last ``MOST_PATHS`` have.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from servable.core.errors import Code, ServingError
from servable.observe.exposition import Family, Histogram, Scalar, exposition
from servable.observe.instruments import Count, CounterFamily, Distribution
from servable.observe.path_metrics import (
    THEIR_GRAPH_S,
    THEIR_GRAPH_US,
    THEIR_LATENCY_S,
    THEIR_LATENCY_US,
    THEIR_QUEUE_S,
    THEIR_QUEUE_US,
    THEIR_ROWS,
    Known,
    PathMetrics,
    Work,
)
from servable.observe.tfserving_names import CORE, METRICS, SAVED_MODEL, SERVING, SESSION

CONTENT_TYPE = "text/plain"
MOST_PATHS = 256
COUNTED_APIS = frozenset({"Predict", "Classify", "Regress"})
"""Of gRPC; its other methods have no place in its counts of requests. Over REST everything has."""
RUNTIME = "TF1"

_US = 1e6
Key = TypeVar("Key", bound=Hashable)
_EXAMPLE_LIMITS = tuple(2.0**exponent for exponent in range(15))


class Loads:
    """What becomes of the loads of versions. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paths: dict[str, None] = {}
        self._attempts: dict[tuple[str, ...], Count] = {}
        self._microseconds: dict[tuple[str, ...], Count] = {}
        self._warmups: dict[tuple[str, ...], Distribution] = {}
        self._records: dict[tuple[str, ...], Count] = {}

    def loaded(self, path: str, seconds: float, *, succeeded: bool) -> None:
        """Count a load."""
        with self._lock:
            self._keep(path)
            self._attempts.setdefault((path, "success" if succeeded else "fail"), Count()).value += 1
            if succeeded:
                self._microseconds.setdefault((path,), Count()).value += seconds * _US

    def warmed(self, path: str, error: ServingError | None, seconds: float, records: int) -> None:
        """Count a warm-up that has run so many of the requests that came with the version."""
        key = (path, Code.OK.name if error is None else f"{error.code.name}: {error.message}")
        with self._lock:
            self._keep(path)
            self._warmups.setdefault(key, Distribution(THEIR_LATENCY_S)).observe(seconds)
            if records:
                self._records.setdefault(key, Count()).value += records

    def _keep(self, path: str) -> None:
        """Note a path; forget what was counted of the one that was not heard of for the longest time."""
        self._paths.pop(path, None)
        self._paths[path] = None
        if len(self._paths) > MOST_PATHS:
            forgotten = next(iter(self._paths))
            del self._paths[forgotten]
            tables: tuple[dict[tuple[str, ...], Any], ...]
            tables = (self._attempts, self._microseconds, self._warmups, self._records)
            for table in tables:
                for key in [key for key in table if key[0] == forgotten]:
                    del table[key]

    def families(self) -> list[Family]:
        """Return the present values."""
        by = ("model_path", "status")
        with self._lock:
            return [
                _family(f"{SAVED_MODEL}/load_attempt_count", _scalars(by, self._attempts)),
                _family(f"{SAVED_MODEL}/load_latency", _scalars(("model_path",), self._microseconds)),
                _family(f"{SERVING}/model_warmup_latency", [
                    Histogram(_labels(by, key), THEIR_LATENCY_US, warmup.cumulative(), warmup.total * _US)
                    for key, warmup in self._warmups.items()
                ]),
                _family(f"{SERVING}/model_warmup_records_read", _scalars(by, self._records)),
            ]  # fmt: skip


class TfServingMetrics:
    """What a monitoring path shows."""

    def __init__(self, path: PathMetrics, logged: CounterFamily, known: Known) -> None:
        """``logged`` counts records of request logs by model and code."""
        self.loads = Loads()
        self._path = path
        self._logged = logged
        self._known = known
        self._others: Counter[tuple[str, str]] = Counter()
        self._others_latency: dict[str, Distribution] = {}
        self._examples: dict[str, Distribution] = {}

    def other(self, model: str, code: Code, seconds: float) -> None:
        """Count a REST request that asks no model, or reached none."""
        name = model if self._known(model) else ""
        self._others[name, code.name] += 1
        if code is Code.OK:
            self._others_latency.setdefault(name, Distribution(THEIR_LATENCY_S)).observe(seconds)

    def examples(self, model: str, count: int) -> None:
        """Count the Examples of a MultiInference that was answered."""
        self._examples.setdefault(model, Distribution(_EXAMPLE_LIMITS)).observe(count)

    def exposition(self) -> bytes:
        """Return all of it in Prometheus' text format, as TensorFlow Serving writes that."""
        return exposition(self.families())

    def first_value(self, name: str) -> int:
        """Return the first series of a metric by its name with slashes or as in the text, 0 if there is none."""
        wanted = name.replace(":", "/")
        for family in self.families():
            if family.name == wanted and family.cells:
                cell = family.cells[0]
                return int(cell.value if isinstance(cell, Scalar) else cell.cumulative[-1])
        return 0

    def families(self) -> list[Family]:
        """Return the present values."""
        return [*self._requests(), *self._batches(), *self._graphs(), *self._of_examples(), *self.loads.families()]

    def _requests(self) -> Iterator[Family]:
        counts: Counter[tuple[str, str]] = Counter()
        latencies: dict[tuple[str, str, str], Distribution] = {}
        runtimes: dict[tuple[str, str], Distribution] = {}
        for meter in self._path.meters.values():
            rest = meter.wire == "rest"
            if not rest and meter.api not in COUNTED_APIS:
                continue
            for (model, _, _), served in meter.served.items():
                counts[model, Code.OK.name] += served.latency.count
                key = (model, meter.api.lower() if rest else meter.api, "REST" if rest else "GRPC")
                _sum_up(latencies, key, served.latency)
                _sum_up(runtimes, (model, meter.api), served.runtime)
        for (model, _, _, wire, api, code), failures in self._path.failures.items():
            if wire == "rest" or api in COUNTED_APIS:
                counts[model, code] += int(failures.value)
        counts.update(self._others)
        for model, latency in self._others_latency.items():
            latencies[model, "", "REST"] = latency
        by = ("model_name", "API")
        yield _family(f"{SERVING}/request_count", [
            Scalar(_labels(("model_name", "status"), key), count) for key, count in counts.items()
        ])  # fmt: skip
        yield _family(f"{SERVING}/request_latency", _latencies((*by, "entrypoint"), latencies))
        yield _family(f"{SERVING}/runtime_latency", _latencies(
            (*by, "runtime"), {(*key, RUNTIME): runtime for key, runtime in runtimes.items()}
        ))  # fmt: skip
        yield _family(f"{SERVING}/request_log_count", [
            Scalar(_labels(("model_name", "status_code"), key), count.value) for key, count in self._logged.items()
        ])  # fmt: skip

    def _batches(self) -> Iterator[Family]:
        works = [work for _, work in self._path.work.items()]
        queue = _total(works, lambda work: work.queue)
        waits = [] if queue is None else [
            Histogram((("thread_pool_name", ""),), THEIR_QUEUE_US, queue.cumulative(THEIR_QUEUE_S), queue.total * _US)
        ]  # fmt: skip
        yield _family(f"{SESSION}/queuing_latency", waits)
        computed = _total(works, lambda work: work.computed_rows)
        yield _family(f"{SESSION}/wrapped_run_count", [] if computed is None else [Scalar((), computed.count)])
        yield _family(f"{SESSION}/processed_batch_size", _rows(computed))
        yield _family(f"{SESSION}/input_batch_size", _rows(_input_rows(works)))
        yield _family(f"{SESSION}/padding_size", [
            Histogram((("execution_batch_size", str(size)),), THEIR_ROWS, padding.cumulative(), padding.total)
            for size, padding in self._path.padding.items()
        ])  # fmt: skip

    def _graphs(self) -> Iterator[Family]:
        runs = _total([work for _, work in self._path.work.items()], lambda work: work.compute)
        count, seconds = (0, 0.0) if runs is None else (runs.count, runs.total)
        yield _family(f"{CORE}/graph_runs", [Scalar((), count)])
        yield _family(f"{CORE}/graph_run_time_usecs", [Scalar((), seconds * _US)])
        yield _family(f"{CORE}/graph_run_time_usecs_histogram", [] if runs is None else [
            Histogram((), THEIR_GRAPH_US, runs.cumulative(THEIR_GRAPH_S), runs.total * _US)
        ])  # fmt: skip

    def _of_examples(self) -> Iterator[Family]:
        yield _family(f"{SERVING}/request_example_counts", [
            Histogram((("model", model),), _EXAMPLE_LIMITS, counts.cumulative(), counts.total)
            for model, counts in self._examples.items()
        ])  # fmt: skip
        yield _family(f"{SERVING}/request_example_count_total", [
            Scalar((("model", model),), counts.total) for model, counts in self._examples.items()
        ])  # fmt: skip


def _family(name: str, cells: Sequence[Scalar | Histogram]) -> Family:
    return Family(name, METRICS[name].kind, cells)


def _labels(names: Iterable[str], values: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple(zip(names, values, strict=True))


def _scalars(names: Sequence[str], counts: Mapping[tuple[str, ...], Count]) -> list[Scalar]:
    return [Scalar(_labels(names, key), count.value) for key, count in counts.items()]


def _latencies(names: Sequence[str], cells: dict[tuple[str, str, str], Distribution]) -> list[Histogram]:
    return [
        Histogram(_labels(names, key), THEIR_LATENCY_US, cell.cumulative(THEIR_LATENCY_S), cell.total * _US)
        for key, cell in cells.items()
    ]


def _rows(rows: Distribution | None) -> list[Histogram]:
    return [] if rows is None else [Histogram((), THEIR_ROWS, rows.cumulative(), rows.total)]


def _sum_up(sums: dict[Key, Distribution], key: Key, more: Distribution) -> None:
    found = sums.get(key)
    if found is None:
        found = sums[key] = more.empty()
    found.add(more)


def _total(works: Sequence[Work], pick: Callable[[Work], Distribution]) -> Distribution | None:
    """Return what all signatures have together; ``None`` if there is none."""
    sums: dict[str, Distribution] = {}
    for work in works:
        _sum_up(sums, "", pick(work))
    return sums.get("")


def _input_rows(works: Sequence[Work]) -> Distribution | None:
    """Return the rows of every input tensor: all inputs of a request have as many."""
    sums: Distribution | None = None
    for work in works:
        if sums is None:
            sums = work.input_rows.empty()
        sums.add(work.input_rows, work.tensors)
    return sums

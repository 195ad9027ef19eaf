"""The metrics of TensorFlow Serving that are shown here: name, type, labels, and what is counted."""

from __future__ import annotations

from typing import NamedTuple

SERVING = "/tensorflow/serving"
SESSION = f"{SERVING}/batching_session"
CORE = "/tensorflow/core"
SAVED_MODEL = "/tensorflow/cc/saved_model"


class Metric(NamedTuple):
    """One metric. ``buckets`` are its limits, for people; "" for a counter."""

    kind: str
    labels: tuple[str, ...]
    buckets: str
    what: str


_LATENCY = "µs, 10 * 1.8^i, 33 limits"
_ROWS = "2^i, 14 limits"
METRICS = {
    f"{SERVING}/request_count": Metric(
        "counter",
        ("model_name", "status"),
        "",
        'requests by outcome: gRPC Predict, Classify and Regress, and every request over REST; model_name is "" where'
        " no model of that name is configured",
    ),
    f"{SERVING}/request_latency": Metric(
        "histogram",
        ("model_name", "API", "entrypoint"),
        _LATENCY,
        "successes, complete head to written reply; API is Predict, Classify or Regress over GRPC, the same in small"
        ' letters over REST, and "" there for what asks no model',
    ),
    f"{SERVING}/runtime_latency": Metric(
        "histogram", ("model_name", "API", "runtime"), _LATENCY, "computing, of any engine; runtime is always TF1"
    ),
    f"{SERVING}/request_example_counts": Metric(
        "histogram", ("model",), "2^i, 15 limits", "Examples of a MultiInference that was answered"
    ),
    f"{SERVING}/request_example_count_total": Metric("counter", ("model",), "", "the same, added up"),
    f"{SERVING}/request_log_count": Metric(
        "counter", ("model_name", "status_code"), "", "records of request logs by what became of them"
    ),
    f"{SERVING}/model_warmup_latency": Metric(
        "histogram", ("model_path", "status"), _LATENCY, "running the requests that a version brings for its warm-up"
    ),
    f"{SERVING}/model_warmup_records_read": Metric(
        "counter", ("model_path", "status"), "", "how many of them there were"
    ),
    f"{SESSION}/queuing_latency": Metric(
        "histogram",
        ("thread_pool_name",),
        "µs, 100 * 1.2^i, 52 limits",
        'a request\'s wait for the engine; the name is ""',
    ),
    f"{SESSION}/wrapped_run_count": Metric(
        "counter", (), "", "batches that were computed, batching switched on or not"
    ),
    f"{SESSION}/padding_size": Metric(
        "histogram",
        ("execution_batch_size",),
        _ROWS,
        "rows that a batch was filled up with, by the rows computed: 64 sizes, and the rest as one, other",
    ),
    f"{SESSION}/input_batch_size": Metric("histogram", (), _ROWS, "rows of each input tensor of each request"),
    f"{SESSION}/processed_batch_size": Metric("histogram", (), _ROWS, "rows computed, those of padding too"),
    f"{CORE}/graph_runs": Metric("counter", (), "", "batches that were computed, by any engine"),
    f"{CORE}/graph_run_time_usecs": Metric("counter", (), "", "how long that took together"),
    f"{CORE}/graph_run_time_usecs_histogram": Metric(
        "histogram", (), "µs, 1000 * 2^i, 20 limits", "how long each took"
    ),
    f"{SAVED_MODEL}/load_attempt_count": Metric(
        "counter", ("model_path", "status"), "", "loads of versions, of any kind of model: success or fail"
    ),
    f"{SAVED_MODEL}/load_latency": Metric(
        "counter", ("model_path",), "", "µs of loading a version that succeeded, before its warm-up"
    ),
}

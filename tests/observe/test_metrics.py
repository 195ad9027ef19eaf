from __future__ import annotations

import io
import json
import logging

from prometheus_client.parser import text_string_to_metric_families

from servable.core.errors import Code
from servable.core.messages import InferResponse, ModelRef
from servable.core.status import VersionState, VersionStatus
from servable.observe.instruments import Distribution
from servable.observe.logs import configure_logs
from servable.observe.metrics import Metrics

M1 = ModelRef("m", 1)
ANSWER = InferResponse(M1, "s", {}, 0.1, 0.02)


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


def test_what_happened_is_what_a_foreign_parser_reads() -> None:
    status = VersionStatus(1, VersionState.AVAILABLE, None, "onnxruntime", "f32", "")
    metrics = Metrics(lambda: [("m", status)], {"m"}.__contains__)
    grpc, rest = metrics.meter("grpc", "Predict"), metrics.meter("rest", "Classify")
    for seconds in (0.0002, 0.0002, 20.0):
        grpc.answered(ANSWER, seconds)
    rest.answered(ANSWER, 0.5)
    metrics.batch(M1, "s", 3, 5, 8, 100.0, 0.001)
    metrics.queued(M1, "s", 2, 1, 0.1)
    found = samples(metrics)
    by_version = {"model": "m", "version": "1", "signature": "s"}
    predict, classify = {"wire": "grpc", "api": "Predict"}, {"wire": "rest", "api": "Classify"}
    assert found["servable_requests_total", labels(**by_version, **predict, code="OK")] == 3
    assert found["servable_requests_total", labels(**by_version, **classify, code="OK")] == 1
    bucket = "servable_request_duration_seconds_bucket"
    assert found[bucket, labels(**by_version, **predict, le="0.0001")] == 0
    assert found[bucket, labels(**by_version, **predict, le="0.00025")] == 2
    assert found[bucket, labels(**by_version, **predict, le="+Inf")] == 3
    assert found["servable_request_duration_seconds_count", labels(**by_version, **predict)] == 3
    assert found["servable_batch_rows_sum", labels(**by_version)] == 5
    assert found["servable_batch_duration_seconds_count", labels(**by_version)] == 1
    assert found["servable_queue_duration_seconds_sum", labels(**by_version)] == 0.1
    assert found["servable_batch_padding_rows_total", labels(**by_version)] == 3
    state = labels(model="m", version="1", state="AVAILABLE", engine="onnxruntime", precision="f32")
    assert found["servable_version_state", state] == 1


def test_clients_cannot_make_series() -> None:
    metrics = Metrics(list, {"m"}.__contains__)
    meter = metrics.meter("grpc", "Predict")
    before = len(samples(metrics))
    for number in range(100):
        meter.failed(ModelRef(f"unknown{number}", number), Code.NOT_FOUND)
        meter.failed(ModelRef("m", number), Code.NOT_FOUND)
    meter.failed(None, Code.INTERNAL)
    found = samples(metrics)
    assert len(found) - before == 3
    nobody = {"version": "", "signature": "", "wire": "grpc", "api": "Predict"}
    assert found["servable_requests_total", labels(**nobody, model="", code="NOT_FOUND")] == 100
    assert found["servable_requests_total", labels(**nobody, model="m", code="NOT_FOUND")] == 100


def test_waits_for_clients_are_counted_and_added_up() -> None:
    metrics = Metrics(list, {"m"}.__contains__)
    metrics.transport_stall("stream", 0.25)
    metrics.transport_stall("stream", 0.5)
    metrics.transport_stall("socket", 3)
    found = samples(metrics)
    assert found["servable_transport_stalls_total", labels(what="stream")] == 2
    assert found["servable_transport_stall_seconds_total", labels(what="stream")] == 0.75
    assert found["servable_transport_stall_seconds_total", labels(what="socket")] == 3


def test_a_value_on_a_bucket_limit_belongs_to_it() -> None:
    distribution = Distribution((1, 2))
    for value in (1, 1.5, 2, 3):
        distribution.observe(value)
    assert distribution.buckets() == [("1.0", 1.0), ("2.0", 3.0), ("+Inf", 4.0)]


def log_lines(line_format: str, level: str = "info") -> str:
    stream = io.StringIO()
    configure_logs(level, line_format, stream)
    log = logging.getLogger("servable.test")
    log.debug("not %s", "this")
    log.info("a model named %s", "m\nforged", extra={"model": "m"})
    try:
        int("boom")
    except ValueError:
        log.exception("it failed")
    return stream.getvalue()


def test_json_lines_are_json() -> None:
    first, second = map(json.loads, log_lines("json").splitlines())
    assert first["message"] == "a model named m\nforged"
    assert (first["level"], first["logger"], first["model"]) == ("info", "servable.test", "m")
    assert "ValueError: invalid literal" in second["exception"]
    assert log_lines("auto").startswith("{"), "what is no terminal gets JSON"


def test_console_lines_are_for_people() -> None:
    text = log_lines("console")
    assert "a model named m" in text
    assert not text.startswith("{")
    assert "not this" not in text
    assert "not this" in log_lines("console", "debug")

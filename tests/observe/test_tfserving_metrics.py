"""What a monitoring path shows: byte for byte as TensorFlow Serving, and as Prometheus' own parser reads it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from servable.core.errors import Code, invalid_argument
from servable.core.messages import InferResponse, ModelRef
from servable.observe.exposition import Family, Histogram, Scalar, exposition, name_in_text
from servable.observe.instruments import MOST_WAITING, Distribution
from servable.observe.metrics import Metrics
from servable.observe.path_metrics import MOST_SIZES, MOST_VERSIONS, OLDER
from servable.observe.tfserving_metrics import MOST_PATHS
from servable.observe.tfserving_names import METRICS

M1 = ModelRef("m", 1)
SESSION = ":tensorflow:serving:batching_session"


def answer(version: int = 1, compute_s: float = 0.0005, signature: str = "s") -> InferResponse:
    return InferResponse(ModelRef("m", version), signature, {}, 0.0, compute_s)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(list, {"m"}.__contains__)


def lines(metrics: Metrics) -> list[str]:
    return metrics.tfserving.exposition().decode().splitlines()


@pytest.mark.rule("metrics-3")
def test_text_is_tensorflow_servings() -> None:
    families = [
        Family(
            "/z/last-one", "histogram", [Histogram((("a-b_c", 'x"\\y'),), (10, 32.4, 2.528733e8), (0, 1, 1, 2), 0.5)]
        ),
        Family("/a/first", "counter", [Scalar((), 5.9)]),
        Family("/m/empty", "gauge"),
    ]
    assert exposition(families).decode() == (
        "# TYPE :a:first counter\n"
        ":a:first{} 5\n"
        "# TYPE :m:empty gauge\n"
        "# TYPE :z:last:one histogram\n"
        ':z:last:one_bucket{a_b_c="x\\"\\\\y",le="10"} 0\n'
        ':z:last:one_bucket{a_b_c="x\\"\\\\y",le="32.4"} 1\n'
        ':z:last:one_bucket{a_b_c="x\\"\\\\y",le="2.52873e+08"} 1\n'
        ':z:last:one_bucket{a_b_c="x\\"\\\\y",le="+Inf"} 2\n'
        ':z:last:one_sum{a_b_c="x\\"\\\\y"} 0.5\n'
        ':z:last:one_count{a_b_c="x\\"\\\\y"} 2\n'
    )
    assert name_in_text("9/a") == "_9:a"


@pytest.mark.rule("metrics-4", "metrics-5")
def test_requests_are_counted_as_there(metrics: Metrics) -> None:
    for version, signature in ((1, "s"), (2, "s"), (2, "t")):
        metrics.meter("grpc", "Predict").answered(answer(version, signature=signature), 0.000_025)
    metrics.meter("rest", "Classify").answered(answer(), 0.001)
    metrics.meter("grpc", "MultiInference").answered(answer(), 0.001)
    metrics.meter("grpc", "Predict").failed(M1, Code.INVALID_ARGUMENT)
    metrics.meter("rest", "Predict").failed(ModelRef("invented"), Code.NOT_FOUND)
    metrics.meter("grpc", "MultiInference").failed(M1, Code.INTERNAL)
    metrics.tfserving.other("m", Code.OK, 0.002)
    metrics.tfserving.other("invented", Code.NOT_FOUND, 0.002)
    text = lines(metrics)
    count = ":tensorflow:serving:request_count"
    counts = {line for line in text if line.startswith(count)}
    assert counts == {
        count + '{model_name="m",status="OK"} 5',
        count + '{model_name="m",status="INVALID_ARGUMENT"} 1',
        count + '{model_name="",status="NOT_FOUND"} 2',
    }
    latency = ":tensorflow:serving:request_latency"
    grpc = 'model_name="m",API="Predict",entrypoint="GRPC"'
    for line in (
        f'{latency}_bucket{{{grpc},le="18"}} 0',
        f'{latency}_bucket{{{grpc},le="32.4"}} 3',
        f'{latency}_bucket{{{grpc},le="+Inf"}} 3',
        f"{latency}_sum{{{grpc}}} 75",
        f"{latency}_count{{{grpc}}} 3",
        f'{latency}_count{{model_name="m",API="classify",entrypoint="REST"}} 1',
        f'{latency}_count{{model_name="m",API="",entrypoint="REST"}} 1',
        ':tensorflow:serving:runtime_latency_sum{model_name="m",API="Predict",runtime="TF1"} 1500',
    ):
        assert line in text, line
    assert sum(line.startswith(f"{latency}_count") for line in text) == 3


@pytest.mark.rule("metrics-8", "metrics-9")
def test_batches_are_counted_as_there(metrics: Metrics) -> None:
    for signature, rows, tensors in (("s", 2, 3), ("t", 3, 1)):
        metrics.queued(M1, signature, rows, tensors, 0.000_110)
    metrics.batch(M1, "s", 2, 5, 8, 0.0, 0.0015)
    metrics.batch(ModelRef("m", 2), "s", 1, 8, 8, 0.0, 0.0005)
    text = lines(metrics)
    for line in (
        f'{SESSION}:queuing_latency_bucket{{thread_pool_name="",le="100"}} 0',
        f'{SESSION}:queuing_latency_bucket{{thread_pool_name="",le="120"}} 2',
        f"{SESSION}:wrapped_run_count{{}} 2",
        f'{SESSION}:input_batch_size_bucket{{le="2"}} 3',
        f"{SESSION}:input_batch_size_count{{}} 4",
        f"{SESSION}:input_batch_size_sum{{}} 9",
        f'{SESSION}:processed_batch_size_bucket{{le="4"}} 0',
        f'{SESSION}:processed_batch_size_bucket{{le="8"}} 2',
        f'{SESSION}:padding_size_bucket{{execution_batch_size="8",le="1"}} 1',
        f'{SESSION}:padding_size_sum{{execution_batch_size="8"}} 3',
        ":tensorflow:core:graph_runs{} 2",
        ":tensorflow:core:graph_run_time_usecs{} 2000",
        ':tensorflow:core:graph_run_time_usecs_histogram_bucket{le="1000"} 1',
    ):
        assert line in text, line


@pytest.mark.rule("metrics-6", "metrics-7", "metrics-10", "metrics-11")
def test_loads_warm_ups_examples_and_logs_are_counted_as_there(metrics: Metrics) -> None:
    loads = metrics.tfserving.loads
    loads.loaded("/models/m/1", 0.5, succeeded=True)
    loads.loaded("/models/m/2", 0.5, succeeded=False)
    loads.warmed("/models/m/1", None, 0.000_015, 7)
    loads.warmed("/models/m/2", invalid_argument('bad "x"'), 0.5, 0)
    metrics.tfserving.examples("m", 3)
    metrics.logged("m", Code.OK)
    text = lines(metrics)
    failed = 'model_path="/models/m/2",status="INVALID_ARGUMENT: bad \\"x\\""'
    for line in (
        ':tensorflow:cc:saved_model:load_attempt_count{model_path="/models/m/1",status="success"} 1',
        ':tensorflow:cc:saved_model:load_attempt_count{model_path="/models/m/2",status="fail"} 1',
        ':tensorflow:cc:saved_model:load_latency{model_path="/models/m/1"} 500000',
        ':tensorflow:serving:model_warmup_latency_bucket{model_path="/models/m/1",status="OK",le="18"} 1',
        f":tensorflow:serving:model_warmup_latency_count{{{failed}}} 1",
        ':tensorflow:serving:model_warmup_records_read{model_path="/models/m/1",status="OK"} 7',
        ':tensorflow:serving:request_example_counts_bucket{model="m",le="2"} 0',
        ':tensorflow:serving:request_example_counts_bucket{model="m",le="4"} 1',
        ':tensorflow:serving:request_example_count_total{model="m"} 3',
        ':tensorflow:serving:request_log_count{model_name="m",status_code="OK"} 1',
    ):
        assert line in text, line


def test_the_last_paths_are_kept(metrics: Metrics) -> None:
    loads = metrics.tfserving.loads
    for number in range(2 * MOST_PATHS):
        loads.loaded(f"/models/many/{number}", 0.1, succeeded=True)
    kept = [line for line in lines(metrics) if line.startswith(":tensorflow:cc:saved_model:load_latency{")]
    assert len(kept) == MOST_PATHS
    assert kept[-1].endswith(f'many/{2 * MOST_PATHS - 1}"}} 100000')


def limits_of(samples: list[Any]) -> list[float]:
    return sorted({float(sample.labels["le"]) for sample in samples if sample.name.endswith("_bucket")})


@pytest.mark.rule("metrics-5", "metrics-12")
def test_every_metric_is_declared_and_a_foreign_parser_reads_all(metrics: Metrics) -> None:
    test_requests_are_counted_as_there(metrics)
    test_batches_are_counted_as_there(metrics)
    test_loads_warm_ups_examples_and_logs_are_counted_as_there(metrics)
    found = {family.name: family for family in text_string_to_metric_families(metrics.monitoring().decode())}
    theirs = [line.split()[2:] for line in lines(metrics) if line.startswith("# TYPE")]
    assert [name for name, _ in theirs] == [name_in_text(name) for name in sorted(METRICS)]
    for name, metric in METRICS.items():
        family = found[name_in_text(name).removesuffix("_total")]
        assert family.type == metric.kind
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), sample
    expected = {
        "/tensorflow/serving/request_latency": (33, 1.8, 10.0),
        "/tensorflow/serving/runtime_latency": (33, 1.8, 10.0),
        "/tensorflow/serving/model_warmup_latency": (33, 1.8, 10.0),
        "/tensorflow/serving/request_example_counts": (15, 2, 1.0),
        "/tensorflow/serving/batching_session/queuing_latency": (52, 1.2, 100.0),
        "/tensorflow/serving/batching_session/padding_size": (14, 2, 1.0),
        "/tensorflow/serving/batching_session/input_batch_size": (14, 2, 1.0),
        "/tensorflow/serving/batching_session/processed_batch_size": (14, 2, 1.0),
        "/tensorflow/core/graph_run_time_usecs_histogram": (20, 2, 1000.0),
    }
    assert set(expected) == {name for name, metric in METRICS.items() if metric.kind == "histogram"}
    for name, (count, growth, first) in expected.items():
        *limits, last = limits_of(found[name_in_text(name)].samples)
        assert (len(limits), limits[0], last) == (count, first, math.inf), name
        assert [b / a for a, b in pairwise(limits)] == pytest.approx([growth] * (count - 1), rel=1e-4), name


@pytest.mark.rule("reload-9")
def test_values_are_found_by_name(metrics: Metrics) -> None:
    metrics.meter("grpc", "Predict").answered(answer(), 0.1)
    metrics.batch(M1, "s", 1, 1, 1, 0.0, 0.25)
    assert metrics.first_value("/tensorflow/serving/request_count") == 1
    assert metrics.first_value(":tensorflow:core:graph_run_time_usecs") == 250_000
    assert metrics.first_value("/tensorflow/serving/request_latency") == 1
    assert metrics.first_value("servable_requests_total") == 1
    assert metrics.first_value("/tensorflow/serving/nonesuch") == 0


def test_one_histogram_is_shown_with_two_sets_of_buckets() -> None:
    distribution = Distribution((1, 2, 3, 4))
    for value in (0.5, 2, 2.5, 9):
        distribution.observe(value)
    assert distribution.cumulative((2, 4)) == [2, 3, 4]
    assert distribution.cumulative() == [1, 2, 3, 3, 4]
    assert distribution.buckets((3,)) == [("3.0", 3.0), ("+Inf", 4.0)]


def test_values_that_wait_are_not_lost() -> None:
    distribution = Distribution((0.5, 1))
    for number in range(10 * MOST_WAITING + 3):
        distribution.observe(number % 2)
    assert len(distribution.waiting) == 3
    assert distribution.cumulative() == [5 * MOST_WAITING + 2, 10 * MOST_WAITING + 3, 10 * MOST_WAITING + 3]
    assert (distribution.total, distribution.waiting) == (5 * MOST_WAITING + 1, [])


def test_what_waits_for_its_bucket_is_bounded(metrics: Metrics) -> None:
    meter = metrics.meter("grpc", "Predict")
    for _ in range(3 * MOST_WAITING - 1):
        meter.answered(answer(), 0.1)
        metrics.queued(M1, "s", 1, 1, 0.1)
        metrics.batch(M1, "s", 1, 1, 2, 0.0, 0.1)
    ((_, served),) = meter.served.items()
    ((_, work),) = metrics.path.work.items()
    counted = (served.latency, served.runtime, work.queue, work.input_rows, work.compute, work.rows, work.computed_rows)
    assert [len(each.waiting) for each in counted] == [MOST_WAITING - 1] * len(counted)
    assert [each.count for each in counted] == [3 * MOST_WAITING - 1] * len(counted)


def test_old_versions_are_added_up_and_sizes_are_bounded(metrics: Metrics) -> None:
    meter = metrics.meter("grpc", "Predict")
    for version in range(1, MOST_VERSIONS + 11):
        meter.answered(answer(version), 0.5)
        metrics.batch(ModelRef("m", version), "s", 1, version, version + 1, 0.0, 0.5)
    text = metrics.exposition().decode()
    requests = [line for line in text.splitlines() if line.startswith("servable_requests_total{")]
    assert len(requests) == MOST_VERSIONS + 1
    assert [line.split()[-1] for line in requests if f'version="{OLDER}"' in line] == ["10.0"]
    assert not any('version="10"' in line for line in requests)
    padding = "".join(lines(metrics)).count("padding_size_count{")
    assert padding == MOST_SIZES + 1
    total = next(line for line in lines(metrics) if line.startswith(":tensorflow:serving:request_count"))
    assert total.endswith(f" {MOST_VERSIONS + 10}"), "what is added up is not lost"

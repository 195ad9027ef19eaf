"""TensorFlow Serving's batching parameters, as clients of a live server notice them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.tfserving.rest import Reply, call
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess

BATCHING = "max_batch_size { value: 4 } allowed_batch_sizes: 2 allowed_batch_sizes: 4 num_batch_threads { value: 1 }"
SPLITTING = """
max_batch_size { value: 64 } max_execution_batch_size { value: 4 } enable_large_batch_splitting { value: true }
pad_variable_length_inputs: true batch_timeout_micros { value: 200000 } num_batch_threads { value: 1 }
"""
MONITORING = "/monitoring"


@pytest.fixture(scope="module")
def batching_server(models: LiveModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    file = tmp_path_factory.mktemp("batching") / "batching.config"
    file.write_text(BATCHING)
    words = ("--enable_batching", f"--batching_parameters_file={file}")
    with ServerProcess(models.onnx("half_plus_two"), models.made("onnx_heads"), *words) as started:
        yield started.ready()


@pytest.mark.rule("batch-3", "batch-7", "batch-1")
def test_batches_have_the_sizes_of_the_file(batching_server: ServerProcess) -> None:
    def ask(rows: int) -> Reply:
        body = {"instances": [[float(row)] for row in range(rows)]}
        return call(batching_server.address, "POST", "/v1/models/half_plus_two:predict", body)

    for rows in (1, 2, 3, 4):
        assert ask(rows).json == {"predictions": [[row / 2 + 2] for row in range(rows)]}
    reply = ask(5)
    assert reply.status == 400
    assert reply.error.startswith("Task size 5 is larger than maximum")


@pytest.mark.rule("batch-13")
def test_examples_are_rows_of_batches(batching_server: ServerProcess) -> None:
    for action, signature in (("classify", "serving_default"), ("regress", "flat")):
        for rows, status in ((3, 200), (4, 200), (5, 400)):
            body = {"signature_name": signature, "examples": [{"x": [1.0, 2.0]}] * rows}
            reply = call(batching_server.address, "POST", f"/v1/models/onnx_heads:{action}", body)
            assert reply.status == status, reply.body
            if status == 200:
                assert len(reply.json["results"]) == rows
            else:
                assert reply.error.startswith("Task size 5 is larger than maximum")


@pytest.mark.rule("batch-10", "better-6")
def test_what_cannot_be_batched_is_answered_all_the_same(batching_server: ServerProcess) -> None:
    wrong = call(batching_server.address, "POST", "/v1/models/half_plus_two:predict", {"inputs": [1.0]})
    assert wrong.status == 400, "of a rank that the model does not take"
    good = call(batching_server.address, "POST", "/v1/models/half_plus_two:predict", {"inputs": [[1.0]]})
    assert good.json == {"outputs": [[2.5]]}


@pytest.mark.rule("batch-2", "batch-7", "flag-4")
def test_wrong_parameters_end_the_start(
    models: LiveModels, serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    (tmp_path / "b").write_text("max_batch_size { value: 8 } allowed_batch_sizes: 4")
    server = serve(models.onnx("half_plus_two"), "--enable_batching", f"--batching_parameters_file={tmp_path}/b")
    assert server.wait() != 0
    assert "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8" in server.stderr


@pytest.fixture(scope="module")
def splitting_server(models: LiveModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    file = tmp_path_factory.mktemp("splitting") / "batching.config"
    file.write_text(SPLITTING)
    words = ("--enable_batching", f"--batching_parameters_file={file}", f"--monitoring_path={MONITORING}")
    with ServerProcess(models.made("echo"), *words) as started:
        yield started.ready()


def echo(server: ServerProcess, rows: list[list[float]]) -> Any:
    reply = call(server.address, "POST", "/v1/models/echo:predict", {"instances": rows})
    assert reply.status == 200, reply.body
    return reply.json["predictions"]


@pytest.mark.rule("batch-8", "batch-3")
def test_a_large_request_is_cut_and_joined(splitting_server: ServerProcess) -> None:
    rows = [[float(row), row + 0.5] for row in range(11)]
    assert echo(splitting_server, rows) == rows
    largest = call(splitting_server.address, "POST", "/v1/models/echo:predict", {"instances": [[0.0]] * 65})
    assert largest.status == 400
    assert largest.error.startswith("Task size 65 is larger than maximum")


@pytest.mark.rule("batch-9", "batch-4")
def test_rows_of_different_lengths_share_a_batch(splitting_server: ServerProcess) -> None:
    """Whoever came with fewer columns gets the first element of the own tensor in the others, as there."""
    with ThreadPoolExecutor(2) as threads:
        while True:
            short, long = threads.map(echo, [splitting_server] * 2, [[[7.0, 8.0]], [[1.0, 2.0, 3.0]]])
            assert long == [[1.0, 2.0, 3.0]]
            if short != [[7.0, 8.0]]:  # until they meet
                break
    assert short == [[7.0, 8.0, 7.0]]


@pytest.mark.rule("metrics-8", "metrics-9", "metrics-12")
def test_batches_are_counted(splitting_server: ServerProcess) -> None:
    echo(splitting_server, [[1.0]])
    text = call(splitting_server.address, "GET", MONITORING).body.decode()
    counted = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] == ":"}
    session = ":tensorflow:serving:batching_session"
    assert counted[f"{session}:wrapped_run_count{{}}"] == counted[":tensorflow:core:graph_runs{}"] >= 1
    assert counted[f"{session}:processed_batch_size_count{{}}"] == counted[f"{session}:wrapped_run_count{{}}"]
    assert counted[f"{session}:input_batch_size_sum{{}}"] >= 1
    assert counted[f'{session}:queuing_latency_count{{thread_pool_name=""}}'] >= 1
    assert [name for name in counted if name.startswith(f"{session}:padding_size_count{{execution_batch_size=")]
    assert counted[":tensorflow:core:graph_run_time_usecs{}"] > 0
    assert (
        counted[":tensorflow:core:graph_run_time_usecs_histogram_count{}"] == counted[":tensorflow:core:graph_runs{}"]
    )
    assert "mlmd_map" not in text

"""The same request gets the same answer over both wires and from every engine that can hold the artifact."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess

from servable import Client
from servable.core.tensors import Array
from servable.zoo import catalog

MODELS = ("half_plus_two", "lstm_tokens", "text_cnn", "text_cnn_small")
ROWS = (1, 3, 16)
Start = Callable[..., ServerProcess]


def assert_equal(got: Mapping[str, Array], want: Mapping[str, Array], what: str) -> None:
    assert set(got) == set(want), what
    for name, right in want.items():
        assert got[name].dtype == right.dtype, f"{what}, {name}"
        assert got[name].shape == right.shape, f"{what}, {name}"
        np.testing.assert_allclose(got[name], right, rtol=1e-4, atol=1e-5, err_msg=f"{what}, {name}")


@functools.cache
def case(name: str, rows: int, seed: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return inputs and the right outputs, which take longer to compute here than in any engine."""
    inputs = catalog.sample_inputs(name, rows, seed=seed)
    return inputs, catalog.reference(name, inputs)


def assert_answers_as_the_reference(server: ServerProcess, engine: str) -> None:
    for url in (server.grpc_url, server.rest_url):
        with Client(url) as client:
            for name in MODELS:
                for rows in ROWS:
                    inputs, right = case(name, rows, seed=rows)
                    what = f"{name} in {engine} over {url}, {rows} rows"
                    assert_equal(client.predict(name, inputs=inputs), right, what)


def loaded_engines(server: ServerProcess) -> set[str]:
    return {line.split()[1] for line in server.stdout.splitlines() if line.endswith(" f32")}


def test_onnx_in_onnxruntime(server: ServerProcess) -> None:
    assert loaded_engines(server) == {"onnxruntime"}
    assert_answers_as_the_reference(server, "onnxruntime")


def test_onnx_in_openvino(serve: Start, models: LiveModels) -> None:
    server = serve(*map(models.onnx, MODELS), "--engine", "openvino").ready()
    assert loaded_engines(server) == {"openvino"}
    assert_answers_as_the_reference(server, "openvino")


@pytest.mark.tensorflow
def test_saved_models_in_tensorflow(tensorflow_server: ServerProcess) -> None:
    assert loaded_engines(tensorflow_server) == {"tensorflow"}
    assert_answers_as_the_reference(tensorflow_server, "tensorflow")


@pytest.mark.tensorflow
def test_saved_models_in_openvino(serve: Start, models: LiveModels) -> None:
    server = serve(*map(models.saved_model, MODELS), "--engine", "openvino").ready()
    assert loaded_engines(server) == {"openvino"}
    assert_answers_as_the_reference(server, "openvino")


def test_requests_of_many_clients_at_once_do_not_mix(server: ServerProcess) -> None:
    """Batches are merged from requests that came together; every client gets its own rows back."""

    def call(seed: int) -> None:
        rows = seed % 5 + 1
        inputs, right = case("text_cnn_small", rows, seed)
        url = server.grpc_url if seed % 2 else server.rest_url
        with Client(url) as client:
            got = client.predict("text_cnn_small", inputs=inputs)
        assert_equal(got, right, f"seed {seed}")

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(call, range(64)))


@pytest.mark.tensorflow
def test_what_an_engine_cannot_hold_is_refused_by_the_name_of_the_operation(serve: Start, models: LiveModels) -> None:
    """OpenVINO has no strings, tables or state: it says which operation stands in the way, and what would help."""
    server = serve(models.many_signatures(), "--engine", "openvino")
    assert server.wait() == 1
    assert re.search(r"many/1  FAILED  UNIMPLEMENTED: .*signature '\w+'.*operation \w+ \(node ", server.stdout)
    assert "servable[tensorflow]" in server.stdout

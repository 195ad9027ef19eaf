"""Where a server listens, what each port speaks, and what it says when it cannot start."""

from __future__ import annotations

import http.client
import json
import socket
import stat
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess

from servable import Client
from servable.core.errors import Code, ServingError

Start = Callable[..., ServerProcess]
X = np.array([[1.0]], np.float32)
REQUEST = b'{"instances": [[1.0]]}'


def free_port() -> int:
    """Return a port that was free a moment ago: TensorFlow Serving's flags know no "any"."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ask(url: str) -> list[list[float]]:
    with Client(url, timeout_s=10) as client:
        answer: list[list[float]] = client.predict("half_plus_two", x=X).y.tolist()
        return answer


def http_answer(port: int, path: str = "/v1/models/half_plus_two:predict") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", path, REQUEST)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


# -- TensorFlow Serving's flags ----------------------------------------------------------------------------------------


@pytest.mark.rule("rest-1")
def test_each_port_speaks_what_tensorflow_serving_gives_it(serve: Start, models: LiveModels) -> None:
    grpc, rest = free_port(), free_port()
    base = models.onnx("half_plus_two")
    flags = [f"--port={grpc}", f"--rest_api_port={rest}", "--model_name=half_plus_two", f"--model_base_path={base}"]
    server = serve(*flags).ready()
    assert server.addresses == [f"127.0.0.1:{grpc}", f"127.0.0.1:{rest}"]
    assert ask(f"grpc://127.0.0.1:{grpc}") == [[2.5]]
    assert ask(f"http://127.0.0.1:{rest}") == [[2.5]]
    status, text = http_answer(grpc)
    assert status == 400
    assert text == b"this port speaks gRPC over HTTP/2; HTTP/1.1 has another port\n"
    with pytest.raises(ServingError) as raised:
        ask(f"grpc://127.0.0.1:{rest}")
    assert raised.value.code is Code.UNAVAILABLE


@pytest.mark.rule("rest-1")
def test_equal_ports_speak_both(serve: Start, models: LiveModels) -> None:
    port = free_port()
    server = serve(f"--port={port}", f"--rest_api_port={port}", models.onnx("half_plus_two")).ready()
    assert server.addresses == [f"127.0.0.1:{port}"]
    assert ask(server.grpc_url) == ask(server.rest_url) == [[2.5]]


def test_no_second_port_unasked(serve: Start, models: LiveModels) -> None:
    port = free_port()
    server = serve(f"--rest_api_port={port}", models.onnx("half_plus_two")).ready()
    assert server.addresses == [f"127.0.0.1:{port}"]
    assert ask(server.rest_url) == [[2.5]]


@pytest.mark.rule("service-9")
def test_a_socket_for_grpc(serve: Start, models: LiveModels, tmp_path: Path) -> None:
    path = tmp_path / "grpc.sock"
    server = serve(f"--grpc_socket_path={path}", models.onnx("half_plus_two")).ready()
    assert ask(f"unix:{path}") == [[2.5]]
    assert server.stop() == 0
    assert not path.exists()


# -- ours --------------------------------------------------------------------------------------------------------------


def test_several_addresses_speak_everything(serve: Start, models: LiveModels, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    flags = ["--listen", "127.0.0.1:0", "--listen", f"unix:{path}", "--listen", "[::1]:0"]
    server = serve(models.onnx("half_plus_two"), *flags).ready()
    assert len(server.addresses) == 3
    for address in server.addresses:
        assert ask(f"grpc://{address}") == ask(f"http://{address}") == [[2.5]]
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


@pytest.mark.rule("service-9")
def test_a_stale_socket_is_replaced_and_one_in_use_is_not(serve: Start, models: LiveModels, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    first = serve(models.onnx("half_plus_two"), "--listen", f"unix:{path}").ready()
    second = serve(models.onnx("half_plus_two"), "--listen", f"unix:{path}")
    assert second.wait() == 1
    assert str(path) in second.stderr
    assert "in use" in second.stderr
    assert ask(f"unix:{path}") == [[2.5]]
    assert first.stop() == 0


def test_a_port_in_use(serve: Start, models: LiveModels, server: ServerProcess) -> None:
    for flags in (["--listen", server.address], [f"--port={server.port}"], [f"--rest_api_port={server.port}"]):
        refused = serve(models.onnx("half_plus_two"), *flags)
        assert refused.wait() == 1
        assert refused.stderr.count("\n") == 1, "one line, and no traceback"
        assert refused.stderr.startswith("servable serve: ")
        assert server.address in refused.stderr
        assert "in use" in refused.stderr
    assert ask(server.grpc_url) == [[2.5]]


@pytest.mark.rule("better-2")
def test_health_and_readiness_while_a_model_lacks(serve: Start, models: LiveModels, tmp_path: Path) -> None:
    """Ports are open at once; readiness is a page of its own, and follows what can be served."""
    lacking = tmp_path / "lacking"
    lacking.mkdir()
    (lacking / "1").mkdir()
    (lacking / "1" / "model.onnx").write_bytes(b"")
    server = serve(models.onnx("half_plus_two"), lacking, "--file_system_poll_wait_seconds=0.05")
    server.wait_for("listening on")

    def page(path: str) -> tuple[int, object]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, json.load(reply)
        finally:
            connection.close()

    assert page("/healthz") == (200, {"status": "alive"})
    assert page("/readyz") == (503, {"status": "not ready"})
    content = (models.onnx("half_plus_two") / "1" / "model.onnx").read_bytes()
    (lacking / "1" / "model.onnx").write_bytes(content)
    server.wait_for("  ready after")
    assert page("/readyz") == (200, {"status": "ready"})
    assert page("/v1/models/lacking")[0] == 200


# -- what cannot start -------------------------------------------------------------------------------------------------


def test_starts_that_fail(serve: Start, models: LiveModels, tmp_path: Path) -> None:
    """Exit code 1 and one line that names what is wrong."""
    half = models.onnx("half_plus_two")
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = tmp_path / "broken.config"
    broken.write_text('model_config_list {\n config { name: "a" bas_path: "/x" }\n}')
    starts: list[tuple[list[object], tuple[str, ...]]] = [
        ([], ("there is nothing to serve: give a PATH, --model_base_path or --model_config_file",)),
        ([tmp_path / "missing"], ("missing does not exist",)),
        ([empty], ("empty holds no model", "expected version directories")),
        ([f"a={half}", f"a={half}"], ("two models are called 'a'", "NAME=PATH")),
        ([half, "--port=0", "--rest_api_port=0"], ("every port is off",)),
        ([half, "--listen", "localhost"], ("'localhost' is no address",)),
        ([half, "--listen", "127.0.0.1:99999"], ("99999", "65535")),
        (["--model_config_file", tmp_path / "none.config"], ("none.config", "No such file")),
        (["--model_config_file", broken], (f"Invalid protobuf file: '{broken}'", "2:", "bas_path")),
    ]
    for server, (words, texts) in [(serve(*start[0]), start) for start in starts]:
        assert server.wait(30) == 1, words
        assert server.stdout == ""
        assert server.stderr.count("\n") == 1, server.stderr
        assert server.stderr.startswith("servable serve: ")
        for text in texts:
            assert text in server.stderr


@pytest.mark.rule("manager-9")
def test_a_configuration_without_models_is_one(serve: Start, tmp_path: Path) -> None:
    """As with TensorFlow Serving: models may come later."""
    config = tmp_path / "models.config"
    config.write_text("")
    server = serve("--model_config_file", config).ready()
    assert "  ready after" in server.stdout
    assert server.stop() == 0


def test_wrong_usage(serve: Start, models: LiveModels) -> None:
    """Exit code 2, and the flag that is wrong."""
    half = models.onnx("half_plus_two")
    for words, text in (
        ([half, "--nonesuch"], "--nonesuch"),
        ([half, "--max_body=many"], "--max_body"),
        ([half, "--batching=sometimes"], "sometimes"),
    ):
        server = serve(*words)
        assert server.wait() == 2, words
        assert text in server.stderr
        assert "Traceback" not in server.stderr


def test_an_engine_that_does_not_exist(serve: Start, models: LiveModels) -> None:
    server = serve(models.onnx("half_plus_two"), "--engine", "nonesuch")
    assert server.wait() == 1
    assert "nonesuch" in server.stdout + server.stderr
    assert "onnxruntime, openvino" in server.stdout + server.stderr


@pytest.mark.rule("manager-8")
def test_one_good_model_is_served_beside_a_bad_one(serve: Start, models: LiveModels, tmp_path: Path) -> None:
    bad = tmp_path / "bad" / "1"
    bad.mkdir(parents=True)
    (bad / "model.onnx").write_bytes((models.onnx("half_plus_two") / "1" / "model.onnx").read_bytes()[:50])
    server = serve(models.onnx("half_plus_two"), bad.parent, "--file_system_poll_wait_seconds=0").ready()
    assert "not every model is available after" in server.stdout
    assert "bad/1  FAILED  DATA_LOSS" in server.stdout
    assert ask(server.grpc_url) == [[2.5]]
    with urllib.request.urlopen(f"{server.rest_url}/v1/models/bad") as reply:
        (state,) = json.load(reply)["model_version_status"]
    assert (state["state"], state["status"]["error_code"]) == ("END", "DATA_LOSS")
    assert server.stop() == 0

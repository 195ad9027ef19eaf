"""Command lines and files that were written for TensorFlow Serving, with nothing replaced but program and paths."""

from __future__ import annotations

import json
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.certificates import Authority, needs_openssl
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess, wait_until

import servable

SEED_MODELS = """model_config_list:{
    config:{
        name:"test_model_1",
        base_path:"/models/test_model_1",
        model_platform:"tensorflow",
        model_version_policy:{
            all:{}
        }
    }
}
"""
SEED_MONITOR = """prometheus_config: {
  enable: true,
  path: "/monitoring/prometheus/metrics",
}
"""
SEED_BATCHING = """max_batch_size { value: 8 }
batch_timeout_micros { value: 0 }
max_enqueued_batches { value: 1000000 }
num_batch_threads { value: 8 }
"""


class ModelServer(ServerProcess):
    """``tensorflow_model_server``."""

    program = ("servable.cli.tensorflow_model_server",)


Start = Callable[..., ModelServer]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as ending:
        yield lambda *words, **options: ending.enter_context(ModelServer(*words, **options))


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def get(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        body = answer.read()
        return json.loads(body) if b"json" in answer.headers["content-type"].encode() else body.decode()


def states(port: int, model: str) -> dict[int, str]:
    try:
        found = get(port, f"/v1/models/{model}")
    except urllib.error.HTTPError:
        return {}
    return {int(item["version"]): item["state"] for item in found["model_version_status"]}


@pytest.fixture
def model(models: LiveModels, tmp_path: Path) -> Path:
    """``models/test_model_1`` with two versions."""
    base = tmp_path / "models" / "test_model_1"
    for version in ("1", "2"):
        shutil.copytree(models.onnx("half_plus_two") / "1", base / version)
    return base


@pytest.mark.rule("flag-7", "policy-2", "metrics-1", "file-1")
def test_the_command_line_and_files_of_s1(start: Start, model: Path, tmp_path: Path) -> None:
    (tmp_path / "models.config").write_text(SEED_MODELS.replace("/models/", f"{tmp_path}/models/"))
    (tmp_path / "monitor.config").write_text(SEED_MONITOR)
    port, rest = free_port(), free_port()
    server = start(
        f"--port={port}",
        f"--rest_api_port={rest}",
        "--rest_api_num_threads=4",
        f"--model_config_file={tmp_path}/models.config",
        f"--monitoring_config_file={tmp_path}/monitor.config",
    ).ready()
    assert server.addresses == [f"0.0.0.0:{port}", f"0.0.0.0:{rest}"]
    wait_until(lambda: states(rest, "test_model_1") == {1: "AVAILABLE", 2: "AVAILABLE"}, "both versions are there")
    for version in (None, 1, 2):
        with servable.Client(f"grpc://127.0.0.1:{port}") as client:
            answer = client.predict("test_model_1", x=[[2.0], [4.0]], version=version)
            assert answer["y"].tolist() == [[3.0], [4.0]]
    assert "# TYPE " in get(rest, "/monitoring/prometheus/metrics")
    assert server.stderr.count("--rest_api_num_threads: accepted, no effect because one event loop") == 1
    assert server.stop() == 0


@pytest.mark.rule("flag-2", "flag-8", "rest-1", "batch-1", "batch-3")
def test_the_command_line_and_file_of_s4(start: Start, model: Path, tmp_path: Path) -> None:
    (tmp_path / "batching_config.txt").write_text(SEED_BATCHING)
    port = free_port()
    server = start(
        f"--port={port}",
        "--model_name=resnet",
        f"--model_base_path={model}",
        "--enable_batching=true",
        f"--batching_parameters_file={tmp_path}/batching_config.txt",
    ).ready()
    assert server.addresses == [f"0.0.0.0:{port}"], "REST is off unless it is asked for"
    with servable.Client(f"grpc://127.0.0.1:{port}") as client:
        assert client.predict("resnet", x=[[2.0]] * 8)["y"].tolist() == [[3.0]] * 8
        with pytest.raises(servable.ServingError, match="Task size 9 is larger than maximum"):
            client.predict("resnet", x=[[2.0]] * 9)
    assert server.stop() == 0


@pytest.mark.rule("flag-4", "file-2")
def test_a_server_that_cannot_start_ends_as_tensorflow_servings_does(start: Start, tmp_path: Path) -> None:
    (tmp_path / "models.config").write_text("model_config_list {\n  config { nam: 'x' } }")
    server = start(f"--port={free_port()}", f"--model_config_file={tmp_path}/models.config")
    assert server.wait(20) == 255
    assert server.stdout.startswith(
        f"Failed to start server. Error: INVALID_ARGUMENT: Invalid protobuf file: '{tmp_path}/models.config': "
    )
    assert f"{tmp_path}/models.config:2:12: tensorflow.serving.ModelConfig has no field 'nam'" in server.stdout


@pytest.mark.rule("config-1", "config-3", "policy-1")
def test_a_changed_config_file_is_followed(start: Start, model: Path, tmp_path: Path) -> None:
    """Models come, go and change their policy; what cannot be taken changes nothing."""
    config = tmp_path / "models.config"

    def write(text: str) -> None:
        (tmp_path / "new").write_text(f"model_config_list {{ {text} }}")
        (tmp_path / "new").replace(config)

    write(f"config {{ name: 'a' base_path: '{model}' }}")
    rest = free_port()
    server = start(
        "--port=0", f"--grpc_socket_path={tmp_path}/s", f"--rest_api_port={rest}", f"--model_config_file={config}",
        "--model_config_file_poll_wait_seconds=0.1", "--file_system_poll_wait_seconds=0.1",
    ).ready()  # fmt: skip
    assert states(rest, "a") == {2: "AVAILABLE"}

    write(
        f"config {{ name: 'a' base_path: '{model}' model_version_policy {{ all {{}} }} }}"
        f"config {{ name: 'b' base_path: '{model}' version_labels {{ key: 'stable' value: 2 }} }}"
    )
    wait_until(lambda: states(rest, "a") == {1: "AVAILABLE", 2: "AVAILABLE"}, "version 1 came")
    wait_until(lambda: states(rest, "b") == {2: "AVAILABLE"}, "model b came")
    wait_until(lambda: get(rest, "/v1/models/b/labels/stable") is not None, "the label came")

    write(f"config {{ name: 'a' base_path: '{model}' }} config {{ nam: 'c' }}")
    wait_until(lambda: "no field 'nam'" in server.stderr, "the error was logged")
    write(
        f"config {{ name: 'a' base_path: '{model}' }}"
        f"config {{ name: 'b' base_path: '{model}' version_labels {{ key: 'stable' value: 7 }} }}"
    )
    wait_until(lambda: "label to version 7 of model b" in server.stderr, "the label was refused")
    assert states(rest, "a") == {1: "AVAILABLE", 2: "AVAILABLE"}
    assert states(rest, "b") == {2: "AVAILABLE"}

    config.unlink()
    wait_until(lambda: "cannot read" in server.stderr, "the missing file was logged")
    assert states(rest, "b") == {2: "AVAILABLE"}

    write(f"config {{ name: 'b' base_path: '{model}' }}")
    wait_until(lambda: states(rest, "a").get(2, "END") == "END", "model a went")
    assert states(rest, "b") == {2: "AVAILABLE"}
    assert server.stop() == 0


@pytest.mark.rule("label-3", "label-4")
def test_labels_before_their_versions_only_where_that_is_allowed(start: Start, model: Path, tmp_path: Path) -> None:
    config = tmp_path / "models.config"
    config.write_text(
        f"model_config_list {{ config {{ name: 'm' base_path: '{model}' "
        "version_labels { key: 'next' value: 3 } version_labels { key: 'stable' value: 2 } } }"
    )
    for words, found in ((["--allow_version_labels_for_unavailable_models"], 404), ([], 400)):
        rest = free_port()
        server = start(f"--port={free_port()}", f"--rest_api_port={rest}", f"--model_config_file={config}", *words)
        server.ready()
        assert get(rest, "/v1/models/m/labels/stable/metadata")["model_spec"]["version"] == "2"
        with pytest.raises(urllib.error.HTTPError) as raised:
            get(rest, "/v1/models/m/labels/next/metadata")
        assert raised.value.code == found
        raised.value.close()
        assert server.stop() == 0


def pem(path: Path) -> str:
    """One string for each line, as people write PEM into text format."""
    return " ".join(f'"{line}\\n"' for line in path.read_text().splitlines())


@needs_openssl
@pytest.mark.rule("tls-1", "tls-2")
def test_an_ssl_config_file_with_clients_verified(start: Start, model: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    own, client = authority.server(), authority.client()
    (tmp_path / "ssl.config").write_text(
        f"server_key: {pem(own.key)}\nserver_cert: {pem(own.certificate)}\n"
        f"custom_ca: {pem(authority.certificate)}\nclient_verify: true\n"
    )
    port = free_port()
    server = start(f"--port={port}", f"--model_base_path={model}", f"--ssl_config_file={tmp_path}/ssl.config").ready()
    root = authority.certificate.read_bytes()
    known = grpc.ssl_channel_credentials(root, client.key.read_bytes(), client.certificate.read_bytes())
    with grpc.secure_channel(f"localhost:{port}", known) as channel:
        answer = channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")(b"\x0a\x09\x0a\x07default")
        assert b"\x08\x02" in answer, "version 2 is in the answer"
    with (
        grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(root)) as channel,
        pytest.raises(grpc.RpcError) as raised,
    ):
        channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")(b"", timeout=5)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "-----BEGIN" not in server.stderr
    assert server.stop() == 0


@pytest.mark.rule("batch-14")
def test_parameters_in_a_version_batch_it_and_none_do_not(start: Start, model: Path) -> None:
    (model / "2" / "batching_params.pbtxt").write_text("max_batch_size { value: 3 }")
    port = free_port()
    server = start(
        f"--port={port}", f"--model_base_path={model}", "--enable_batching", "--enable_per_model_batching_parameters"
    ).ready()
    with (
        servable.Client(f"grpc://127.0.0.1:{port}") as client,
        pytest.raises(servable.ServingError, match="Task size 4 is larger than maximum"),
    ):
        client.predict("default", x=[[2.0]] * 4)
    assert server.stop() == 0

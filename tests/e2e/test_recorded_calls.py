"""Calls that are logged, replayed against a server, and run as warm-up: one kind of file through all three."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess

from servable import protos
from servable.client import Client
from servable.core.messages import InferResponse, ModelRef
from servable.lifecycle.warmup_file import WARMUP_FILE
from servable.protos.tfrecord import frame_record, read_records
from servable.wire import tfserving_grpc
from servable.wire.prediction_log import decode_prediction_log, encode_call
from servable.wire.tfserving_examples import ExampleRequest
from servable.wire.tfserving_grpc_examples import encode_example_request

Serve = Callable[..., ServerProcess]
MODEL = "half_plus_two"


def servable(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "servable", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)


def config(folder: Path, name: str, path: Path, rate: float = 1.0) -> Path:
    file = folder / "models.config"
    file.write_text(
        f'model_config_list {{ config {{ name: "{name}" base_path: "{path}" logging_config {{\n'
        f'  log_collector_config {{ filename_prefix: "{folder}/log/{name}" }}\n'
        f"  sampling_config {{ sampling_rate: {rate} }} }} }} }}\n"
    )
    return file


@pytest.fixture(scope="module")
def logged(models: LiveModels, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The log of ten calls over gRPC and ten over REST."""
    folder = tmp_path_factory.mktemp("logged")
    with ServerProcess("--model_config_file", config(folder, MODEL, models.onnx(MODEL))) as server:
        for url in (server.ready().grpc_url, server.rest_url):
            with Client(url) as client:
                for value in range(10):
                    client.predict(MODEL, x=np.array([[float(value)]], np.float32))
        assert server.stop() == 0
    (path,) = (folder / "log").iterdir()
    return path.read_bytes()


@pytest.fixture
def log(logged: bytes, tmp_path: Path) -> Path:
    path = tmp_path / f"{MODEL}.log"
    path.write_bytes(logged)
    return path


def tampered(log: Path, change: Callable[[InferResponse], InferResponse]) -> Path:
    """Return a copy of a log whose third answer is another one."""
    records = []
    for number, record in enumerate(read_records(log)):
        call = decode_prediction_log(record)
        assert call is not None
        if number == 2:
            response = change(tfserving_grpc.decode_predict_response(call.response))
            call = replace(call, response=tfserving_grpc.encode_predict_response(response))
        records.append(frame_record(encode_call(call)))
    path = log.with_name("tampered.tfrecord")
    path.write_bytes(b"".join(records))
    return path


@pytest.mark.rule("log-2")
def test_what_was_asked_over_any_wire_is_logged_and_answered_again(
    log: Path, server: ServerProcess, tmp_path: Path
) -> None:
    shown = json.loads(servable("warmup", "show", log, "--json").stdout)
    assert len(shown) == 20
    assert {(each["kind"], each["model"], each["inputs"]) for each in shown} == {
        ("predict_log", f"{MODEL}/1", "x float32[1, 1]")
    }
    for url in (f"{server.grpc_url}/{MODEL}", f"{server.rest_url}/{MODEL}"):
        done = servable("replay", log, url, "--json", "--concurrency", 3)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert (found["calls"], found["same"], found["largest_difference"]) == (20, 20, 0.0)

    def one_more(response: InferResponse) -> InferResponse:
        return replace(response, outputs={name: array + 1 for name, array in response.outputs.items()})

    done = servable("replay", tampered(log, one_more), f"{server.grpc_url}/{MODEL}")
    assert done.returncode == 1
    assert "numbers differ by up to 1" in done.stdout
    assert "20 calls: 19 same, 1 different" in done.stdout
    done = servable("replay", log, f"{server.grpc_url}/nobody", "--count", 2)
    assert done.returncode == 1
    assert "NOT_FOUND" in done.stdout
    assert "2 calls: 2 failed" in done.stdout
    (tmp_path / "cut").write_bytes(log.read_bytes()[:-1])
    done = servable("replay", tmp_path / "cut", f"{server.grpc_url}/{MODEL}")
    assert (done.returncode, "truncated record" in done.stderr) == (1, True), "nothing is sent of a damaged log"
    done = servable("replay", log, "grpc://127.0.0.1:1/m", "--count", 1)
    assert (done.returncode, "UNAVAILABLE" in done.stdout) == (1, True)


def with_warmup(models: LiveModels, folder: Path, data: bytes) -> Path:
    """Return a copy of the model that brings a warm-up file."""
    model = folder / MODEL
    shutil.copytree(models.onnx(MODEL), model)
    path = model / "1" / WARMUP_FILE
    path.parent.mkdir()
    path.write_bytes(data)
    return model


@pytest.mark.rule("log-4", "warmup-1")
def test_a_log_is_a_warm_up_file(log: Path, serve: Serve, models: LiveModels, tmp_path: Path) -> None:
    model = with_warmup(models, tmp_path, log.read_bytes())
    server = serve(model, "--num_request_iterations_for_warmup=3", "--monitoring_path=/monitoring").ready()
    assert f"{MODEL}/1 answered the 20 requests of its {WARMUP_FILE.name}" in server.stderr
    with urllib.request.urlopen(f"{server.rest_url}/monitoring") as page:
        lines = page.read().decode().splitlines()
    labels = f'{{model_path="{model}/1",status="OK"}}'
    assert f":tensorflow:serving:model_warmup_records_read{labels} 20" in lines
    assert f":tensorflow:serving:model_warmup_latency_count{labels} 1" in lines


def wrong_input(log: Path) -> bytes:
    record = next(iter(read_records(log)))
    call = decode_prediction_log(record)
    assert call is not None
    request = tfserving_grpc.decode_predict_request(call.request)
    request.inputs = {"z": request.inputs["x"]}
    return frame_record(encode_call(replace(call, request=tfserving_grpc.encode_predict_request(request))))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda log: log.read_bytes()[:-1], "Please verify your warmup data is in TFRecord format."),
        (wrong_input, "(record 1 of "),
        (lambda log: log.read_bytes() * 51, "Number of warmup records exceeds the maximum (1000)"),
        (lambda log: frame_record(b"no message"), "Failed to parse warmup record"),
    ],
    ids=["damaged", "wrong input", "too many", "no message"],
)
@pytest.mark.rule("warmup-3", "warmup-4")
def test_a_warm_up_that_fails_fails_the_load(
    make: Callable[[Path], bytes], words: str, log: Path, serve: Serve, models: LiveModels, tmp_path: Path
) -> None:
    model = with_warmup(models, tmp_path, make(log))
    other = models.onnx("lstm_tokens")
    server = serve(model, other, "--max_num_load_retries=0").ready()
    with Client(server.grpc_url) as client:
        (status,) = client.status(MODEL)
        assert status.state.name == "END"
        assert words in status.error.message  # type: ignore[union-attr]
        assert client.status("lstm_tokens")[0].state.name == "AVAILABLE"


@pytest.mark.rule("warmup-2")
def test_without_warm_up_the_file_is_not_looked_at(serve: Serve, models: LiveModels, tmp_path: Path) -> None:
    server = serve(with_warmup(models, tmp_path, b"broken"), "--enable_model_warmup=false").ready()
    with Client(server.grpc_url) as client:
        assert client.status(MODEL)[0].state.name == "AVAILABLE"


def test_warmup_record_writes_what_a_server_takes(serve: Serve, models: LiveModels, tmp_path: Path) -> None:
    model = tmp_path / MODEL
    shutil.copytree(models.onnx(MODEL), model)
    done = servable("warmup", "record", model, "--synthesize", "--sizes", "1,4")
    assert done.returncode == 0, done.stderr
    assert "2 requests, each of which onnxruntime answered" in done.stdout
    before = (model / "1" / WARMUP_FILE).read_bytes()
    for words, problem in (
        (["y=1"], "Inputs expected"),
        (["x=[[1]]", "--synthesize"], "one source"),
        (["--synthesize", "--sizes", "0"], "--sizes"),
        (["--log", tmp_path / "none"], "cannot read"),
        ([], "one source"),
    ):
        done = servable("warmup", "record", model, *words)
        assert done.returncode == 1
        assert problem in done.stderr
    assert (model / "1" / WARMUP_FILE).read_bytes() == before, "a failure leaves the file as it was"
    server = serve(model).ready()
    assert f"{MODEL}/1 answered the 2 requests" in server.stderr


@pytest.mark.tensorflow
def test_classify_and_regress_are_logged_and_answered_again(serve: Serve, models: LiveModels, tmp_path: Path) -> None:
    with models.heads_answers().open("rb") as file:
        examples = pickle.load(file)[0]["plain"]
    server = serve("--model_config_file", config(tmp_path, "heads", models.heads())).ready()
    heads = ModelRef("heads")
    tasks = protos.serving_internal.SerializedMultiInferenceRequest()
    for name, kind in (("scores", "classify"), ("regress", "regress")):
        task = tasks.tasks.add(method_name=f"tensorflow/serving/{kind}")
        task.model_spec.name, task.model_spec.signature_name = "heads", name
    tasks.input.example_list.examples.extend(examples)
    with grpc.insecure_channel(server.address) as channel:
        for method, body in (
            (tfserving_grpc.CLASSIFY, encode_example_request(ExampleRequest(heads, "", examples))),
            (tfserving_grpc.REGRESS, encode_example_request(ExampleRequest(heads, "regress", examples))),
            (tfserving_grpc.MULTI_INFERENCE, tasks.SerializeToString()),
        ):
            channel.unary_unary(method.decode())(body, timeout=20)
    assert server.stop() == 0
    (log,) = (tmp_path / "log").iterdir()
    kinds = [each["kind"] for each in json.loads(servable("warmup", "show", log, "--json").stdout)]
    assert sorted(kinds) == ["classify_log", "classify_log", "regress_log", "regress_log"]
    copied = tmp_path / "heads"
    shutil.copytree(models.heads(), copied)
    (version,) = copied.iterdir()
    (version / WARMUP_FILE).parent.mkdir(exist_ok=True)
    shutil.copy(log, version / WARMUP_FILE)
    again = serve(copied).ready()
    assert "answered the 4 requests" in again.stderr
    done = servable("replay", log, f"{again.grpc_url}/heads", "--json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["same"] == 4
    done = servable("replay", log, f"{again.rest_url}/heads", "--json")
    assert (done.returncode, json.loads(done.stdout)["skipped"]) == (1, 4)

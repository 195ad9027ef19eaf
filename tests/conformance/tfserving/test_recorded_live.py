"""Request logs and warm-up files of a live server, counted as TensorFlow Serving counts them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conformance.tfserving.rest import call
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess, wait_until

from servable import protos
from servable.lifecycle.warmup_file import WARMUP_FILE
from servable.protos.tfrecord import frame_record, read_records

CALLS = 6
MONITORING = "/monitoring"
CONFIG = """
config {{ name: "{name}" base_path: "{path}" logging_config {{
  log_collector_config {{ type: "tfrecord" filename_prefix: "{folder}/log/{name}" }}
  sampling_config {{ {sampling} }} }} }}
"""
SAMPLINGS = {
    "all": "sampling_rate: 1.0",
    "none": "sampling_rate: 0.0",
    "tasks": "sampling_rate: 0.0 per_task_sampling_configs { dc: 'x' sampling_rate: 0.0 } "
    "per_task_sampling_configs { sampling_rate: 1.0 }",
}


def lines(server: ServerProcess) -> list[str]:
    return call(server.address, "GET", MONITORING).body.decode().splitlines()


@pytest.fixture(scope="module")
def logs(models: LiveModels, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    """What was logged of six calls to each of three models, and of those to the first the monitoring path's count."""
    folder = tmp_path_factory.mktemp("logged")
    path = models.onnx("half_plus_two")
    (folder / "models.config").write_text(
        "model_config_list {"
        + "".join(CONFIG.format(name=name, path=path, folder=folder, sampling=how) for name, how in SAMPLINGS.items())
        + "}"
    )
    words = ("--model_config_file", folder / "models.config", f"--monitoring_path={MONITORING}")
    with ServerProcess(*words) as server:
        server.ready()
        for name in SAMPLINGS:
            for value in range(CALLS):
                body = {"instances": [[float(value)]]}
                assert call(server.address, "POST", f"/v1/models/{name}:predict", body).status == 200
        counted = f':tensorflow:serving:request_log_count{{model_name="all",status_code="OK"}} {CALLS}'
        wait_until(lambda: counted in lines(server), "all of them were counted")
        assert not [line for line in lines(server) if "request_log_count" in line and '"none"' in line]
        assert server.stop() == 0
    found: dict[str, list[bytes]] = {}
    for name in SAMPLINGS:
        files = [file for file in (folder / "log").iterdir() if file.name.startswith(name)]
        found[name] = [record for file in files for record in read_records(file)]
    return found


@pytest.mark.rule("log-1", "metrics-11")
def test_a_share_of_the_requests_is_logged(logs: dict[str, list[bytes]]) -> None:
    assert {name: len(records) for name, records in logs.items()} == {"all": CALLS, "none": 0, "tasks": CALLS}


@pytest.mark.rule("log-2")
def test_the_log_is_one_of_prediction_logs(logs: dict[str, list[bytes]]) -> None:
    for value, record in enumerate(logs["all"]):
        message = protos.serving.PredictionLog.FromString(record)
        assert message.log_metadata.model_spec.name == "all"
        predict = message.predict_log
        assert list(predict.request.inputs["x"].float_val or _floats(predict.request.inputs["x"])) == [value]
        assert list(predict.response.outputs["y"].float_val or _floats(predict.response.outputs["y"])) == [
            value / 2 + 2
        ]


def _floats(tensor: Any) -> list[float]:
    return [float(each) for each in np.frombuffer(tensor.tensor_content, np.float32)]


@pytest.fixture(scope="module")
def warmed(
    logs: dict[str, list[bytes]], models: LiveModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, ServerProcess]]:
    """A server of models whose warm-up files are good, damaged, no messages, wrong, too many, or not there."""
    folder = tmp_path_factory.mktemp("warmed")
    good = b"".join(frame_record(record) for record in logs["all"])
    wrong = protos.serving.PredictionLog.FromString(logs["all"][0])
    wrong.predict_log.request.inputs["z"].CopyFrom(wrong.predict_log.request.inputs["x"])
    files = {
        "good": good,
        "damaged": good[:-1],
        "noise": frame_record(b"no message"),
        "wrong": frame_record(wrong.SerializeToString()),
        "many": frame_record(logs["all"][0]) * 1001,
        "without": None,
    }
    for name, content in files.items():
        shutil.copytree(models.onnx("half_plus_two"), folder / name)
        if content is not None:
            path = folder / name / "1" / WARMUP_FILE
            path.parent.mkdir()
            path.write_bytes(content)
    words = ("--num_request_iterations_for_warmup=3", "--max_num_load_retries=0", f"--monitoring_path={MONITORING}")
    with ServerProcess(*(folder / name for name in files), *words) as server:
        yield folder, server.ready()


@pytest.mark.rule("log-4", "warmup-1", "warmup-2", "metrics-7")
def test_a_log_warms_up_what_it_was_made_of(warmed: tuple[Path, ServerProcess]) -> None:
    folder, server = warmed
    assert f"good/1 answered the {CALLS} requests of its {WARMUP_FILE.name}" in server.stderr
    labels = f'{{model_path="{folder}/good/1",status="OK"}}'
    assert f":tensorflow:serving:model_warmup_records_read{labels} {CALLS}" in lines(server)
    assert f":tensorflow:serving:model_warmup_latency_count{labels} 1" in lines(server)
    reply = call(server.address, "POST", "/v1/models/good:predict", {"instances": [[2.0]]})
    assert reply.json == {"predictions": [[3.0]]}


@pytest.mark.rule("warmup-3", "warmup-4")
@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("damaged", "DATA_LOSS", "Please verify your warmup data is in TFRecord format."),
        ("noise", "INVALID_ARGUMENT", "Failed to parse warmup record"),
        ("wrong", "INVALID_ARGUMENT", "(record 1 of "),
        ("many", "INVALID_ARGUMENT", "Number of warmup records exceeds the maximum (1000)"),
    ],
)
def test_a_file_that_is_wrong_fails_the_load(
    warmed: tuple[Path, ServerProcess], name: str, code: str, words: str
) -> None:
    (status,) = call(warmed[1].address, "GET", f"/v1/models/{name}").json["model_version_status"]
    assert status["state"] == "END"
    assert words in status["status"]["error_message"]
    assert status["status"]["error_code"] == code
    assert call(warmed[1].address, "POST", f"/v1/models/{name}:predict", {"instances": [[2.0]]}).status == 404


@pytest.mark.rule("warmup-5")
def test_a_version_without_a_file_is_warm_too(warmed: tuple[Path, ServerProcess]) -> None:
    """Its rows are merged from the first request on, which only a warm-up on rows of every size can have proved."""
    address = warmed[1].address
    assert call(address, "POST", "/v1/models/without:predict", {"instances": [[2.0]]}).status == 200
    assert "without/1 warmed up" in warmed[1].stderr or "serving_default(x: float32[?,1]) -> y" in warmed[1].stdout
    (shown,) = [line for line in warmed[1].stdout.split("  without/1")[1].splitlines() if "serving_default" in line][:1]
    assert "(batched)" in shown


@pytest.mark.rule("warmup-2")
def test_without_warm_up_no_file_is_looked_at(warmed: tuple[Path, ServerProcess]) -> None:
    words = ("--enable_model_warmup=false", "--max_num_load_retries=0")
    with ServerProcess(warmed[0] / "damaged", warmed[0] / "wrong", *words) as server:
        server.ready()
        for name in ("damaged", "wrong"):
            (status,) = call(server.address, "GET", f"/v1/models/{name}").json["model_version_status"]
            assert status["state"] == "AVAILABLE"

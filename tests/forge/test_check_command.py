"""``servable check`` on artifacts and a server, and the same as tests of pytest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.e2e.server_process import ServerProcess

from servable.cli import main
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.forge.check.findings import SUITES
from servable.protos import serving
from servable.protos.tfrecord import frame_record
from servable.wire import tfserving_grpc as codec
from servable.zoo import catalog

SHAPE_BREAKER = """
import os
from servable import Tensor

class Breaker:
    def predict(self, x: Tensor["float32", "n", 1]) -> Tensor["float32", "n", 1]:
        if len(x) and not x.any():
            os.abort()
        return 2 * x
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="example models are built by onnx")
    return catalog.build("half_plus_two", tmp_path_factory.mktemp("models")).parent


def checked(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    code = main(["check", *map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def results(document: dict[str, Any]) -> dict[str, str]:
    return {one["check"]: one["result"] for one in document["findings"]}


def test_an_artifact_passes(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = checked(capsys, model)
    assert code == 0
    assert document["ok"]
    assert document["engine"] == "onnxruntime at f32"
    assert {one["suite"] for one in document["findings"]} == set(SUITES)
    found = results(document)
    assert found["loaded from a copy"] == found["elsewhere"] == found["x: rows too long"] == "pass"
    assert not document["counts"]["fail"]


def test_a_process_that_ends_costs_one_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1/model.py").write_text(SHAPE_BREAKER)
    code, document = checked(capsys, tmp_path, "--suite", "corrupted")
    assert code == 1
    failed = [one for one in document["findings"] if one["result"] == "fail"]
    assert [one["check"] for one in failed] == ["x: zeros"]
    assert "ended by SIGABRT" in failed[0]["detail"]


def test_a_profile_that_was_learnt_tells_other_data_apart(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = np.random.default_rng(1).normal
    for name, mean in (("learnt", 0.0), ("alike", 0.0), ("others", 2.0)):
        np.savez(tmp_path / f"{name}.npz", x=draw(mean, 1, (600, 1)).astype(np.float32))
    profile = tmp_path / "profile.json"
    assert main(["check", str(model), "--learn", str(profile), "--data", str(tmp_path / "learnt.npz")]) == 0
    assert "2 tensors learnt" in capsys.readouterr().out
    judged = ["--suite", "ranges", "--profile", profile, "--data"]
    assert checked(capsys, model, *judged, tmp_path / "alike.npz")[0] == 0
    code, document = checked(capsys, model, *judged, tmp_path / "others.npz")
    assert code == 1
    assert results(document) == {"input x": "fail", "output y": "fail"}
    code, document = checked(capsys, model, "--suite", "ranges", "--profile", profile)
    assert code == 1
    assert "made-up inputs are others; give --data" in document["findings"][0]["detail"]


def log_of(path: Path, offset: float) -> Path:
    """Write a request log: half of x, and two, and what is put on top."""
    records = []
    for x in np.arange(5, dtype=np.float32).reshape(5, 1, 1):
        log = serving.PredictionLog()
        ref = ModelRef("half_plus_two")
        log.predict_log.request.ParseFromString(codec.encode_predict_request(InferRequest(ref, {"x": x}, "")))
        answer = InferResponse(ref, "serving_default", {"y": x / 2 + 2 + np.float32(offset)})
        log.predict_log.response.ParseFromString(codec.encode_predict_response(answer))
        records.append(frame_record(log.SerializeToString()))
    path.write_bytes(b"".join(records))
    return path


def test_logged_answers_are_compared(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (model, "--suite", "inference", "--data")
    code, document = checked(capsys, *words, log_of(tmp_path / "right.tfrecord", 0.0))
    (logged,) = (one for one in document["findings"] if one["check"] == "logged answers")
    assert (code, logged["result"]) == (0, "pass")
    assert logged["detail"] == "5 requests are answered as they were when they were logged"
    code, document = checked(capsys, *words, log_of(tmp_path / "wrong.tfrecord", 0.5))
    (logged,) = (one for one in document["findings"] if one["check"] == "logged answers")
    assert (code, logged["result"]) == (1, "fail")
    assert "5 of 5 are answered otherwise than logged: " in logged["detail"]
    assert "differs by up to 0.5" in logged["detail"]


def test_a_served_model_is_checked_as_far_as_its_clients_can(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ServerProcess(model) as server:
        address = server.ready().address
        for scheme in ("grpc", "http"):
            code, document = checked(capsys, f"{scheme}://{address}/half_plus_two")
            assert code == 0, document
            found = results(document)
            assert found["the same batch, 20 times"] == found["elsewhere"] == "pass"
            assert found["loaded again"] == "n/a"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--suite", "speed"], "no suite is called 'speed'"),
        (["--runs", "0"], "--runs 0 is too few"),
        (["--signature", "other"], "there is no signature 'other'; there are serving_default"),
        (["--profile", "nowhere.json"], "there is no nowhere.json"),
        (["--data", "nowhere.npz"], "there is no nowhere.npz"),
        (["--range", "x=2"], "--range 'x=2' is no range"),
    ],
)
def test_what_is_asked_for_wrongly(
    model: Path, words: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(model), *words]) == 1
    said = capsys.readouterr().err
    assert part in said
    assert "Traceback" not in said


def pytest_of(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "servable.cli.pytest_plugin",
        "-p",
        "no:cacheprovider",
        "-W",
        "error",
    ]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [*command, *map(str, words)], cwd=folder, capture_output=True, text=True, check=False, env=environment
    )


def test_the_plugin_runs_the_same_checks(model: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.json"
    known.write_text(json.dumps([{"name": "seven", "inputs": {"x": [[2]]}, "expected": {"y": [[7]]}}]))
    (tmp_path / "test_own.py").write_text("def test_own():\n    pass\n")
    options = ["--servable-model", model, "--servable-known", known, "--servable-nan", "reject", "-rA"]
    found = pytest_of(tmp_path, *options, "--servable-suite", "inference,corrupted,ranges,known-fail")
    assert found.returncode == 1, found.stdout + found.stderr
    assert "the policy asked for is reject" in found.stdout
    assert "test_own.py::test_own" in found.stdout
    # One of its own, three of the model's sizes, ten ways to break it; NaN and both infinities are not refused.
    assert "3 failed, 14 passed, 1 skipped, 1 xfailed" in found.stdout
    chosen = pytest_of(tmp_path, *options[:2], "-m", "servable", "-k", "zeros")
    assert chosen.returncode == 0
    assert "1 passed" in chosen.stdout


def test_the_plugin_without_its_option_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(
        "import sys\n\ndef test_own():\n"
        "    found = {name for name in sys.modules if name.startswith('servable')}\n"
        "    assert found == {'servable', 'servable.cli', 'servable.cli.pytest_plugin'}\n"
        "    assert 'numpy' not in sys.modules\n"
    )
    found = pytest_of(tmp_path)
    assert found.returncode == 0, found.stdout


def test_the_plugin_says_what_is_wrong_with_its_options(tmp_path: Path) -> None:
    found = pytest_of(tmp_path, "--servable-model", "nowhere")
    assert found.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--servable-model nowhere: " in found.stderr
    assert "Traceback" not in found.stderr

"""A model tuned as a user would, and served by its plan; plans that do not hold; a tuning that is interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.e2e.server_process import ServerProcess, wait_until

from servable.client import Client
from servable.wire import overview
from servable.zoo import catalog

Serve = Callable[..., ServerProcess]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``half_plus_two`` and a cache with its plan."""
    folder = tmp_path_factory.mktemp("tuned")
    catalog.build("half_plus_two", folder)
    done = run(folder, "--budget", "2s", "--batch", "1,4", "--engines", "openvino,onnxruntime", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["plan"]["key"]["files"][0][0] == "model.onnx"
    (plan,) = (folder / "cache" / "servable" / "plans").iterdir()
    assert document["plan_file"] == str(plan)
    return folder


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "servable", "tune", str(folder / "half_plus_two"), *words]


def environment(folder: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(folder / "cache")}


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *words),
        capture_output=True,
        text=True,
        env={**os.environ, **environment(folder)},
        check=False,
    )


def prefer_openvino(plan: Path) -> None:
    """Make sure of what the plan says: which engine wins on a busy machine is chance."""
    document = json.loads(plan.read_text())
    document["ranges"] = document["ranges"][-1:]
    document["ranges"][0]["setting"] = {"engine": "openvino"}
    document["key"]["libraries"] = {}
    plan.write_text(json.dumps(document))


def status(server: ServerProcess) -> tuple[str, str]:
    with urllib.request.urlopen(f"{server.rest_url}{overview.PATH}") as reply:
        (found,) = overview.decode_overview(reply.read())["half_plus_two"]
    return found.status.engine, found.status.reason


def answers_rightly(server: ServerProcess) -> bool:
    with Client(server.grpc_url) as client:
        for rows in (1, 6):
            x = np.arange(rows, dtype=np.float32).reshape(rows, 1)
            if not np.allclose(client.predict("half_plus_two", x=x)["y"], x / 2 + 2):
                return False
    return True


def test_a_plan_is_followed_shown_and_right(tuned: Path, serve: Serve) -> None:
    (plan,) = (tuned / "cache" / "servable" / "plans").iterdir()
    prefer_openvino(plan)
    server = serve(tuned / "half_plus_two", environment=environment(tuned)).ready()
    engine, reason = status(server)
    assert engine == "openvino"
    assert reason.startswith("plan: ")
    assert reason in server.stdout
    assert answers_rightly(server)


def test_a_plan_in_a_file_is_followed_or_refused(tuned: Path, serve: Serve, tmp_path: Path) -> None:
    (plan,) = (tuned / "cache" / "servable" / "plans").iterdir()
    mine = Path(shutil.copy(plan, tmp_path / "plan.json"))
    prefer_openvino(mine)
    model = Path(shutil.copytree(tuned / "half_plus_two", tmp_path / "half_plus_two"))
    server = serve(model, f"--plan={mine}").ready()
    assert status(server)[0] == "openvino"
    file = model / "1" / "model.onnx"
    file.write_bytes(file.read_bytes().replace(np.float32(2.0).tobytes(), np.float32(3.0).tobytes()))
    stale = serve(model, f"--plan={mine}")
    assert stale.wait() == 1
    assert "it was tuned for other contents of the artifact" in stale.stdout + stale.stderr
    mine.write_text(plan.read_text()[:-40])
    corrupt = serve(model, f"--plan={mine}")
    assert corrupt.wait() == 1
    assert f"{mine} is no plan of servable tune" in corrupt.stderr
    assert "Traceback" not in corrupt.stderr
    both = serve(model, f"other={model}", f"--plan={plan}")
    assert both.wait() == 1
    assert "the plan of one model, and 2 are served" in both.stderr


def test_a_stale_plan_of_the_cache_costs_one_line(tuned: Path, serve: Serve, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tuned / "half_plus_two", tmp_path / "half_plus_two"))
    file = model / "1" / "model.onnx"
    file.write_bytes(file.read_bytes().replace(np.float32(2.0).tobytes(), np.float32(3.0).tobytes()))
    server = serve(model, environment=environment(tuned)).ready()
    engine, reason = status(server)
    assert engine == "onnxruntime"
    assert "its plan is not followed: it was tuned for other contents" in reason
    assert server.stderr.count("tune it again") == 1


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_tuning_leaves_nothing(tuned: Path, tmp_path: Path, how: signal.Signals) -> None:
    words = command(tuned, "--budget", "60s", "--plan", str(tmp_path / "plan.json"))
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment(tuned)}
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("openvino"):
                break
        wait_until(lambda: bool(psutil.Process(process.pid).children()), "a candidate runs")
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(how)
        said = process.stderr.read()
        assert process.wait(10) == (130 if how == signal.SIGINT else -how)
    assert "Traceback" not in said
    wait_until(lambda: not any(alive(child) for child in children), "the candidates' processes have ended")
    assert list(tmp_path.iterdir()) == []

"""The access log of real servers, called over both wires."""

from __future__ import annotations

import json
import signal
import socket
import struct
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess, wait_until

from servable import Client
from servable.core.errors import ServingError

Serve = Callable[..., ServerProcess]


def post(url: str, body: bytes) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_request_leaves_a_line(models: LiveModels, serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    server = serve(models.onnx("half_plus_two"), f"--access_log={path}", "--max_body=1").ready()
    predict = f"{server.rest_url}/v1/models/half_plus_two:predict"
    body = b'{"inputs": {"x": [[1.0]]}}'
    assert post(predict, body) == 200
    assert post(predict, b"{") == 400
    assert post(predict, b" " * (2 << 20)) == 413
    assert post(predict.replace("half_plus_two", "none"), body) == 404
    assert post(f"{server.rest_url}/nothing", b"") == 404
    with urllib.request.urlopen(f"{server.rest_url}/v1/models/half_plus_two") as reply:
        size = len(reply.read())
    with Client(server.grpc_url) as client:
        client.predict("half_plus_two", x=[[1.0]])
        with pytest.raises(ServingError):
            client.signatures("none")
        with pytest.raises(ServingError):
            client.predict("half_plus_two", "no_such_signature", x=[[1.0]])
    assert server.stop() == 0

    found = records(path)
    got = [(r["wire"], r["method"], r.get("model"), r.get("version"), r["status"], r.get("code")) for r in found]
    assert got == [
        ("rest", "POST", "half_plus_two", 1, 200, None),
        ("rest", "POST", "half_plus_two", None, 400, None),
        ("rest", "POST", "half_plus_two", None, 413, None),
        ("rest", "POST", "none", None, 404, None),
        ("rest", "POST", None, None, 404, None),
        ("rest", "GET", None, None, 200, None),
        *[row for row in got if row[0] == "grpc"],
    ]
    first, status = found[0], found[5]
    assert first["route"] == "/v1/models/half_plus_two:predict"
    assert (first["bytes_in"], status["bytes_out"]) == (len(body), size)
    assert first["peer"].startswith("127.0.0.1:")
    assert 0 <= first["queue_ms"] <= first["duration_ms"]
    assert 0 < first["compute_ms"] <= first["duration_ms"]
    assert "queue_ms" not in found[1]

    calls = [record for record in found if record["route"].endswith("/Predict")]
    assert [(r.get("model"), r.get("version"), r["code"]) for r in calls] == [
        ("half_plus_two", 1, "OK"),
        ("half_plus_two", None, "FAILED_PRECONDITION"),
    ]
    assert all(record["status"] == 200 for record in calls)
    assert calls[0]["route"] == "/tensorflow.serving.PredictionService/Predict"
    assert calls[0]["bytes_in"] > 0
    assert calls[0]["bytes_out"] > 0


def test_a_client_that_left_is_logged(models: LiveModels, serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    server = serve(models.made("slow"), f"--access_log={path}").ready()
    body = b'{"inputs": {"steps": 300}}'
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        head = b"POST /v1/models/slow:predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        client.sendall(head + body)
        metrics(server)  # answered after the request above was taken
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
    wait_until(lambda: any(record["status"] == 499 for record in records(path)), "the line is written")


def metrics(server: ServerProcess) -> bytes:
    with urllib.request.urlopen(f"{server.rest_url}/metrics", timeout=10) as reply:
        return bytes(reply.read())


def test_sighup_goes_on_in_a_new_file(models: LiveModels, serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    server = serve(models.onnx("half_plus_two"), f"--access_log={path}").ready()
    metrics(server)
    wait_until(lambda: path.read_bytes().count(b"\n") == 1, "the first line")
    path.rename(tmp_path / "access.log.1")
    server.process.send_signal(signal.SIGHUP)
    wait_until(path.exists, "the new file")
    metrics(server)
    assert server.stop() == 0
    assert len(records(path)) == len(records(tmp_path / "access.log.1")) == 1


def test_stderr_in_text(models: LiveModels, serve: Serve) -> None:
    server = serve(models.onnx("half_plus_two"), "--access_log=-", "--log_format=console").ready()
    metrics(server)
    wait_until(lambda: " rest GET /metrics status=200 in=0 out=" in server.stderr, "the line")


def test_a_path_that_cannot_be_written_ends_the_start(models: LiveModels, serve: Serve, tmp_path: Path) -> None:
    server = serve(models.onnx("half_plus_two"), f"--access_log={tmp_path}")
    assert server.wait() == 1
    assert f"cannot open the access log {tmp_path}: Is a directory" in server.stderr

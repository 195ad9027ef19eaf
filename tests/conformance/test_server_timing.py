"""``Server-Timing``: what a foreign client that asks is told, over every wire, and what nobody else gets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from typing import Any

import grpc
import pytest
from tests.e2e.server_process import ServerProcess

from servable import protos

pytestmark = pytest.mark.conformance

TIMING = re.compile(r"queue;dur=(\d+\.\d{3}), compute;dur=(\d+\.\d{3})")


def rest(server: ServerProcess, body: bytes = b'{"instances": [[1.0]]}', **headers: str) -> Any:
    path = f"{server.rest_url}/v1/models/half_plus_two:predict"
    request = urllib.request.Request(path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    with urllib.request.urlopen(request) as reply:
        reply.read()
        return reply.headers


def trailers(server: ServerProcess, *metadata: tuple[str, str]) -> dict[str, Any]:
    request = protos.serving.PredictRequest()
    request.model_spec.name = "half_plus_two"
    tensor = request.inputs["x"]
    tensor.dtype = protos.tensorflow.DataType.Value("DT_FLOAT")
    tensor.tensor_shape.dim.add(size=1)
    tensor.tensor_shape.dim.add(size=1)
    tensor.float_val.append(1.0)
    with grpc.insecure_channel(server.address) as channel:
        method: Any = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        _, call = method.with_call(request.SerializeToString(), metadata=metadata, timeout=10)
        return dict(call.trailing_metadata())


def test_who_asks_is_told_over_rest(server: ServerProcess) -> None:
    found = rest(server, servable_timing="1")
    match = TIMING.fullmatch(found["server-timing"])
    assert match is not None, found["server-timing"]
    assert float(match[2]) > 0
    for asked in ("0", "false", ""):
        assert "server-timing" not in rest(server, servable_timing=asked)
    assert "server-timing" not in rest(server)
    large = json.dumps({"instances": [[1.0]] * 3000}).encode()
    zipped = rest(server, large, servable_timing="1", accept_encoding="gzip")
    assert zipped["content-encoding"] == "gzip"
    assert TIMING.fullmatch(zipped["server-timing"])


def test_who_asks_is_told_over_grpc(server: ServerProcess) -> None:
    match = TIMING.fullmatch(trailers(server, ("servable-timing", "1"))["server-timing"])
    assert match is not None
    assert float(match[2]) > 0
    assert "server-timing" not in trailers(server, ("servable-timing", "0"))
    assert "server-timing" not in trailers(server)


def test_bench_asks_and_shows_it(server: ServerProcess) -> None:
    url = f"grpc://{server.address}/half_plus_two"
    command = [sys.executable, "-m", "servable", "bench", url, "--concurrency", "2", "--count", "50", "--warmup", "0"]

    def parts(*more: str) -> dict[str, Any]:
        done = subprocess.run([*command, "--json", *more], check=True, capture_output=True, text=True)
        (step,) = json.loads(done.stdout)["steps"]
        found: dict[str, Any] = step["split"]
        return found

    told = parts("--server-timing")
    assert told["compute"]["p50_ms"] > 0
    assert told["compute"]["p50_ms"] < told["wait"]["p99_ms"]
    assert parts()["compute"] is None

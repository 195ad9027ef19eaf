"""nghttp, h2load and wrk against our server: every request of a load is answered, and answered well."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conformance.tools import needs, run_tool
from tests.e2e.server_process import ServerProcess

from servable.protos import serving

pytestmark = pytest.mark.conformance

PREDICT = "/tensorflow.serving.PredictionService/Predict"
FLOAT = 1


def grpc_body(model: str, array: np.ndarray[Any, Any]) -> bytes:
    """Return a gRPC message with its prefix, as h2load sends it."""
    request = serving.PredictRequest()
    request.model_spec.name = model
    tensor = request.inputs["x"]
    tensor.dtype = FLOAT
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = array.astype(np.float32).tobytes()
    message = request.SerializeToString()
    return b"\0" + len(message).to_bytes(4, "big") + bytes(message)


@pytest.fixture
def grpc_file(tmp_path: Path) -> Path:
    path = tmp_path / "request.bin"
    path.write_bytes(grpc_body("half_plus_two", np.ones((1, 1))))
    return path


@pytest.fixture
def json_file(tmp_path: Path) -> Path:
    path = tmp_path / "request.json"
    path.write_text('{"instances": [[1.0]]}')
    return path


GRPC_FIELDS = ("-H", "content-type: application/grpc", "-H", "te: trailers")


# -- nghttp ------------------------------------------------------------------------------------------------------------


@needs("nghttp")
def test_nghttp_sees_a_grpc_reply_with_its_trailers(server: ServerProcess, grpc_file: Path) -> None:
    done = run_tool("nghttp", "-v", *GRPC_FIELDS, "-d", grpc_file, f"http://{server.address}{PREDICT}")
    log = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout.decode("latin-1"))
    received = [line for line in log.splitlines() if "recv (stream_id" in line]
    fields = [line.split(") ", 1)[1] for line in received]
    assert fields[0] == ":status: 200"
    assert "content-type: application/grpc" in fields
    assert fields[-1] == "grpc-status: 0"
    assert "recv DATA frame" in log
    assert "RST_STREAM" not in log
    assert "GOAWAY" not in log.split("send GOAWAY")[0]


@needs("nghttp")
def test_nghttp_posts_json_many_times_on_one_connection(server: ServerProcess, json_file: Path) -> None:
    url = f"{server.rest_url}/v1/models/half_plus_two:predict"
    done = run_tool("nghttp", "-m", 50, "-d", json_file, "-H", "content-type: application/json", url)
    assert done.returncode == 0
    assert done.stdout == b'{"predictions":[[2.5]]}' * 50


@needs("nghttp")
@pytest.mark.parametrize(("window", "columns"), [(1, 5), (8, 5000), (9, 40_000), (16, 40_000), (30, 40_000)])
def test_nghttp_with_windows_of_every_size(server: ServerProcess, tmp_path: Path, window: int, columns: int) -> None:
    """A window is of 2**n - 1 bytes; at n = 1 a reply comes byte by byte. Thousands of such crumbs are an attack."""
    values = [[float(number) for number in range(columns)]]
    path = tmp_path / "body.json"
    path.write_text(json.dumps({"inputs": {"x": values}}))
    url = f"{server.rest_url}/v1/models/echo:predict"
    done = run_tool("nghttp", "-w", window, "-W", max(window, 16), "-d", path, url)
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"outputs": values}


@needs("nghttp")
def test_nghttp_with_padding_continuation_and_upgrade(server: ServerProcess, json_file: Path) -> None:
    url = f"{server.rest_url}/v1/models/half_plus_two:predict"
    right = b'{"predictions":[[2.5]]}'
    assert run_tool("nghttp", "-b", 200, "-d", json_file, url).stdout == right
    # That option fills CONTINUATION frames with more fields than are taken; the answer says so.
    assert b"metadata size exceeds limit" in run_tool("nghttp", "--continuation", "-d", json_file, url).stdout
    assert run_tool("nghttp", "--header-table-size", 0, "-m", 5, "-d", json_file, url).stdout == right * 5
    trailer = run_tool("nghttp", "--trailer", "x-sum: 1", "-d", json_file, url)
    assert trailer.stdout == right


# -- h2load ------------------------------------------------------------------------------------------------------------


def h2load(server: ServerProcess, path: str, count: int, *arguments: object) -> str:
    """Return its report, after a look at its totals."""
    done = run_tool("h2load", "-n", count, *arguments, f"http://{server.address}{path}")
    report = done.stdout.decode()
    assert done.returncode == 0, report + done.stderr.decode()
    totals = (
        f"requests: {count} total, {count} started, {count} done, {count} succeeded, 0 failed, 0 errored, 0 timeout"
    )
    assert totals in report, report
    assert f"status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx" in report, report
    return report


@needs("h2load")
@pytest.mark.parametrize(("clients", "streams"), [(1, 1), (1, 100), (8, 1), (10, 50), (100, 3)])
def test_h2load_over_grpc(server: ServerProcess, grpc_file: Path, clients: int, streams: int) -> None:
    before = answered(server, "grpc")
    h2load(server, PREDICT, 3000, "-c", clients, "-m", streams, *GRPC_FIELDS, "-d", grpc_file)
    # h2load looks at the status of HTTP only, which is 200 for failed calls as well.
    assert answered(server, "grpc") - before == 3000


@needs("h2load")
@pytest.mark.parametrize(("clients", "streams"), [(1, 1), (4, 32), (50, 4)])
def test_h2load_over_rest_in_http2(server: ServerProcess, json_file: Path, clients: int, streams: int) -> None:
    before = answered(server, "rest")
    h2load(server, "/v1/models/half_plus_two:predict", 2000, "-c", clients, "-m", streams, "-d", json_file)
    assert answered(server, "rest") - before == 2000


@needs("h2load")
@pytest.mark.parametrize(("clients", "pipelined"), [(1, 1), (16, 1), (8, 8), (100, 1)])
def test_h2load_over_rest_in_http1(server: ServerProcess, json_file: Path, clients: int, pipelined: int) -> None:
    before = answered(server, "rest")
    path = "/v1/models/half_plus_two:predict"
    h2load(server, path, 2000, "--h1", "-c", clients, "-m", pipelined, "-d", json_file)
    assert answered(server, "rest") - before == 2000


@needs("h2load")
def test_h2load_with_replies_that_do_not_fit_a_window(server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(grpc_body("echo", np.ones((2, 60_000))))
    report = h2load(server, PREDICT, 60, "-c", 3, "-m", 10, "-w", 16, "-W", 20, *GRPC_FIELDS, "-d", path)
    data = re.search(r"traffic: .* \((\d+)\) data", report)
    assert data is not None
    assert int(data[1]) > 60 * 2 * 60_000 * 4


# -- wrk ---------------------------------------------------------------------------------------------------------------

WRK_SCRIPT = """
wrk.method = "POST"
wrk.body = '{"instances": [[1.0]]}'
wrk.headers["Content-Type"] = "application/json"
local threads = {}
wrong = 0
setup = function(thread) table.insert(threads, thread) end
response = function(status, headers, body)
   if body ~= '{"predictions":[[2.5]]}' then wrong = wrong + 1 end
end
done = function(summary, latency, requests)
   local errors, wrong = summary.errors, 0
   for _, thread in ipairs(threads) do wrong = wrong + thread:get("wrong") end
   io.write(string.format("verdict %d %d %d %d %d %d %d\\n", summary.requests, wrong,
      errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
"""


@needs("wrk")
def test_wrk_over_rest(server: ServerProcess, tmp_path: Path) -> None:
    script = tmp_path / "post.lua"
    script.write_text(WRK_SCRIPT)
    url = f"{server.rest_url}/v1/models/half_plus_two:predict"
    done = run_tool("wrk", "-t", 1, "-c", 32, "-d", "2s", "-s", script, url)
    report = done.stdout.decode()
    assert done.returncode == 0, report
    assert "Non-2xx" not in report
    verdict = re.search(r"verdict (\d+) (.*)", report)
    assert verdict is not None, report
    assert int(verdict[1]) > 100
    assert verdict[2] == "0 0 0 0 0 0"


def answered(server: ServerProcess, wire: str) -> int:
    """Return how many calls of half_plus_two the server says it has answered well."""
    with urllib.request.urlopen(f"{server.rest_url}/metrics") as page:
        text = page.read().decode()
    series = rf'servable_requests_total{{[^}}]*code="OK",model="half_plus_two",[^}}]*wire="{wire}"}}'
    found = re.search(rf"^{series} (\S+)$", text, re.MULTILINE)
    return int(float(found[1])) if found else 0

"""Python models that call others and answer in parts, on a live server, as a user would have it."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import textwrap
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.e2e.server_process import ServerProcess, wait_until

import servable

EXAMPLES = Path(__file__).parents[2] / "examples"
STREAMED = "/tensorflow.serving.PredictionService/PredictStreamed"

COUNT = """
    import asyncio
    from collections.abc import AsyncIterator
    from servable import Code, ServingError, Tensor

    class Count:
        uses = ["double"]

        async def predict(self, n: Tensor["int64", ()]) -> AsyncIterator[Tensor["int64", "k"]]:
            made = 0
            try:
                while made != n:
                    made += 1
                    if made == 6:
                        raise ServingError(Code.OUT_OF_RANGE, "six is too many")
                    yield (await self.models["double"](x=[made]))["output"]
            finally:
                print("closed", flush=True)
"""
ENDLESS = """
    from collections.abc import Iterator
    from servable import Tensor

    class Endless:
        def predict(self, size: Tensor["int64", ()]) -> Iterator[Tensor["uint8", "k"]]:
            made = 0
            try:
                while True:
                    made += 1
                    yield bytes_of(int(size))
            finally:
                print("closed after", made, flush=True)

    def bytes_of(size):
        import numpy as np
        return np.zeros(size, np.uint8)
"""
DOUBLE = """
    from servable import Tensor

    class Double:
        def predict(self, x: Tensor["int64", "n"]) -> Tensor["int64", "n"]:
            return 2 * x
"""


def write(folder: Path, name: str, code: str) -> Path:
    version = folder / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(textwrap.dedent(code))
    return version.parent


def predict(server: ServerProcess, model: str, instances: Any, action: str = "predict") -> tuple[int, str]:
    body = json.dumps({"inputs": instances}).encode()
    request = urllib.request.Request(f"{server.rest_url}/v1/models/{model}:{action}", body)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_example_asks_two_models_and_gives_their_mean(serve: Callable[..., ServerProcess]) -> None:
    server = serve(
        EXAMPLES / "ensemble" / "opinion", EXAMPLES / "ensemble" / "lexicon", EXAMPLES / "python_model" / "reviews"
    ).ready()
    assert "opinion version 1: START (it waits for model" in server.stderr
    texts = ["a warm and clever film", "what a bore", "a film"]
    with servable.Client(server.grpc_url) as client:
        answer = client.predict("opinion", text=np.array([text.encode() for text in texts], object))
        asked = [client.predict(name, text=np.array([text.encode() for text in texts], object)) for name in
                 ("reviews", "lexicon")]  # fmt: skip
    mean = (asked[0]["probabilities"] + asked[1]["output"]) / 2
    assert np.allclose(answer["probabilities"], mean)
    assert answer["label"].tolist()[:2] == [b"good", b"bad"]
    assert answer["agreed"].tolist()[:2] == [True, True]


def test_parts_come_over_both_wires_and_whole_if_asked_for_so(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = serve(write(tmp_path, "count", COUNT), write(tmp_path, "double", DOUBLE)).ready()
    assert "parts of output" in server.stdout
    assert predict(server, "count", 3) == (200, '{"outputs":[2,4,6]}')
    lines = '{"outputs":[2]}\n{"outputs":[4]}\n'
    assert predict(server, "count", 2, "predictStreamed") == (200, lines)
    five = "".join(f'{{"outputs":[{2 * made}]}}\n' for made in range(1, 6))
    assert predict(server, "count", 7, "predictStreamed") == (200, f'{five}{{"error":"six is too many"}}\n')
    assert predict(server, "count", 7) == (400, '{\n    "error": "six is too many"\n}')
    status, body = predict(server, "count", [1], "predictStreamed")
    assert (status, "expected int64[]" in body) == (400, True)
    assert predict(server, "double", [4], "predictStreamed") == (200, '{"outputs":[8]}\n')
    curl = ["curl", "-sN", f"{server.rest_url}/v1/models/count:predictStreamed", "-d", '{"inputs": 2}']
    if shutil.which("curl"):
        assert subprocess.run(curl, check=True, capture_output=True, text=True, timeout=10).stdout == lines
    over_grpc(server)


def over_grpc(server: ServerProcess) -> None:
    from servable.core.messages import InferRequest, ModelRef
    from servable.wire import tfserving_grpc as wire

    def request(model: str, number: int) -> bytes:
        return wire.encode_predict_request(InferRequest(ModelRef(model), {"n": np.array(number, np.int64)}))

    with grpc.insecure_channel(server.grpc_url.removeprefix("grpc://")) as channel:
        call = channel.unary_stream(STREAMED)

        def parts(model: str, number: int) -> list[list[int]]:
            replies = call(request(model, number), timeout=10)
            return [wire.decode_predict_response(reply).outputs["output"].tolist() for reply in replies]

        assert parts("count", 3) == [[2], [4], [6]]
        assert parts("count", 0) == []
        for model, number, status in (
            ("count", 9, grpc.StatusCode.OUT_OF_RANGE),
            ("nobody", 1, grpc.StatusCode.NOT_FOUND),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                parts(model, number)
            assert caught.value.code() is status
        endless = call(request("count", -1))
        assert wire.decode_predict_response(next(endless)).outputs["output"].tolist() == [2]
        endless.cancel()


def test_a_client_that_does_not_read_stops_the_generator_and_one_that_leaves_ends_it(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = serve(write(tmp_path, "endless", ENDLESS), "--rest_api_timeout_in_ms=60000").ready()
    idle = http.client.HTTPConnection(server.rest_url.removeprefix("http://"), timeout=10)
    idle.request("POST", "/v1/models/endless:predictStreamed", json.dumps({"inputs": 100_000}))
    unread = idle.getresponse()
    assert unread.readline().startswith(b'{"outputs":[0,0')
    # Meanwhile others have their turn between two parts.
    other = http.client.HTTPConnection(server.rest_url.removeprefix("http://"), timeout=10)
    other.request("POST", "/v1/models/endless:predictStreamed", json.dumps({"inputs": 1}))
    answer = other.getresponse()
    assert [answer.readline() for _ in range(5)] == [b'{"outputs":[0]}\n'] * 5
    answer.close()
    other.close()
    wait_until(lambda: server.stderr.count("closed after") == 2, "that of the warm-up and of who left have ended")
    unread.close()
    idle.close()
    wait_until(lambda: server.stderr.count("closed after") == 3, "the generator of the idle client has ended")
    made = [int(found) for found in re.findall(r"closed after (\d+)", server.stderr)]
    assert made[-1] < 100, "parts of 200 kB: what fits into the buffers of both systems, and no more"


def test_what_a_model_uses_is_unknown_or_killed(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    count = write(tmp_path, "count", COUNT)
    alone = serve(count)
    assert alone.wait() == 1
    assert "count/1  waiting: it uses model double, which this server is not told to serve" in alone.stdout
    double = write(tmp_path, "double", DOUBLE)
    server = serve(count, double).ready()
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    (victim,) = [pid for pid in children if b"double/1" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(victim, signal.SIGKILL)
    status, body = predict(server, "count", 1)
    assert status == 200 or (status == 503 and "process of model double/1" in body)
    wait_until(lambda: predict(server, "count", 1)[0] == 200, "the model that it uses is back")

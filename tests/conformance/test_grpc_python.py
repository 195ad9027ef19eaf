"""grpcio, the reference implementation of gRPC, against our server: what a channel does beside simple calls."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived, StreamEnded, TrailersReceived
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess, wait_until

from servable.protos import serving

pytestmark = pytest.mark.conformance

PREDICT = "/tensorflow.serving.PredictionService/Predict"
FLOAT, INT64 = 1, 9
UNBOUNDED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

Predict = Callable[..., Any]


def predict_on(channel: grpc.Channel, method: str = PREDICT) -> Predict:
    multicallable: Predict = channel.unary_unary(
        method,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=serving.PredictResponse.FromString,
    )
    return multicallable


@contextmanager
def channel_to(server: ServerProcess, **options: Any) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address, options=UNBOUNDED, **options) as channel:
        yield channel


@pytest.fixture
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with channel_to(server) as opened:
        yield opened


@pytest.fixture
def predict(channel: grpc.Channel) -> Predict:
    return predict_on(channel)


def half_plus_two(*values: float) -> Any:
    request = serving.PredictRequest()
    request.model_spec.name = "half_plus_two"
    tensor = request.inputs["x"]
    tensor.dtype = FLOAT
    tensor.tensor_shape.dim.add(size=len(values))
    tensor.tensor_shape.dim.add(size=1)
    tensor.float_val[:] = values
    return request


def slow(steps: int) -> Any:
    request = serving.PredictRequest()
    request.model_spec.name = "slow"
    request.inputs["steps"].dtype = INT64
    request.inputs["steps"].tensor_shape.SetInParent()
    request.inputs["steps"].int64_val[:] = [steps]
    return request


def echo(array: np.ndarray[Any, Any]) -> Any:
    request = serving.PredictRequest()
    request.model_spec.name = "echo"
    tensor = request.inputs["x"]
    tensor.dtype = FLOAT
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = array.tobytes()
    return request


def answer(reply: Any) -> list[float]:
    return list(reply.outputs["y"].float_val)


def wait_for_idle(server: ServerProcess) -> None:
    """The model ``slow`` has one engine: a call that was given up is computed to its end. Wait for that."""
    with channel_to(server) as channel:
        predict_on(channel)(slow(0), timeout=20)


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("megabytes", [5, 40])
def test_large_messages_both_ways(predict: Predict, megabytes: int) -> None:
    array = np.random.default_rng(1).standard_normal((megabytes, 1024 * 256), np.float32)
    reply = predict(echo(array), timeout=15)
    assert np.array_equal(np.array(reply.outputs["y"].float_val, np.float32), array.ravel())


def test_a_client_with_its_default_limit_says_so_itself(server: ServerProcess) -> None:
    array = np.zeros((5, 1024 * 256), np.float32)
    with grpc.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.RpcError) as raised:
            predict_on(channel)(echo(array), timeout=15)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert answer(predict_on(channel)(half_plus_two(1.0), timeout=5)) == [2.5]


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.rule("service-8")
def test_compressed_requests(server: ServerProcess, compression: grpc.Compression) -> None:
    zeros = np.zeros((1, 300_000), np.float32)
    with channel_to(server, compression=compression) as channel:
        predict = predict_on(channel)
        assert answer(predict(half_plus_two(1.0, 2.0), timeout=5)) == [2.5, 3.0]
        reply = predict(echo(zeros), timeout=10)
    assert len(reply.outputs["y"].float_val) == zeros.size


def test_one_compressed_call_on_a_plain_channel(predict: Predict) -> None:
    for compression in (grpc.Compression.Gzip, None, grpc.Compression.Deflate, grpc.Compression.NoCompression):
        assert answer(predict(half_plus_two(*[3.0] * 50), timeout=5, compression=compression)) == [3.5] * 50


def test_metadata_of_all_kinds_passes(predict: Predict) -> None:
    metadata = (
        ("x-request-id", "abc"),
        ("x-request-id", "def"),
        ("trace-bin", bytes(range(256))),
        ("empty-bin", b""),
        ("authorization", "Bearer " + "t" * 4000),
    )
    for _ in range(3):
        reply, call = predict.with_call(half_plus_two(1.0), timeout=5, metadata=metadata)  # type: ignore[attr-defined]
        assert answer(reply) == [2.5]
        assert call.code() is grpc.StatusCode.OK


def test_metadata_above_the_limit_fails_alone(predict: Predict) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        predict(half_plus_two(1.0), timeout=5, metadata=[(f"x-{i}", "v" * 1000) for i in range(30)])
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "metadata size exceeds limit" in raised.value.details()
    assert answer(predict(half_plus_two(1.0), timeout=5)) == [2.5]


# -- many calls --------------------------------------------------------------------------------------------------------


def test_a_thousand_calls_in_flight_on_one_connection(predict: Predict) -> None:
    futures = [predict.future(half_plus_two(float(i)), timeout=15) for i in range(1000)]  # type: ignore[attr-defined]
    assert [answer(future.result()) for future in futures] == [[i / 2 + 2] for i in range(1000)]


def test_threads_share_a_channel_and_sizes_differ(predict: Predict) -> None:
    def call(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        array = rng.standard_normal((1, int(rng.integers(1, 60_000))), np.float32)
        reply = predict(echo(array), timeout=15)
        return np.array_equal(np.array(reply.outputs["y"].float_val, np.float32), array.ravel())

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(call, range(96)))


def test_wait_for_ready_and_channel_readiness(server: ServerProcess) -> None:
    with channel_to(server) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        assert answer(predict_on(channel)(half_plus_two(2.0), timeout=5, wait_for_ready=True)) == [3.0]


# -- time --------------------------------------------------------------------------------------------------------------


def test_the_deadline_of_a_client_holds(server: ServerProcess, predict: Predict) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        predict(slow(500), timeout=0.1)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert answer(predict(half_plus_two(1.0), timeout=5)) == [2.5]
    wait_for_idle(server)


@pytest.mark.parametrize("allowed", ["0n", "50m"])
@pytest.mark.rule("deadline-1")
def test_the_server_ends_a_call_whose_time_is_over(server: ServerProcess, allowed: str) -> None:
    """grpcio ends calls by its own clock. A client that only sends the header waits, and hears what the server says."""
    client = H2Connection(H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    fields = {":method": "POST", ":scheme": "http", ":path": PREDICT, ":authority": server.address}
    fields |= {"content-type": "application/grpc", "te": "trailers", "grpc-timeout": allowed}
    message = slow(400).SerializeToString()
    client.send_headers(1, list(fields.items()))
    client.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
    found: dict[str, str] = {}
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        ended = False
        while not ended:
            connection.sendall(client.data_to_send())
            for event in client.receive_data(connection.recv(65536)):
                if isinstance(event, ResponseReceived | TrailersReceived):
                    found |= dict(event.headers or [])
                ended = ended or isinstance(event, StreamEnded)
    assert (found["grpc-status"], found["grpc-message"]) == ("4", "Deadline exceeded")
    wait_for_idle(server)


def test_cancelled_calls_leave_the_channel_usable(server: ServerProcess, predict: Predict) -> None:
    before = computed(server)
    futures = [predict.future(slow(100), timeout=20) for _ in range(50)]  # type: ignore[attr-defined]
    # This answer says that the server has read the others: they came before it on the same connection.
    assert answer(predict(half_plus_two(1.0), timeout=5)) == [2.5]
    for future in futures:
        future.cancel()
    for future in futures:
        assert future.code() is grpc.StatusCode.CANCELLED
    assert answer(predict(half_plus_two(1.0), timeout=5)) == [2.5]
    wait_for_idle(server)
    assert computed(server) - before < 25, "calls that were cancelled in the queue were computed all the same"


def computed(server: ServerProcess) -> float:
    """Return how many batches of the model ``slow`` the engine has computed."""
    with urllib.request.urlopen(f"{server.rest_url}/metrics") as page:
        found = re.search(r'servable_batch_rows_count\{model="slow",[^}]*version="1"\} (\S+)', page.read().decode())
    return float(found[1]) if found else 0.0


# -- methods -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        "/tensorflow.serving.PredictionService/Nonesuch",
        "/tensorflow.serving.SessionService/SessionRun",
        "/nonesuch.Service/Method",
        "/x",
    ],
)
@pytest.mark.rule("service-3")
def test_methods_that_are_not_served(channel: grpc.Channel, predict: Predict, method: str) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        predict_on(channel, method)(half_plus_two(1.0), timeout=5)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert method in raised.value.details()
    assert answer(predict(half_plus_two(1.0), timeout=5)) == [2.5]


def test_bytes_that_are_no_message(channel: grpc.Channel, predict: Predict) -> None:
    raw: Predict = channel.unary_unary(PREDICT)
    whole = half_plus_two(1.0).SerializeToString()
    for broken in (whole[:-3], b"\xff" * 20, b"garbage"):
        with pytest.raises(grpc.RpcError) as raised:
            raw(broken, timeout=5)
        assert raised.value.code() is grpc.StatusCode.INTERNAL
        assert "PredictRequest" in raised.value.details()
        assert answer(predict(half_plus_two(1.0), timeout=5)) == [2.5]
    with pytest.raises(grpc.RpcError) as raised:
        raw(b"", timeout=5)
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")


def test_two_messages_where_one_is_taken(channel: grpc.Channel) -> None:
    stream = channel.stream_unary(PREDICT)
    message = half_plus_two(1.0).SerializeToString()
    with pytest.raises(grpc.RpcError) as raised:
        stream(iter([message, message]), timeout=5)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert len(stream(iter([message]), timeout=5)) > 0


# -- the end of a server -----------------------------------------------------------------------------------------------


def test_a_drain_answers_every_call_that_was_accepted(serve: Callable[..., ServerProcess], models: LiveModels) -> None:
    server = serve(models.made("slow"), models.onnx("half_plus_two")).ready()
    with channel_to(server) as channel:
        predict = predict_on(channel)
        assert answer(predict(half_plus_two(1.0), timeout=5)) == [2.5]
        futures = [predict.future(slow(80), timeout=20) for _ in range(10)]  # type: ignore[attr-defined]
        # The first answer says that the others have arrived as well: they came before it on the same connection.
        assert futures[0].result().outputs["done"].int64_val == [80]
        server.terminate()
        assert [future.result().outputs["done"].int64_val[0] for future in futures] == [80] * 10
        assert server.wait() == 0
        with pytest.raises(grpc.RpcError) as raised:
            predict(half_plus_two(1.0), timeout=5)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_channel_outlives_its_server(serve: Callable[..., ServerProcess], models: LiveModels, tmp_path: Path) -> None:
    place = f"unix:{tmp_path}/socket"
    first = serve(models.onnx("half_plus_two"), "--listen", place).ready()
    with grpc.insecure_channel(
        place, options=[("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
    ) as channel:
        predict = predict_on(channel)
        assert answer(predict(half_plus_two(1.0), timeout=5)) == [2.5]
        assert first.stop() == 0
        serve(models.onnx("half_plus_two"), "--listen", place).ready()
        assert answer(predict(half_plus_two(1.0), timeout=15, wait_for_ready=True)) == [2.5]


def test_calls_that_come_during_a_drain_are_told_to_go_elsewhere(
    serve: Callable[..., ServerProcess], models: LiveModels
) -> None:
    server = serve(models.made("slow"), models.onnx("half_plus_two")).ready()
    with channel_to(server) as channel:
        predict = predict_on(channel)
        accepted = predict.future(slow(600), timeout=20)  # type: ignore[attr-defined]
        assert answer(predict(half_plus_two(1.0), timeout=5)) == [2.5]
        server.terminate()
        refused: list[grpc.StatusCode] = []

        def comes_too_late() -> bool:
            try:
                assert answer(predict(half_plus_two(1.0), timeout=5)) == [2.5]
            except grpc.RpcError as error:
                refused.append(error.code())
            return bool(refused)

        wait_until(comes_too_late, "the server takes no more calls")
        assert refused == [grpc.StatusCode.UNAVAILABLE]
        assert accepted.result().outputs["done"].int64_val == [600]
        assert server.wait() == 0


def test_an_asyncio_client_in_a_process_of_its_own(server: ServerProcess) -> None:
    program = f"""
import asyncio
import grpc
from servable.protos import serving

async def main():
    async with grpc.aio.insecure_channel({server.address!r}) as channel:
        call = channel.unary_unary({PREDICT!r}, response_deserializer=serving.PredictResponse.FromString)
        request = serving.PredictRequest.FromString({half_plus_two(1.0).SerializeToString()!r}).SerializeToString()
        replies = await asyncio.gather(*[call(request, timeout=10) for _ in range(200)])
        assert all(reply.outputs["y"].float_val == [2.5] for reply in replies)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr

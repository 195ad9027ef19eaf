"""What is wrong with a request is told to who sent it: what it was, and what would be right. Nobody else pays."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess

from servable import AsyncClient, Client
from servable.core.errors import Code, ServingError
from servable.core.tensors import Array
from servable.zoo import catalog

Start = Callable[..., ServerProcess]
GOOD = np.array([[1.0], [3.0]], np.float32)


@pytest.fixture(autouse=True)
def _a_good_request_is_answered_after_it(server: ServerProcess) -> Iterator[None]:
    yield
    for url in (server.grpc_url, server.rest_url):
        with Client(url, timeout_s=10) as client:
            assert client.predict("half_plus_two", x=GOOD).y.tolist() == [[2.5], [3.5]]


def rest(server: ServerProcess, path: str, body: object = None) -> tuple[int, Any]:
    """Return status and JSON of a reply, whatever the status."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(f"{server.rest_url}{path}", data, timeout=15) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


# -- what both wires can say -------------------------------------------------------------------------------------------

X = {"x": GOOD}
WRONG: dict[str, tuple[dict[str, Any], Code, Code, tuple[str, ...]]] = {
    "model": (
        {"model": "nonesuch", "inputs": X},
        Code.NOT_FOUND,
        Code.NOT_FOUND,
        ("Servable not found for request: Latest(nonesuch)",),
    ),
    "version": (
        {"version": 7, "inputs": X},
        Code.NOT_FOUND,
        Code.NOT_FOUND,
        ("Servable not found for request: Specific(half_plus_two, 7)",),
    ),
    "label": (
        {"label": "stable", "inputs": X},
        Code.INVALID_ARGUMENT,
        Code.INVALID_ARGUMENT,
        ("Unrecognized servable version label: stable",),
    ),
    "signature": (
        {"signature": "nonesuch", "inputs": X},
        Code.FAILED_PRECONDITION,
        Code.INVALID_ARGUMENT,
        ("nonesuch", "not found"),
    ),
    "input": ({"inputs": {"z": GOOD}}, Code.INVALID_ARGUMENT, Code.INVALID_ARGUMENT, ("x",)),
    "rank": (
        {"inputs": {"x": np.ones(2, np.float32)}},
        Code.INVALID_ARGUMENT,
        Code.INVALID_ARGUMENT,
        ("Invalid rank for input: x Got: 1 Expected: 2", "x: float32[?,1]"),
    ),
    "shape": (
        {"inputs": {"x": np.ones((2, 3), np.float32)}},
        Code.INVALID_ARGUMENT,
        Code.INVALID_ARGUMENT,
        ("index: 1 Got: 3 Expected: 1", "x: float32[?,1]"),
    ),
    "output": (
        {"inputs": X, "outputs": ["nonesuch"]},
        Code.INVALID_ARGUMENT,
        Code.INVALID_ARGUMENT,
        ("output tensor alias not found in signature: nonesuch Outputs expected to be in the set {y}.",),
    ),
}


@pytest.mark.parametrize("wire", ["grpc", "rest"])
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_part_of_a_request(server: ServerProcess, wrong: str, wire: str) -> None:
    arguments, over_grpc, over_rest, texts = WRONG[wrong]
    arguments = dict(arguments)
    with Client(server.grpc_url if wire == "grpc" else server.rest_url) as client:
        with pytest.raises(ServingError) as raised:
            client.predict(arguments.pop("model", "half_plus_two"), **arguments)
        for text in texts:
            assert text in raised.value.message
        assert raised.value.code is (over_grpc if wire == "grpc" else over_rest)
        assert client.predict("half_plus_two", x=GOOD).y.tolist() == [[2.5], [3.5]]


def test_wrong_type(server: ServerProcess) -> None:
    with Client(server.grpc_url) as client, pytest.raises(ServingError) as raised:
        client.predict("half_plus_two", x=GOOD.astype(np.float64))
    assert raised.value.message == "Expects arg[0] to be float but double is provided"
    status, reply = rest(server, "/v1/models/half_plus_two:predict", {"instances": [["one"]]})
    assert status == 400
    assert "is not of expected type: float" in reply["error"]


def test_a_token_outside_of_the_vocabulary(server: ServerProcess) -> None:
    tokens = np.full((1, 50), 10**6, np.int32)
    for url in (server.grpc_url, server.rest_url):
        with Client(url) as client, pytest.raises(ServingError) as raised:
            client.predict("text_cnn_small", tokens=tokens)
        assert raised.value.code is Code.INVALID_ARGUMENT
        assert "1000000" in raised.value.message


@pytest.mark.rule("better-6", "batch-11")
def test_a_bad_row_costs_its_neighbours_nothing(server: ServerProcess) -> None:
    """Requests that came together are computed together; the bad ones are found and fail alone."""
    good = catalog.sample_inputs("text_cnn_small", 1, seed=1)["tokens"]
    right = catalog.reference("text_cnn_small", {"tokens": good})["probs"]

    async def main() -> list[Any]:
        async with AsyncClient(server.grpc_url) as client:
            calls = [
                client.predict("text_cnn_small", tokens=np.full_like(good, 10**6) if i % 10 == 3 else good)
                for i in range(100)
            ]
            return await asyncio.gather(*calls, return_exceptions=True)

    for i, outcome in enumerate(asyncio.run(main())):
        if i % 10 == 3:
            assert isinstance(outcome, ServingError)
            assert outcome.code is Code.INVALID_ARGUMENT
        else:
            np.testing.assert_allclose(outcome["probs"], right, rtol=1e-4, atol=1e-5)


# -- shapes that are not declared, but possible ------------------------------------------------------------------------


@pytest.mark.tensorflow
@pytest.mark.parametrize("shape", [(1,), (), (2,), (1, 2), (0, 1), (2, 3, 4)])
@pytest.mark.rule("signature-4")
def test_tensorflow_takes_shapes_that_its_operations_take(
    tensorflow_server: ServerProcess, shape: tuple[int, ...]
) -> None:
    """The signature declares [-1, 1]; TensorFlow Serving does not enforce that, and nor do we."""
    x: Array = np.full(shape, 4.0, np.float32)
    for url in (tensorflow_server.grpc_url, tensorflow_server.rest_url):
        with Client(url) as client:
            y = client.predict("half_plus_two", x=x).y
            assert y.tolist() == np.full(shape, 4.0, np.float32).tolist()


@pytest.mark.tensorflow
@pytest.mark.rule("predict-8")
def test_tensorflow_says_which_operation_refused(tensorflow_server: ServerProcess) -> None:
    for url in (tensorflow_server.grpc_url, tensorflow_server.rest_url):
        with Client(url) as client, pytest.raises(ServingError) as raised:
            client.predict("text_cnn_small", tokens=np.ones((1, 2), np.int32))
        assert raised.value.code is Code.INVALID_ARGUMENT
        assert "{{node" in raised.value.message


@pytest.mark.tensorflow
def test_a_model_without_a_default_signature(tensorflow_server: ServerProcess) -> None:
    x = np.array([[1.0]], np.float32)
    for url, code in ((tensorflow_server.grpc_url, Code.FAILED_PRECONDITION), (tensorflow_server.rest_url, None)):
        with Client(url) as client:
            with pytest.raises(ServingError, match=r"serving_default.* not found") as raised:
                client.predict("many", x=x)
            assert raised.value.code is (code or Code.INVALID_ARGUMENT)
            assert client.predict("many", "half_plus_two", x=x).y.tolist() == [[2.5]]
            mixed = client.predict(
                "many",
                "mixed",
                z=np.ones((1, 3), np.float32),
                a=np.array(4, np.int32),
                m=np.array([b"two", b"\xff\x00"], object),
            )
            assert mixed.next.tolist() == 5
            assert mixed.shout.tolist() == [b"two!", b"\xff\x00!"]
            assert {"half_plus_two", "mixed", "types"} <= client.signatures("many").keys()


# -- bytes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b'{"instances": [[1.0]', "JSON Parse error: "),
        (b"\xff\xfe\x00", "JSON Parse error: "),
        (b"[" * 100_000, "JSON Parse error: "),
        (b'{"instances": [[1.0, ]]}', "JSON Parse error: "),
        (b'{"instances": [[1.0], [2.0, 3.0]]}', "Expecting tensor size: 1 but got: 2"),
        (b'{"instances": [[[1.0]]]}', "Got: 3 Expected: 2"),
        (b'{"instances": [[null]]}', "Type: Null is not of expected type: float"),
        (b'{"instances": [["\\ud800"]]}', "JSON Parse error: The surrogate pair in string is invalid."),
        (b'{"inputs": {"x": {"b64": "AAAA"}}}', "is not of expected type: float"),
    ],
    ids=range(10),
)
def test_body_that_is_no_request(server: ServerProcess, body: bytes, text: str) -> None:
    status, reply = rest(server, "/v1/models/half_plus_two:predict", body)
    assert status == 400
    assert text in reply["error"]


@pytest.mark.rule("json-3")
def test_a_deep_body_does_not_crash(server: ServerProcess) -> None:
    body = b'{"instances": ' + b"[" * 200_000 + b"1.0" + b"]" * 200_000 + b"}"
    status, reply = rest(server, "/v1/models/half_plus_two:predict", body)
    assert status == 400
    assert reply["error"]


def test_a_body_above_the_limit(serve: Start, models: LiveModels) -> None:
    server = serve(models.made("echo"), "--max_body", "1").ready()
    large, small = np.zeros((1, 300_000), np.float32), np.ones((1, 3), np.float32)
    with Client(server.grpc_url) as client:
        with pytest.raises(ServingError) as raised:
            client.predict("echo", x=large)
        assert raised.value.code is Code.RESOURCE_EXHAUSTED
        assert "larger than max (1048571)" in raised.value.message
        assert client.predict("echo", x=small).y.tolist() == [[1.0, 1.0, 1.0]]
    status, reply = rest(server, "/v1/models/echo:predict", {"inputs": large.tolist()})
    assert (status, reply) == (413, {"error": "the request body exceeds 1048576 bytes"})
    assert rest(server, "/v1/models/echo:predict", {"inputs": [[1.0]]}) == (200, {"outputs": [[1.0]]})


def talk(server: ServerProcess, sent: bytes) -> bytes:
    """Send bytes to the port and return all that comes back, until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), 15) as connection:
        connection.sendall(sent)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GOAWAY = 7


def test_garbage_on_the_port(server: ServerProcess) -> None:
    for garbage in (b"\x00" * 100, b"hello there\r\n\r\n", b"\xde\xad\xbe\xef" * 50, b"GET\r\n\r\n"):
        reply = talk(server, garbage)
        assert reply.startswith(b"HTTP/1.1 400 ")
        assert b"connection: close" in reply.lower()


def test_broken_http2_on_the_port(server: ServerProcess) -> None:
    reply = talk(server, PREFACE + b"\xff" * 200)
    assert reply[3] == 4, "the server's SETTINGS come first"
    frames = []
    while reply:
        length = int.from_bytes(reply[:3], "big")
        frames.append((reply[3], reply[9 : 9 + length]))
        reply = reply[9 + length :]
    assert frames[-1][0] == GOAWAY
    assert int.from_bytes(frames[-1][1][4:8], "big") != 0


def test_a_tls_hello_on_a_plain_port(server: ServerProcess) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", server.port), 10) as plain,
        pytest.raises((ssl.SSLError, ConnectionResetError, EOFError)),
    ):
        context.wrap_socket(plain)


def test_a_client_that_says_half_and_goes(server: ServerProcess) -> None:
    for piece in (
        b"POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
        b"POST /v1/mod",
        PREFACE[:10],
        PREFACE + b"\x00\x00",
    ):
        with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
            connection.sendall(piece)

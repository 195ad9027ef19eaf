"""The ends of processes: a server's, orderly or not, and a child's in which a model lives."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess, wait_until

from servable import AsyncClient, Client
from servable.core.errors import Code, ServingError

Start = Callable[..., ServerProcess]
X = np.array([[1.0]], np.float32)


# -- drain -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.rule("better-3")
def test_accepted_requests_are_answered_over_both_wires(serve: Start, models: LiveModels, number: int) -> None:
    server = serve(models.made("slow")).ready()

    async def main() -> None:
        async with AsyncClient(server.grpc_url) as grpc, AsyncClient(server.rest_url) as rest:
            # Connected, and the signature known, before it counts.
            await asyncio.gather(*(client.predict("slow", steps=0) for client in (grpc, rest)))
            calls = [
                asyncio.ensure_future(client.predict("slow", steps=60)) for _ in range(5) for client in (grpc, rest)
            ]
            # The last of the queue has been accepted when the first is answered: all were sent before.
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            os.kill(server.process.pid, number)
            answers = await asyncio.gather(*calls)
            assert [int(answer.done) for answer in answers] == [60] * 10

    asyncio.run(main())
    assert server.wait() == 0
    assert "stopping" in server.stderr
    assert server.stderr.count("END") == 1


def test_a_request_whose_body_is_on_its_way_is_answered(serve: Start, models: LiveModels) -> None:
    server = serve(models.onnx("half_plus_two")).ready()
    body = b'{"instances": [[1.0]]}'
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        head = f"POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[:10])
        # Another connection shows that the first bytes have been read: the loop takes turns.
        with Client(server.grpc_url) as client:
            client.predict("half_plus_two", x=X)
        server.terminate()
        wait_until(lambda: "stopping" in server.stderr, "the server drains")
        connection.sendall(body[10:])
        reply = http.client.HTTPResponse(connection)
        reply.begin()
        assert reply.status == 200
        assert json.load(reply) == {"predictions": [[2.5]]}
        assert reply.getheader("connection") == "close"
    assert server.wait() == 0


def test_the_drain_has_an_end(serve: Start, models: LiveModels) -> None:
    """What computes longer than the drain lasts is given up; the process ends well all the same."""
    server = serve(models.made("slow"), "--drain_timeout_s", "0.2").ready()
    outcome: list[ServingError] = []

    def call() -> None:
        with Client(server.grpc_url) as client, pytest.raises(ServingError) as raised:
            client.predict("slow", steps=4000)
        outcome.append(raised.value)

    def busy() -> bool:
        """Return whether the one engine of the model is: then even a short call does not come back at once."""
        with Client(server.grpc_url, timeout_s=0.05) as hasty:
            try:
                hasty.predict("slow", steps=np.int64(0))
            except ServingError:
                return True
        return False

    calling = threading.Thread(target=call)
    calling.start()
    wait_until(busy, "the long call has begun")
    server.terminate()
    assert server.wait() == 0
    calling.join(15)
    assert [error.code for error in outcome] == [Code.UNAVAILABLE]
    assert "stopped with versions still in memory" in server.stderr


def test_a_signal_while_models_load(serve: Start, models: LiveModels) -> None:
    server = serve(*(f"m{i}={models.onnx('text_cnn_small')}" for i in range(8)))
    wait_until(lambda: "LOADING" in server.stderr, "a load has begun")
    assert server.stop() == 0


# -- children ----------------------------------------------------------------------------------------------------------


def one_child(server: ServerProcess) -> psutil.Process:
    (child,) = server.children()
    return child


@pytest.mark.tensorflow
def test_the_ends_of_a_child(serve: Start, models: LiveModels) -> None:
    """Killed, it fails the calls it had and comes back; its neighbour notices nothing. It never outlives its server."""
    server = serve(models.saved_model("lstm_tokens"), f"near={models.onnx('half_plus_two')}").ready()
    stop = threading.Event()
    neighbour: list[Any] = []

    def call_neighbour() -> None:
        with Client(server.rest_url) as client:
            while not stop.wait(0.01):  # at full speed it would take a CPU from the process that it waits for
                neighbour.append(client.predict("near", x=X).y.tolist())

    def answers() -> bool:
        try:
            with Client(server.grpc_url) as client:
                client.predict("lstm_tokens", tokens=np.ones((1, 50), np.int32))
        except ServingError as error:
            if error.code is Code.UNAVAILABLE:
                return False
            raise
        return True

    async def call_and_kill(child: psutil.Process) -> list[Any]:
        async with AsyncClient(server.grpc_url) as client:
            tokens = np.ones((400, 50), np.int32)
            calls = [asyncio.ensure_future(client.predict("lstm_tokens", tokens=tokens)) for _ in range(6)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            child.kill()
            return await asyncio.gather(*calls, return_exceptions=True)

    first = one_child(server)
    calling = threading.Thread(target=call_neighbour)
    calling.start()
    try:
        failed = [one for one in asyncio.run(call_and_kill(first)) if isinstance(one, BaseException)]
        assert failed, "a call was under way"
        for error in failed:
            assert isinstance(error, ServingError)
            assert error.code is Code.UNAVAILABLE
            assert "the process of model lstm_tokens/1" in error.message
        before = len(neighbour)
        wait_until(answers, "the child is back", timeout_s=60)
        assert len(neighbour) > before
    finally:
        stop.set()
        calling.join(15)
    assert all(answer == [[2.5]] for answer in neighbour)
    with Client(server.grpc_url) as client:
        assert [status.state.name for status in client.status("lstm_tokens")] == ["AVAILABLE"]
    assert "is back" in server.stderr
    second = one_child(server)
    assert second.pid != first.pid
    server.process.kill()
    server.wait()
    wait_until(lambda: not second.is_running() or second.status() == psutil.STATUS_ZOMBIE, "the child has ended")

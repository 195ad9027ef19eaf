"""Both roles over real sockets, on both event loops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from tests.transport.http2.application import FakeApplication, pattern
from tests.transport.http2.harness import REPLY

from servable.transport.address import Address
from servable.transport.errors import Failure, TransportError
from servable.transport.exchange import Peer, RequestHead
from servable.transport.http2.client import ClientConnection
from servable.transport.http2.connection import ServerConnection
from servable.transport.limits import MIB, Limits

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
on_both_loops = pytest.mark.parametrize("loop_name", LOOPS)


def run(loop_name: str, main: Callable[[], object]) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        runner.run(main())  # type: ignore[arg-type]


async def serve(application: FakeApplication, path: Path) -> tuple[asyncio.Server, list[ServerConnection], Address]:
    loop = asyncio.get_running_loop()
    connections: list[ServerConnection] = []

    def accept() -> ServerConnection:
        connection = ServerConnection(application, Limits(), Peer("socket", local=True), loop)
        connections.append(connection)
        return connection

    return await loop.create_unix_server(accept, path), connections, Address(path=str(path))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


@on_both_loops
def test_calls_cancellation_and_drain(loop_name: str, tmp_path: Path) -> None:
    async def main() -> None:
        application = FakeApplication()
        server, connections, address = await serve(application, tmp_path / "h2.sock")
        closed: list[ClientConnection] = []
        client = await ClientConnection.connect(address, on_close=closed.append)
        echo = RequestHead(b"POST", b"/echo", authority=b"a")
        replies = await asyncio.gather(*(client.fetch(echo, pattern(size)) for size in (0, 1, 70_000, 5 * MIB)))
        assert [len(reply.body) for reply in replies] == [0, 1, 70_000, 5 * MIB]
        assert replies[3].body == pattern(5 * MIB)

        hold = RequestHead(b"POST", b"/hold", authority=b"a")
        with pytest.raises(TransportError) as late:
            await client.fetch(hold, b"x", timeout_s=0.05)
        assert late.value.failure is Failure.TIMEOUT
        waiting = asyncio.ensure_future(client.fetch(hold, b"x"))
        await until(lambda: len(application.held) == 2)
        waiting.cancel()
        await until(lambda: len(application.cancelled) == 2)

        last = asyncio.ensure_future(client.fetch(hold, b"x"))
        await until(lambda: len(application.held) == 3)
        connections[0].drain()
        await until(lambda: not client.ready)
        for exchange in application.held:
            exchange.respond(*REPLY)
        assert (await last).status == 200
        await until(lambda: closed)
        assert connections[0].active == 0
        server.close()

    run(loop_name, main)


@on_both_loops
def test_a_server_that_dies(loop_name: str, tmp_path: Path) -> None:
    async def main() -> None:
        application = FakeApplication()
        server, connections, address = await serve(application, tmp_path / "h2.sock")
        client = await ClientConnection.connect(address)
        lost = asyncio.ensure_future(client.fetch(RequestHead(b"POST", b"/hold", authority=b"a"), b"x"))
        await until(lambda: application.held)
        connections[0].abort()
        with pytest.raises(TransportError) as error:
            await lost
        assert error.value.failure is Failure.LOST
        server.close()

    run(loop_name, main)


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(TransportError) as error:
            asyncio.run(ClientConnection.connect(Address(port=taken.getsockname()[1])))
    assert error.value.retry_safe

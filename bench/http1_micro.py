"""Microseconds of CPU a request costs in the HTTP/1.1 layer: a connection in memory, no sockets, a constant reply.

    python bench/http1_micro.py [--requests N]

``same head`` is a client that repeats its head (curl, wrk, a keep-alive session); ``new head`` one whose head differs
every time (a trace id), so that each is parsed; ``chunked`` sends its body in two chunks; ``client`` is the other role.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

from servable.transport.exchange import Exchange, Peer, ReplyHead, RequestHead, Route
from servable.transport.http1 import Http1ClientConnection, Http1Connection
from servable.transport.limits import Limits

BODY = b'{"instances": [[' + b", ".join(b"%d.0" % (i % 10) for i in range(56)) + b"]]}"
FIELDS = b"Host: localhost:8501\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nContent-Type: application/json\r\n"
LINE = b"POST /v1/models/half_plus_two:predict HTTP/1.1\r\n"
SAME = LINE + FIELDS + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = (
    LINE
    + FIELDS
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + b"%x\r\n%b\r\n2\r\n]}\r\n0\r\n\r\n"
    % (
        len(BODY) - 2,
        BODY[:-2],
    )
)
REPLY = ReplyHead(200, ((b"content-type", b"application/json"),))


class Sink:
    """A transport that forgets what is written."""

    def abort(self) -> None:
        """Nothing to drop."""

    def write(self, data: bytes) -> None:
        """Forget it."""

    def is_closing(self) -> bool:
        """Never."""
        return False

    def get_write_buffer_size(self) -> int:
        """Everything was sent."""
        return 0


class Constant(Route):
    """Answers everything alike."""

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Answer."""
        exchange.respond(REPLY, b'{"predictions": [2.5, 3.0, 4.5]}')


class Application:
    """Routes everything to one place."""

    def __init__(self) -> None:
        self._route = Constant()

    def route(self, head: RequestHead) -> Route:  # the contract of Application
        """Choose it."""
        return self._route


def measure_server(loop: asyncio.AbstractEventLoop, reads: list[bytes], pipelined: int = 1) -> float:
    """Return microseconds of CPU a request."""
    connection = Http1Connection(Application(), Limits(), Peer("bench", local=True), loop)
    connection.connection_made(cast("asyncio.Transport", Sink()))
    receive = connection.data_received
    start = time.process_time()
    for data in reads:
        receive(data)
    spent = time.process_time() - start
    connection.connection_lost(None)
    return spent / len(reads) / pipelined * 1e6


def measure_client(loop: asyncio.AbstractEventLoop, requests: int) -> float:
    """Return microseconds of CPU a request and its reply cost the client."""
    connection = Http1ClientConnection(loop)
    connection.connection_made(cast("asyncio.Transport", Sink()))
    head = RequestHead(b"POST", b"/v1/models/m:predict", ((b"content-type", b"application/json"),), authority=b"a:1")
    reply = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 33\r\n\r\n" + b"x" * 33
    done: list[Any] = []
    start = time.process_time()
    for _ in range(requests):
        connection.request(head, BODY, done.append)
        connection.data_received(reply)
    spent = time.process_time() - start
    connection.connection_lost(None)
    assert len(done) == requests
    return spent / requests * 1e6


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    count = parser.parse_args().requests
    loop = asyncio.new_event_loop()
    new = [SAME.replace(b"bench/1.0", b"bench/%d" % i) for i in range(count)]
    rows: dict[str, Callable[[], float]] = {
        "same head": lambda: measure_server(loop, [SAME] * count),
        "same head, 16 pipelined": lambda: measure_server(loop, [SAME * 16] * (count // 16), 16),
        "new head": lambda: measure_server(loop, new),
        "chunked": lambda: measure_server(loop, [CHUNKED] * count),
        "client": lambda: measure_client(loop, count),
    }
    print(f"HTTP/1.1 in memory, body {len(BODY)} bytes, median of 5")
    for name, run in rows.items():
        print(f"  {name:<26}{sorted(run() for _ in range(5))[2]:6.2f} us a request")
    loop.close()


if __name__ == "__main__":
    main()

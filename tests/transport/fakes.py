"""A loop whose time stands still until told, a transport that keeps what is written, and an application."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import re
from typing import Any, cast

from servable.transport.exchange import Exchange, Peer, ReplyHead, RequestHead, Route
from servable.transport.http1 import Http1Connection
from servable.transport.http1.reception import Reception
from servable.transport.ledger import Ledger
from servable.transport.limits import Limits

PEER = Peer("test:1", local=True)
OK = ReplyHead(200, ((b"content-type", b"text/plain"),))
NOT_FOUND = ReplyHead(404)
LIMITS = Limits(max_body=100_000)


class FakeHandle:
    def __init__(self, callback: Any, args: tuple[Any, ...]) -> None:
        self.callback, self.args, self.cancelled = callback, args, False

    def cancel(self) -> None:
        self.cancelled = True

    def run(self) -> None:
        if not self.cancelled:
            self.callback(*self.args)


class FakeLoop:
    """Runs what is ready when asked, and what is timed when its time is reached by ``advance``."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ready: list[FakeHandle] = []
        self.timers: list[tuple[float, int, FakeHandle]] = []
        self.timers_made = 0
        self._order = itertools.count()

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Any, *args: Any) -> FakeHandle:
        handle = FakeHandle(callback, args)
        self.ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any) -> FakeHandle:
        self.timers_made += 1
        handle = FakeHandle(callback, args)
        heapq.heappush(self.timers, (self.now + delay, next(self._order), handle))
        return handle

    def live_timers(self) -> int:
        return sum(not handle.cancelled for _, _, handle in self.timers)

    def turn(self) -> None:
        ready, self.ready = self.ready, []
        for handle in ready:
            handle.run()

    def settle(self) -> None:
        while self.ready:
            self.turn()

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        self.settle()
        while self.timers and self.timers[0][0] <= end:
            when, _, handle = heapq.heappop(self.timers)
            self.now = max(self.now, when)
            handle.run()
            self.settle()
        self.now = end


class FakeTransport:
    """Keeps what is written. While ``stalled`` the bytes stay in its buffer, as with a client that does not read."""

    def __init__(self, loop: FakeLoop, protocol: Any) -> None:
        self.loop = loop
        self.protocol = protocol
        self.sent = bytearray()
        self.writes = 0
        self.buffered = 0
        self.high = 256 * 1024
        self.stalled = False
        self.paused_writing = False
        self.reading = True
        self.closing = False
        self.aborted = False
        self.eof_written = False
        self.lost = False

    def write(self, data: Any) -> None:
        assert not self.eof_written, "wrote after write_eof"
        if self.closing:
            return
        self.writes += 1
        self.sent += data
        if self.stalled:
            self.buffered += memoryview(data).nbytes
            if self.buffered > self.high and not self.paused_writing:
                self.paused_writing = True
                self.protocol.pause_writing()

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def release(self) -> None:
        self.stalled, self.buffered = False, 0
        if self.paused_writing:
            self.paused_writing = False
            self.protocol.resume_writing()
        if self.closing:
            self._lose()

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        self.high = high

    def pause_reading(self) -> None:
        assert self.reading, "paused twice"
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading, "resumed twice"
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof_written = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            if not self.buffered:
                self.loop.call_soon(self._lose)

    def abort(self) -> None:
        self.aborted = True
        self.closing = True
        self.buffered = 0
        self.loop.call_soon(self._lose)

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            self.protocol.connection_lost(None)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Echo(Route):
    """Says what it got."""

    def __init__(self, application: FakeApplication, *, max_body: int | None = None, wants_body: bool = True) -> None:
        self.application = application
        self.max_body = max_body
        self.wants_body = wants_body

    def handle(self, exchange: Exchange, body: bytes) -> None:
        self.application.handled.append((exchange.head.method, exchange.head.target, body))
        exchange.respond(OK, b"%b %b %d" % (exchange.head.method, exchange.head.target, len(body)) + body[:64])


class Missing(Route):
    wants_body = False

    def handle(self, exchange: Exchange, body: bytes) -> None:
        exchange.respond(NOT_FOUND, b"nothing here")


class Later(Route):
    """Leaves the answer to the test."""

    def __init__(self, application: FakeApplication, *, wants_body: bool = True) -> None:
        self.application = application
        self.wants_body = wants_body

    def handle(self, exchange: Exchange, body: bytes) -> None:
        self.application.handled.append((exchange.head.method, exchange.head.target, body))
        self.application.waiting.append(exchange)


class Broken(Route):
    def handle(self, exchange: Exchange, body: bytes) -> None:
        raise KeyError("a defect of the application")


class Status(Route):
    def __init__(self, status: int, body: bytes) -> None:
        self.reply, self.body = ReplyHead(status), body

    def handle(self, exchange: Exchange, body: bytes) -> None:
        exchange.respond(self.reply, self.body)


class FakeApplication:
    """Routes by the first segment of the path."""

    def __init__(self) -> None:
        self.handled: list[tuple[bytes, bytes, bytes]] = []
        self.waiting: list[Exchange] = []
        self.heads: list[RequestHead] = []
        self.routes: dict[bytes, Route] = {
            b"/echo": Echo(self),
            b"/small": Echo(self, max_body=10),
            b"/medium": Echo(self, max_body=70_000),
            b"/headonly": Echo(self, wants_body=False),
            b"/later": Later(self),
            b"/laterheadonly": Later(self, wants_body=False),
            b"/broken": Broken(),
            b"/204": Status(204, b""),
            b"/304": Status(304, b"not to be sent"),
            b"/big": Status(200, b"x" * 1_000_000),
        }
        self.missing: Route = Missing()

    def route(self, head: RequestHead) -> Route:
        self.heads.append(head)
        if head.target == b"/unroutable":
            raise ValueError("a defect of the application")
        match = re.match(rb"/[a-z0-9]*", head.target)
        return self.routes.get(match[0], self.missing) if match else self.missing


class Served:
    """A server connection on a fake transport."""

    def __init__(self, limits: Limits = LIMITS, application: FakeApplication | None = None, peer: Peer = PEER) -> None:
        self.loop = FakeLoop()
        self.application = application or FakeApplication()
        self.closed = 0
        self.events: list[str] = []
        self.stalls: list[tuple[str, float]] = []
        self.ledger = Ledger(
            self.events.append, limits.process_body_budget, lambda what, seconds: self.stalls.append((what, seconds))
        )
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        reception = Reception(self.application, limits, b"https" if peer.tls else b"http", self.ledger)
        self.connection = Http1Connection(
            self.application, limits, peer, loop, self._on_close, reception=reception, clock=self.loop.time
        )
        self.transport = FakeTransport(self.loop, self.connection)
        self.connection.connection_made(cast("asyncio.Transport", self.transport))

    def _on_close(self, connection: Http1Connection) -> None:
        assert connection is self.connection
        self.closed += 1

    def feed(self, *pieces: bytes) -> bytes:
        """Deliver pieces as the loop would, and return what was sent since the last call."""
        for piece in pieces:
            if self.transport.closing:
                break
            assert self.transport.reading, "the transport delivered while reading was paused"
            self.connection.data_received(piece)
            self.loop.settle()
        return self.take()

    def eof(self) -> None:
        if not self.transport.closing and not self.connection.eof_received():
            self.transport.close()
        self.loop.settle()

    def take(self) -> bytes:
        sent, self.transport.sent = bytes(self.transport.sent), bytearray()
        return sent

    @property
    def ending(self) -> bool:
        """The server has said its last word."""
        return self.transport.closing or self.transport.eof_written


_DATE = re.compile(rb"date: [^\r]+\r\n")


def undated(sent: bytes) -> bytes:
    return _DATE.sub(b"", sent)


def statuses(sent: bytes) -> list[int]:
    """The statuses of replies without bodies that look like replies."""
    return [int(match) for match in re.findall(rb"HTTP/1\.1 (\d{3}) ", sent)]

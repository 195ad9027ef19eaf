"""A client connection, and everything that came back to its callbacks."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from tests.transport.http2.application import EMPTY_MESSAGE
from tests.transport.http2.doubles import FakeLoop, FakeTransport
from tests.transport.http2.harness import (
    PREFACE,
    SETTINGS_ACK,
    Frame,
    parse,
    settings,
)

from servable.transport.errors import TransportError
from servable.transport.exchange import RequestHead
from servable.transport.http2.client import ClientConnection
from servable.transport.limits import Limits
from servable.transport.reply import Reply

HEAD = RequestHead(b"POST", b"/t.S/M", ((b"content-type", b"application/grpc"),), authority=b"a")


class Caller:
    """A client connection and everything that came back to its callbacks."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.loop = FakeLoop()
        self.closed: list[ClientConnection] = []
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        self.connection = ClientConnection(loop, limits, self.closed.append, clock=self.loop.clock)
        self.transport = FakeTransport(self.loop, self.connection)
        self.connection.connection_made(cast("asyncio.Transport", self.transport))
        self.outcomes: list[Reply | TransportError] = []
        self.greeted = False

    def start(self, *entries: tuple[int, int]) -> None:
        self.feed(settings(*entries) + SETTINGS_ACK)

    def feed(self, data: bytes) -> list[Frame]:
        self.connection.data_received(data)
        return self.sent()

    def sent(self) -> list[Frame]:
        self.loop.turn()
        out = self.transport.take()
        if not self.greeted and out:
            assert out.startswith(PREFACE)
            self.greeted = True
            out = out[len(PREFACE) :]
        return parse(out)

    def call(self, body: bytes = EMPTY_MESSAGE, head: RequestHead = HEAD, timeout_s: float | None = None) -> Any:
        return self.connection.request(head, body, self.outcomes.append, timeout_s)

    def failure(self) -> TransportError:
        (outcome,) = self.outcomes
        assert isinstance(outcome, TransportError)
        return outcome

    def reply(self) -> Reply:
        (outcome,) = self.outcomes
        assert isinstance(outcome, Reply)
        return outcome

    def assert_clean(self) -> None:
        connection = self.connection
        assert connection.streams == {}
        assert connection.receiver.buffered == 0
        assert connection.sender.queued == 0
        assert not connection.sender.ready
        assert not connection.sender.parked
        assert self.loop.armed <= 1

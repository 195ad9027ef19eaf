"""The health service behind an HTTP/2 connection, with a clock of the test's."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from typing import cast

import pytest
from tests.transport.http2.harness import DATA, EH, ES, HEADERS, Session, block, d, h, rst

from servable.listeners.access import WatchedRoute
from servable.listeners.grpc_health import HealthService
from servable.observe.access_log import Access
from servable.transport.exchange import RequestHead, Route
from servable.wire import grpc as wire
from servable.wire.grpc_health import CHECK, LIST, WATCH

SERVING, NOT_SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"
NAME = "some.Service"
FIELDS = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))


class Application:
    def __init__(self) -> None:
        self.serving = False
        self.log: list[Access] | None = None
        self.service: HealthService

    def route(self, head: RequestHead) -> Route:
        route = self.service.routes()[head.target](wire.parse_call(head.fields))
        return route if self.log is None else WatchedRoute(route, head, self.log.append)


class Client:
    """Calls of the service, and what came back."""

    def __init__(self) -> None:
        self.application = Application()
        self.session = Session(application=self.application)
        self.service = self.application.service = HealthService(
            lambda: self.application.serving,
            [NAME],
            cast("AbstractEventLoop", self.session.loop),
        )
        self.session.start()
        self._next = 1

    def call(self, method: bytes, service: str = "") -> int:
        """Begin a call; return its stream."""
        stream = self._next
        self._next += 2
        name = service.encode()
        message = b"\x0a%c%b" % (len(name), name) if name else b""
        self.session.feed(h(stream, EH, block(method, *FIELDS)) + d(stream, wire.wrap_message(message), ES))
        return stream

    def messages(self, stream: int) -> list[bytes]:
        self.session.loop.turn()
        self.session.collect()
        return [f.payload[5:] for f in self.session.frames if f.kind == DATA and f.stream == stream]

    def status(self, stream: int) -> int | None:
        self.messages(stream)
        for frame in self.session.frames:
            if frame.kind == HEADERS and frame.stream == stream and frame.flags & ES:
                fields = dict(self.session.fields(frame))
                return int(fields[b"grpc-status"])
        return None


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.mark.parametrize("service", ["", NAME, "grpc.health.v1.Health"])
def test_check_g033(client: Client, service: str) -> None:
    loading = client.call(CHECK, service)
    client.application.serving = True
    loaded = client.call(CHECK, service)
    client.service.close()
    draining = client.call(CHECK, service)
    answers = [client.messages(stream) for stream in (loading, loaded, draining)]
    assert answers == [[NOT_SERVING], [SERVING], [NOT_SERVING]]


def test_check_of_an_unknown_service(client: Client) -> None:
    assert client.status(client.call(CHECK, "what")) == 5


def test_list(client: Client) -> None:
    (answer,) = client.messages(client.call(LIST))
    assert answer.count(NOT_SERVING) == 3
    assert NAME.encode() in answer


def test_watch_tells_changes_only_g033(client: Client) -> None:
    known, unknown = client.call(WATCH, NAME), client.call(WATCH, "what")
    assert client.messages(known) == [NOT_SERVING]
    client.session.loop.advance(10)
    client.application.serving = True
    client.session.loop.advance(10)
    assert client.messages(known) == [NOT_SERVING, SERVING]
    client.session.loop.advance(1000)
    client.service.close()
    assert client.messages(known) == [NOT_SERVING, SERVING, NOT_SERVING]
    assert client.messages(unknown) == [SERVICE_UNKNOWN]
    assert client.status(known) == client.status(unknown) == 14
    client.session.assert_clean()


def test_watch_of_a_server_that_stops(client: Client) -> None:
    client.service.close()
    stream = client.call(WATCH)
    assert client.messages(stream) == [NOT_SERVING]
    assert client.status(stream) == 14
    client.session.assert_clean()


def test_a_watch_that_is_given_up_costs_nothing_any_more(client: Client) -> None:
    stream = client.call(WATCH)
    client.session.feed(rst(stream))
    client.session.assert_clean()
    client.application.serving = True
    client.session.loop.advance(1)
    assert client.messages(stream) == [NOT_SERVING]
    assert client.session.loop.armed == 1, "nobody watches: only the connection's own timer is left"
    client.service.close()


def test_a_watch_is_one_line_of_the_access_log(client: Client) -> None:
    log = client.application.log = []
    client.call(WATCH)
    given_up = client.call(WATCH)
    assert log == []
    client.session.feed(rst(given_up))
    client.service.close()
    assert [(line.status, line.code, line.bytes_out) for line in log] == [
        (499, "CANCELLED", 7),
        (200, "UNAVAILABLE", 7),
    ]

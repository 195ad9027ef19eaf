"""The client's end of an HTTP/1.1 connection, against fixed replies and against our own server in memory."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.transport.fakes import OK, FakeLoop, FakeTransport, Served

from servable.transport.errors import Failure, TransportError
from servable.transport.exchange import RequestHead
from servable.transport.http1 import Http1ClientConnection, ReplyLimits
from servable.transport.http1.client import encode_request
from servable.transport.reply import Reply

GET = RequestHead(b"GET", b"/echo", authority=b"a:1", version=b"1.1")
POST = RequestHead(b"POST", b"/echo", ((b"x-a", b"b"),), authority=b"a:1", version=b"1.1")


class Asking:
    """A client connection on a fake transport, with the results of its requests."""

    def __init__(self, limits: ReplyLimits | None = None) -> None:
        self.loop = FakeLoop()
        self.closed = 0
        self.results: list[Reply | TransportError] = []
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        self.connection = Http1ClientConnection(loop, limits, self._on_close, clock=self.loop.time)
        self.transport = FakeTransport(self.loop, self.connection)
        self.connection.connection_made(cast("asyncio.Transport", self.transport))

    def _on_close(self, connection: Http1ClientConnection) -> None:
        self.closed += 1

    def ask(self, head: RequestHead = GET, body: bytes = b"", timeout_s: float | None = None) -> bytes:
        self.connection.request(head, body, self.results.append, timeout_s)
        sent, self.transport.sent = bytes(self.transport.sent), bytearray()
        return sent

    def get(self, *pieces: bytes, eof: bool = False) -> Reply | TransportError:
        for piece in pieces:
            if not self.transport.closing:
                self.connection.data_received(piece)
        if eof and not self.transport.closing and not self.connection.eof_received():
            self.transport.close()
        self.loop.settle()
        (result,) = self.results
        self.results.clear()
        return result


def reply_of(result: Reply | TransportError) -> Reply:
    assert isinstance(result, Reply), result
    return result


def test_requests_byte_for_byte() -> None:
    asking = Asking()
    assert asking.ask() == b"GET /echo HTTP/1.1\r\nhost: a:1\r\n\r\n"
    asking.get(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert asking.ask(POST, b"abc") == b"POST /echo HTTP/1.1\r\nhost: a:1\r\nx-a: b\r\ncontent-length: 3\r\n\r\nabc"
    asking.get(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert asking.ask(POST).endswith(b"content-length: 0\r\n\r\n")


def test_requests_cannot_be_smuggled_through_parts() -> None:
    head = RequestHead(b"GET", b"/", ((b"x", b"a\r\nb: c"), (b"transfer-encoding", b"chunked")), authority=b"a")
    assert encode_request(head) == b"GET / HTTP/1.1\r\nhost: a\r\nx: ab: c\r\n"
    with pytest.raises(ValueError, match="space or control byte"):
        encode_request(RequestHead(b"GET", b"/ HTTP/1.1\r\nx: y", authority=b"a"))
    with pytest.raises(ValueError, match="space or control byte"):
        encode_request(RequestHead(b"GET", b"/", authority=b"a\r\nx: y"))


LENGTH_1 = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nz"
REPLIES = {
    "by length": (b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc", True),
    "no body": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404, b"", True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", True),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nt: u\r\n\r\n",
        200,
        b"abc",
        True,
    ),
    "interim first": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" + LENGTH_1,
        200,
        b"z",
        True,
    ),
    "close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nz", 200, b"z", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nz", 200, b"z", False),
    "no reason": (b"HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\nz", 200, b"z", True),
}


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(REPLIES)), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_replies_however_cut(name: str, cuts: list[int]) -> None:
    stream, status, body, kept = REPLIES[name]
    places = sorted({0, len(stream)} | {cut % len(stream) for cut in cuts})
    asking = Asking()
    asking.ask()
    reply = reply_of(asking.get(*(stream[a:b] for a, b in zip(places, places[1:], strict=False))))  # noqa: RUF007
    assert (reply.status, reply.body) == (status, body)
    assert asking.connection.ready is kept


@pytest.mark.parametrize("end", [b"abc", b""])
def test_a_reply_that_ends_with_the_connection(end: bytes) -> None:
    asking = Asking()
    asking.ask()
    reply = reply_of(asking.get(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n", end, eof=True))
    assert reply.body == end
    assert reply.get(b"x") == b"y"
    assert asking.closed == 1


def test_a_reply_to_head_has_no_body() -> None:
    asking = Asking()
    asking.ask(RequestHead(b"HEAD", b"/", authority=b"a"))
    reply = reply_of(asking.get(b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n"))
    assert reply.body == b""
    assert reply.get(b"content-length") == b"300"
    assert asking.connection.ready


BAD = {
    "not HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\nz",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nz",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nz",
    "coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nz",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
    "switch": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 2000,
    "large head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 2000 + b"\r\n\r\n",
    "large body": b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
    "large body in one read": b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001,
    "many chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"1f4\r\n" + b"x" * 500 + b"\r\n") * 3,
    "large rest": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001,
}


@pytest.mark.parametrize("stream", [pytest.param(stream, id=name) for name, stream in BAD.items()])
def test_bad_replies_end_the_connection(stream: bytes) -> None:
    asking = Asking(ReplyLimits(max_head=1000, max_body=1000))
    asking.ask()
    result = asking.get(stream)
    assert isinstance(result, TransportError)
    assert result.failure is Failure.MALFORMED
    assert not result.retry_safe
    assert asking.closed == 1


@pytest.mark.parametrize(
    "part", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
def test_a_reply_cut_short_is_a_loss(part: bytes) -> None:
    asking = Asking()
    asking.ask()
    result = asking.get(*[part] * bool(part), eof=True)
    assert isinstance(result, TransportError)
    assert result.failure is Failure.LOST


def test_bytes_nobody_asked_for_end_the_connection() -> None:
    asking = Asking()
    asking.ask()
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nz"
    assert reply_of(asking.get(reply + b"HTTP/1.1")).body == b"z"
    assert not asking.connection.ready
    idle = Asking()
    idle.connection.data_received(reply)
    assert idle.transport.closing


def test_time_runs_out_once() -> None:
    asking = Asking()
    for _ in range(5):
        asking.ask(timeout_s=10)
        asking.get(b"HTTP/1.1 204 No Content\r\n\r\n")
        asking.loop.advance(9)
    asking.loop.advance(1000)
    assert asking.connection.ready
    assert asking.loop.live_timers() == 0
    asking.ask(timeout_s=10)
    asking.loop.advance(11)
    (result,) = asking.results
    assert isinstance(result, TransportError)
    assert result.failure is Failure.TIMEOUT
    assert asking.closed == 1


def test_one_request_at_a_time_and_none_after_the_end() -> None:
    asking = Asking()
    asking.ask()
    with pytest.raises(TransportError, match="busy") as busy:
        asking.ask()
    assert busy.value.retry_safe
    asking.connection.close()
    (result,) = asking.results
    assert isinstance(result, TransportError)
    assert result.failure is Failure.CANCELLED
    asking.loop.settle()
    with pytest.raises(TransportError, match="closed") as closed:
        asking.ask()
    assert closed.value.retry_safe


def test_the_next_request_may_be_sent_from_the_reply() -> None:
    asking = Asking()
    replies: list[Reply | TransportError] = []

    def again(result: Reply | TransportError) -> None:
        replies.append(result)
        if len(replies) < 3:
            asking.connection.request(GET, b"", again)

    asking.connection.request(GET, b"", again)
    for i in range(3):
        asking.connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % i)
    assert [reply_of(reply).body for reply in replies] == [b"0", b"1", b"2"]


@settings(max_examples=100, deadline=None)
@given(
    bodies=st.lists(st.binary(max_size=200), min_size=1, max_size=4),
    cut=st.integers(1, 50),
    method=st.sampled_from([b"POST", b"HEAD", b"PUT"]),
)
def test_client_and_server_understand_each_other(bodies: list[bytes], cut: int, method: bytes) -> None:
    served, asking = Served(), Asking()
    for body in bodies:
        target = b"/echo" if len(body) % 2 else b"/later"
        request = asking.ask(RequestHead(method, target, authority=b"a"), body)
        answer = served.feed(*(request[i : i + cut] for i in range(0, len(request), cut)))
        if target == b"/later":
            served.application.waiting.pop().respond(OK, body)
            answer = served.take()
        reply = reply_of(asking.get(*(answer[i : i + cut] for i in range(0, len(answer), cut))))
        expected = body if target == b"/later" else b"%b /echo %d" % (method, len(body)) + body[:64]
        assert (reply.status, reply.body) == (200, b"" if method == b"HEAD" else expected)
        assert served.application.handled[-1] == (method, target, body)

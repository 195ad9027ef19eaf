"""The server's end of an HTTP/1.1 connection, on a transport in memory."""

from __future__ import annotations

import logging

import pytest
from tests.transport.fakes import LIMITS, OK, FakeApplication, Served, statuses, undated

from servable.transport.exchange import Exchange, Peer, ReplyHead, Route
from servable.transport.limits import Limits

GET = b"GET /echo/%d HTTP/1.1\r\nHost: a\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n"


def post(target: bytes, body: bytes, *fields: bytes, version: bytes = b"1.1") -> bytes:
    lines = [b"POST %b HTTP/%b" % (target, version), b"Host: a", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunks(*parts: bytes) -> bytes:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


def test_a_reply_byte_for_byte() -> None:
    reply = Served().feed(post(b"/echo", b"abc"))
    assert undated(reply) == b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 15\r\n\r\nPOST /echo 3abc"
    assert b"\r\ndate: " in reply
    assert b" GMT\r\n" in reply


def test_what_the_application_sees() -> None:
    served = Served()
    served.feed(b"POST /echo?q=%20 HTTP/1.1\r\nHOST: Example:80\r\nX-A:  b \t\r\nx-a: c\r\nContent-Length: 1 \r\n\r\nz")
    head = served.application.heads[0]
    assert (head.method, head.target, head.authority, head.scheme, head.version) == (
        b"POST",
        b"/echo?q=%20",
        b"Example:80",
        b"http",
        b"1.1",
    )
    assert head.fields == ((b"host", b"Example:80"), (b"x-a", b"b"), (b"x-a", b"c"), (b"content-length", b"1"))
    assert head.get(b"x-a") == b"b, c"
    assert served.application.handled[0][2] == b"z"


def test_the_scheme_follows_the_connection() -> None:
    served = Served(peer=Peer("test", local=False, tls=True))
    served.feed(GET % 1)
    assert served.application.heads[0].scheme == b"https"


# --- P001 and P012: order and fairness


def test_replies_keep_the_order_of_pipelined_requests() -> None:
    served = Served()
    first = served.feed(GET % 1 + LATER + GET % 3)
    assert statuses(first) == [200]
    assert b"/echo/1" in first
    served.application.waiting[0].respond(OK, b"slow")
    served.loop.settle()
    rest = served.take()
    assert rest.index(b"slow") < rest.index(b"/echo/3")


def test_a_reply_later_is_one_write() -> None:
    served = Served()
    served.feed(LATER)
    served.application.waiting[0].respond(OK, b"slow")
    assert served.transport.writes == 1
    assert served.connection.active == 0


def test_a_flood_of_pipelined_requests_yields_to_others() -> None:
    served = Served()
    served.connection.data_received(GET % 1 * 10_000)
    handled = [len(served.application.handled)]
    while served.loop.ready:
        served.loop.turn()
        handled.append(len(served.application.handled))
    turns = -(-10_000 // LIMITS.requests_per_turn)
    assert handled == [min(10_000, LIMITS.requests_per_turn * (turn + 1)) for turn in range(turns)]
    assert served.transport.writes == turns


def test_what_arrives_between_turns_waits_for_its_own() -> None:
    served = Served()
    served.connection.data_received(GET % 1 * (LIMITS.requests_per_turn + 1))
    served.connection.data_received(GET % 2)
    assert len(served.application.handled) == LIMITS.requests_per_turn
    served.loop.settle()
    assert [target for _, target, _ in served.application.handled[-2:]] == [b"/echo/1", b"/echo/2"]


def test_bytes_behind_an_unanswered_request_are_bounded() -> None:
    served = Served()
    served.feed(LATER)
    for _ in range(20):
        if served.transport.reading:
            served.feed(GET % 1 * 200)
    paused = not served.transport.reading
    assert paused
    assert len(served.connection._buffer) < 100_000
    served.application.waiting[0].respond(OK)
    served.loop.settle()
    assert served.transport.reading
    assert set(statuses(served.take())) == {200}
    assert served.connection.active == 0


def test_a_client_that_does_not_read_is_not_served_more() -> None:
    served = Served()
    served.transport.stalled = True
    big = b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n"
    served.feed(big * 5 + GET % 9)
    assert len(served.take()) < 1_100_000
    assert served.application.handled == []
    served.transport.release()
    served.loop.settle()
    rest = served.take()
    assert statuses(rest) == [200] * 5
    assert served.application.handled == [(b"GET", b"/echo/9", b"")]


def test_a_partial_head_that_arrived_while_the_client_did_not_read_is_taken_up() -> None:
    served = Served()
    served.feed((GET % 1)[:10])
    served.connection.pause_writing()
    served.feed((GET % 1)[10:])
    assert served.application.handled == []
    served.connection.resume_writing()
    served.loop.settle()
    assert statuses(served.take()) == [200]


# --- P002, P003, P008 and P011: bodies


@pytest.mark.parametrize("size", [0, 1, 70_000])
def test_bodies_by_length(size: int) -> None:
    served = Served()
    body = b"x" * size
    request = post(b"/echo", body)
    served.feed(request[:50], request[50:])
    assert served.application.handled == [(b"POST", b"/echo", body)]


def test_chunks_of_one_byte_extensions_and_trailers() -> None:
    served = Served()
    served.feed(chunks(*[b"%d" % (i % 10) for i in range(5000)]) + GET % 1)
    assert served.application.handled[0][2] == b"0123456789" * 500
    assert served.application.handled[1][1] == b"/echo/1"
    stream = (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
        b'3;a=b;c="d e"\r\nabc\r\n00A\r\n0123456789\r\n000;x\r\nX-Sum: 1\r\nY: \r\n\r\n'
    )
    served.feed(stream + GET % 2)
    assert served.application.handled[2:] == [(b"POST", b"/echo", b"abc0123456789"), (b"GET", b"/echo/2", b"")]


def test_continue_is_said_only_when_the_body_is_awaited() -> None:
    expect = b"Expect: 100-Continue"
    served = Served()
    request = post(b"/echo", b"abc", expect)
    assert served.feed(request[:-3]) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert statuses(served.feed(b"abc")) == [200]
    assert statuses(served.feed(request)) == [200]
    assert statuses(served.feed(post(b"/small", b"x" * 11, expect)[:-11])) == [413]
    assert served.ending
    assert statuses(Served().feed(post(b"/echo", b"", expect))) == [200]
    old = Served()
    assert old.feed(post(b"/echo", b"abc", expect, version=b"1.0")[:-3]) == b""
    assert statuses(old.feed(b"abc")) == [200]


def test_a_small_unwanted_body_is_read_and_the_connection_kept() -> None:
    served = Served()
    reply = served.feed(post(b"/small", b"x" * 2000), GET % 1)
    assert statuses(reply) == [413, 200]
    assert b"connection: close" not in reply
    assert b"the request body exceeds 10 bytes" in reply


def test_a_large_unwanted_body_ends_the_connection_without_destroying_the_reply() -> None:
    served = Served()
    request = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 104857600\r\n\r\n"
    reply = served.feed(request)
    assert statuses(reply) == [413]
    assert b"connection: close" in reply
    assert served.transport.eof_written
    for _ in range(2000):
        if served.transport.reading:
            served.feed(b"x" * 1024)
    assert not served.transport.reading, "only so much is discarded"
    assert not served.transport.closing
    served.loop.advance(2.5)
    assert served.closed == 1
    assert served.application.handled == []


def test_chunks_are_counted_against_the_limit() -> None:
    served = Served()
    reply = served.feed(chunks(b"x" * 60_000, b"x" * 50_000), GET % 1)
    assert statuses(reply) == [413]
    assert served.ending
    assert served.application.handled == []


def test_a_body_above_the_limit_may_be_answered_later() -> None:
    application = FakeApplication()

    class Pondering(Route):
        max_body = 10

        def handle(self, exchange: Exchange, body: bytes) -> None:
            raise AssertionError

        def too_large(self, exchange: Exchange, limit: int) -> None:
            application.waiting.append(exchange)

    application.routes[b"/echo"] = Pondering()
    served = Served(application=application)
    assert served.feed(chunks(b"x" * 8, b"y" * 8), GET % 1, b"5\r\n") == b""
    (exchange,) = application.waiting
    exchange.respond(ReplyHead(413), b"too much")
    assert statuses(served.take()) == [413]
    assert served.transport.eof_written


def test_a_lingering_connection_ends_when_the_client_does() -> None:
    served = Served()
    served.feed(b"BAD\r\n\r\n")
    assert not served.transport.closing
    served.eof()
    assert served.closed == 1


def test_a_body_cut_short_reaches_nobody() -> None:
    served = Served()
    served.feed(post(b"/echo", b"abc")[:-1])
    served.eof()
    assert statuses(served.take()) == [400]
    assert served.application.handled == []
    assert served.closed == 1


def test_a_head_cut_short_is_answered() -> None:
    served = Served()
    served.feed(b"GET /echo HT")
    served.eof()
    assert statuses(served.take()) == [400]
    assert served.closed == 1


def test_a_route_without_interest_in_the_body_is_asked_at_once() -> None:
    served = Served()
    request = post(b"/laterheadonly", b"x" * 5000)
    served.feed(request[:-4000])
    assert served.application.handled == [(b"POST", b"/laterheadonly", b"")]
    served.feed(request[-4000:-1000])
    served.application.waiting[0].respond(OK, b"done")
    reply = served.feed(request[-1000:] + GET % 1)
    assert statuses(reply) == [200, 200]


class Measured(Route):
    """Knows the length of a body from its first byte."""

    prefix_size = 1

    def __init__(self, size: int) -> None:
        self.size = size
        self.asked: list[bytes] = []
        self.bodies: list[bytes] = []

    def body_size(self, exchange: Exchange, prefix: bytes) -> int:
        self.asked.append(prefix)
        if self.size < 0:
            exchange.respond(ReplyHead(422), b"not that")
        return self.size

    def handle(self, exchange: Exchange, body: bytes) -> None:
        self.bodies.append(body)
        exchange.respond(OK)


@pytest.mark.parametrize(("size", "expected"), [(3, 200), (-1, 422), (1_000_000, 413)])
def test_the_size_told_by_a_prefix_decides_early(size: int, expected: int) -> None:
    application = FakeApplication()
    route = Measured(size)
    application.routes[b"/measured"] = route
    served = Served(application=application)
    request = post(b"/measured", b"abc")
    reply = served.feed(request[:-3], request[-3:-2], request[-2:-1], request[-1:], GET % 1)
    assert statuses(reply) == [expected, 200]
    assert route.asked == [b"a"]
    assert route.bodies == ([b"abc"] if expected == 200 else [])


# --- P005 and P007: replies


@pytest.mark.parametrize(("target", "length"), [(b"/echo", 12), (b"/nowhere", 12)])
def test_head_has_the_fields_of_get_and_no_body(target: bytes, length: int) -> None:
    line = b" %b HTTP/1.1\r\nHost: a\r\n\r\n" % target
    served = Served()
    reply = undated(served.feed(b"HEAD" + line))
    assert reply.endswith(b"content-length: %d\r\n\r\n" % length)
    assert undated(served.feed(b"GET" + line)).split(b"\r\n")[0] == reply.split(b"\r\n")[0]
    assert statuses(served.feed(GET % 1)) == [200]


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(status: int) -> None:
    served = Served()
    reply = undated(served.feed(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % status))
    assert b"content-length" not in reply
    assert reply.endswith(b"\r\n\r\n")
    assert statuses(served.feed(GET % 1)) == [200]


@pytest.mark.parametrize(
    ("version", "field", "kept", "said"),
    [
        (b"1.1", b"", True, None),
        (b"1.1", b"Connection: close\r\n", False, b"close"),
        (b"1.1", b"Connection: foo, Close\r\n", False, b"close"),
        (b"1.1", b"Connection: foo\r\nConnection: CLOSE\r\n", False, b"close"),
        (b"1.1", b"Connection: keep-alive\r\n", True, None),
        (b"1.0", b"", False, b"close"),
        (b"1.0", b"Connection: Keep-Alive\r\n", True, b"keep-alive"),
        (b"1.0", b"Connection: keep-alive, close\r\n", False, b"close"),
    ],
)
def test_connection_is_kept_as_asked(version: bytes, field: bytes, kept: bool, said: bytes | None) -> None:
    served = Served()
    reply = served.feed(b"GET /echo HTTP/%b\r\nHost: a\r\n%b\r\n" % (version, field) + GET % 1)
    assert statuses(reply) == ([200, 200] if kept else [200])
    assert (b"connection: " + said in reply) if said else (b"connection: " not in reply)
    assert served.transport.closing is not kept


def test_http_1_0_needs_no_host() -> None:
    assert statuses(Served().feed(b"GET /echo HTTP/1.0\r\n\r\n")) == [200]


def test_values_cannot_begin_another_field() -> None:
    application = FakeApplication()

    class Injected(Route):
        def handle(self, exchange: Exchange, body: bytes) -> None:
            fields = ((b"x", b"a\r\nset-cookie: b\0"), (b"content-length", b"7"), (b"connection", b"upgrade"))
            exchange.respond(ReplyHead(299, fields), memoryview(b"abc"))

    application.routes[b"/x"] = Injected()
    reply = undated(Served(application=application).feed(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"))
    assert reply == b"HTTP/1.1 299 Unknown\r\nx: aset-cookie: b\r\ncontent-length: 3\r\n\r\nabc"


def test_a_large_reply_is_whole() -> None:
    reply = Served().feed(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    assert reply.endswith(b"\r\n\r\n" + b"x" * 1_000_000)


# --- P006, C017 and C018: targets and offers


@pytest.mark.parametrize(
    ("line", "authority", "target"),
    [
        (b"GET http://u.example/echo?a HTTP/1.1", b"u.example", b"/echo?a"),
        (b"GET HTTP://u.example:81 HTTP/1.1", b"u.example:81", b"/"),
        (b"GET http://[::1]:81/echo HTTP/1.1", b"[::1]:81", b"/echo"),
        (b"GET https://u.example?a=b HTTP/1.1", b"u.example", b"/?a=b"),
        (b"OPTIONS http://u.example HTTP/1.1", b"u.example", b"*"),
        (b"OPTIONS * HTTP/1.1", b"other", b"*"),
        (b"PROPFIND /echo HTTP/1.1", b"other", b"/echo"),
    ],
)
def test_targets(line: bytes, authority: bytes, target: bytes) -> None:
    served = Served()
    served.feed(line + b"\r\nHost: other\r\n\r\n")
    head = served.application.heads[0]
    assert (head.authority, head.target) == (authority, target)


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"


def test_upgrade_offers_are_answered_in_http_1_1() -> None:
    served = Served()
    offer = b"GET /echo HTTP/1.1\r\nHost: a\r\n" + OFFER + b"\r\n"
    with_body = post(b"/echo", b"body", OFFER[:-2])
    in_chunks = chunks(b"bo", b"dy").replace(b"Host: a\r\n", b"Host: a\r\n" + OFFER)
    reply = served.feed(offer + with_body + in_chunks + GET % 1)
    assert statuses(reply) == [200] * 4
    assert [body for _, _, body in served.application.handled] == [b"", b"body", b"body", b""]
    assert not served.transport.closing


def test_empty_lines_before_a_request_are_ignored() -> None:
    served = Served()
    assert (
        statuses(served.feed(b"\r\n\r\n\r\n" + GET % 1 + b"\r\n" + GET % 2, b"\r", b"\n", b"\r\n" + GET % 3))
        == [200] * 3
    )


# --- P010: the end of a connection


@pytest.mark.parametrize("request_bytes", [LATER, LATER + GET % 1])
def test_a_half_closed_client_gets_its_reply(request_bytes: bytes) -> None:
    served = Served()
    served.feed(request_bytes)
    served.eof()
    assert not served.transport.closing
    served.application.waiting[0].respond(OK, b"slow")
    served.loop.settle()
    assert statuses(served.take()) == [200] * (request_bytes.count(b"GET"))
    assert served.closed == 1


def test_a_lost_connection_cancels_once_and_silences_the_reply() -> None:
    served = Served()
    served.feed(LATER)
    exchange = served.application.waiting[0]
    calls: list[bool] = []
    exchange.on_cancel = lambda: calls.append(exchange.cancelled)
    served.transport.abort()
    served.loop.settle()
    assert calls == [True]
    exchange.respond(OK, b"too late")
    assert served.take() == b""
    assert served.closed == 1


def test_answering_twice_is_a_defect() -> None:
    served = Served()
    served.feed(LATER)
    exchange = served.application.waiting[0]
    exchange.respond(OK)
    with pytest.raises(RuntimeError, match="answered before"):
        exchange.respond(OK)


@pytest.mark.parametrize("target", [b"/broken", b"/unroutable"])
def test_a_defect_of_the_application_ends_one_exchange(target: bytes, caplog: pytest.LogCaptureFixture) -> None:
    served = Served()
    with caplog.at_level(logging.ERROR):
        reply = served.feed(post(target, b"abc") + GET % 1)
    assert statuses(reply) == [500, 200]
    assert "defect" in caplog.text


def test_an_interim_status_is_no_reply(caplog: pytest.LogCaptureFixture) -> None:
    application = FakeApplication()

    class Interim(Route):
        def handle(self, exchange: Exchange, body: bytes) -> None:
            exchange.respond(ReplyHead(103))

    application.routes[b"/x"] = Interim()
    with caplog.at_level(logging.ERROR):
        assert statuses(Served(application=application).feed(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")) == [500]
    assert "103 is not the status of a final reply" in caplog.text


# --- draining


def test_draining_closes_an_idle_connection_at_once() -> None:
    served = Served()
    served.feed(GET % 1)
    served.connection.drain()
    served.loop.settle()
    assert served.closed == 1


def test_draining_answers_what_was_begun() -> None:
    served = Served()
    served.feed(LATER)
    served.connection.drain()
    assert served.connection.active == 1
    served.application.waiting[0].respond(OK, b"slow")
    reply = served.take()
    assert b"connection: close" in reply
    assert reply.endswith(b"slow")
    served.loop.settle()
    assert served.closed == 1


def test_draining_waits_for_a_request_under_way() -> None:
    served = Served()
    request = post(b"/echo", b"abc")
    served.feed(request[:-1])
    served.connection.drain()
    reply = served.feed(request[-1:])
    assert statuses(reply) == [200]
    assert b"connection: close" in reply
    assert served.closed == 1


def test_draining_after_an_unwanted_rest() -> None:
    served = Served()
    request = post(b"/small", b"x" * 2000)
    assert b"connection: close" not in served.feed(request[:-1000])
    served.connection.drain()
    assert not served.transport.closing
    served.feed(request[-1000:])
    assert served.closed == 1


# --- heads seen before


def test_known_heads_are_routed_once_and_bounded() -> None:
    served = Served()
    served.feed(*[GET % 1] * 5)
    assert len(served.application.heads) == 1
    assert len(served.application.handled) == 5
    for i in range(3000):
        served.feed(GET % i)
    assert len(served.connection._known) <= 1024
    served.feed(b"GET /echo HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 5000 + b"\r\n\r\n")
    assert max(map(len, served.connection._known)) < 2048


def test_limits_of_pipelining_need_no_memory_of_requests() -> None:
    served = Served(Limits(requests_per_turn=1))
    assert statuses(served.feed(GET % 1 * 50 + chunks(b"a") * 50)) == [200] * 100

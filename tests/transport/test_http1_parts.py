"""Replies in parts over HTTP/1.1: framing, what becomes of the connection, back-pressure, ends."""

from __future__ import annotations

import h11
import pytest
from tests.transport.fakes import LIMITS, OK, PEER, Echo, FakeApplication, Served, statuses, undated

from servable.transport.exchange import Exchange, PartedReply, Peer, RepliesInParts, ReplyHead, Route, Trailers

TRAILERS = Trailers(((b"grpc-status", b"0"),))
GET = b"GET /parts HTTP/1.1\r\nHost: a\r\n\r\n"
NEXT = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"


class Parts(Route):
    """Begins a reply and leaves the rest to the test."""

    def __init__(self, application: Application, head: ReplyHead = OK, *, wants_body: bool = True) -> None:
        self.application = application
        self.head = head
        self.wants_body = wants_body

    def handle(self, exchange: Exchange, body: bytes) -> None:
        assert isinstance(exchange, RepliesInParts)
        exchange.on_cancel = lambda: self.application.cancelled.append(exchange)
        self.application.exchanges.append(exchange)
        self.application.replies.append(exchange.begin(self.head))
        if exchange.head.target == b"/parts/raise":
            raise RuntimeError("a defect")
        if exchange.head.target == b"/parts/now":
            reply = self.application.replies[-1]
            reply.write(b"one")
            reply.write(b"two")
            reply.finish()


class Application(FakeApplication):
    def __init__(self) -> None:
        super().__init__()
        self.exchanges: list[Exchange] = []
        self.replies: list[PartedReply] = []
        self.cancelled: list[Exchange] = []
        self.routes[b"/parts"] = Parts(self)
        self.routes[b"/headonly"] = Parts(self, wants_body=False)
        self.routes[b"/204"] = Parts(self, ReplyHead(204))
        self.routes[b"/echo"] = Echo(self)


def begun(request: bytes = GET, peer: Peer = PEER) -> tuple[Served, Application, PartedReply]:
    application = Application()
    served = Served(application=application, peer=peer)
    served.feed(request)
    served.loop.settle()
    served.connection.resume_writing()
    return served, application, application.replies[0]


def sent(served: Served) -> bytes:
    served.loop.settle()
    return undated(served.take())


def test_chunks_leave_as_they_are_written_and_the_connection_is_kept_p003() -> None:
    application = Application()
    served = Served(application=application)
    assert undated(served.feed(GET)) == CHUNKED, "the head does not wait for the first part"
    (reply,) = application.replies
    assert reply.write(b"one")
    assert sent(served) == b"3\r\none\r\n"
    assert reply.write(b"")
    assert sent(served) == b"", "an empty chunk would end the reply"
    reply.write(b"x" * 26)
    reply.write(b"yz")
    writes = served.transport.writes
    assert sent(served) == b"1a\r\n" + b"x" * 26 + b"\r\n2\r\nyz\r\n"
    assert served.transport.writes == writes + 1, "one write a turn"
    reply.finish(TRAILERS)
    assert sent(served) == b"0\r\n\r\n"
    assert statuses(served.feed(NEXT)) == [200]
    assert not served.ending
    assert served.connection.active == 0


def test_a_whole_reply_in_one_turn_is_one_write_and_h11_reads_it() -> None:
    served = Served(application=Application())
    got = served.feed(b"GET /parts/now HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT)
    assert served.transport.writes == 1
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/parts/now", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(got)
    body = b""
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        assert event is not h11.NEED_DATA
        if isinstance(event, h11.Data):
            body += event.data
    assert body == b"onetwo"
    assert client.trailing_data[0].startswith(b"HTTP/1.1 200 OK\r\n")


def test_pipelined_requests_wait_for_the_end_p001() -> None:
    served, application, reply = begun(GET + NEXT + GET)
    assert application.handled == []
    reply.write(b"one")
    reply.finish()
    tail = sent(served)
    assert tail.startswith(b"3\r\none\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert len(application.replies) == 2
    application.replies[1].finish()
    assert sent(served).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("keep", [False, True])
def test_http10_reads_to_the_end_of_the_connection_p003(keep: bool) -> None:
    wish = b"Connection: keep-alive\r\n" if keep else b""
    application = Application()
    served = Served(application=application)
    head = undated(served.feed(b"GET /parts HTTP/1.0\r\n" + wish + b"\r\n"))
    assert head == b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"
    (reply,) = application.replies
    reply.write(b"one")
    reply.write(b"two")
    assert sent(served) == b"onetwo"
    assert not served.ending
    reply.finish()
    served.loop.settle()
    assert served.ending


def test_connection_close_is_said_at_once_and_done_at_the_end() -> None:
    application = Application()
    served = Served(application=application)
    head = undated(served.feed(b"GET /parts HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
    assert head.endswith(b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n")
    application.replies[0].write(b"one")
    assert not served.ending
    application.replies[0].finish()
    assert sent(served) == b"3\r\none\r\n0\r\n\r\n"
    assert served.ending


@pytest.mark.parametrize(
    ("request_line", "head"),
    [
        (b"HEAD /parts HTTP/1.1", CHUNKED),
        (b"HEAD /parts HTTP/1.0", b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"),
        (b"GET /204 HTTP/1.1", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ],
)
def test_replies_without_a_body_p005(request_line: bytes, head: bytes) -> None:
    application = Application()
    served = Served(application=application)
    assert undated(served.feed(request_line + b"\r\nHost: a\r\n\r\n")) == head
    assert application.replies[0].write(b"never seen")
    application.replies[0].finish()
    assert sent(served) == b""
    if b"HTTP/1.0" not in request_line:
        assert statuses(served.feed(NEXT)) == [200]


def test_a_client_that_does_not_read_makes_the_producer_wait() -> None:
    served, _, reply = begun()
    drained: list[int] = []
    reply.on_drained = lambda: drained.append(served.transport.buffered)
    served.take()
    served.transport.stalled = True
    count = 0
    while reply.write(b"x" * 100_000):
        count += 1
    assert count < 10
    assert drained == []
    served.transport.release()
    assert drained == [0]
    assert reply.write(b"more")
    reply.finish()
    assert sent(served).endswith(b"0\r\n\r\n")


def test_a_producer_that_never_waits_is_written_out_as_it_goes() -> None:
    served, _, reply = begun()
    served.transport.stalled = True
    for _ in range(100_000):
        if not reply.write(b"x" * 100):
            break
    else:
        raise AssertionError("the producer was never told to wait")
    assert served.transport.buffered < 1_000_000


@pytest.mark.parametrize("keep_writing", [False, True])
def test_a_client_that_never_reads_is_given_up(keep_writing: bool) -> None:
    served, application, reply = begun()
    served.transport.stalled = True
    while reply.write(b"x" * 100_000):
        pass
    served.loop.advance(2 * LIMITS.send_stall_timeout_s + 1)
    assert served.transport.aborted
    assert application.cancelled == application.exchanges
    if keep_writing:
        assert reply.write(b"nobody reads this")
    reply.finish()
    assert served.closed == 1


@pytest.mark.parametrize("how", ["lost", "tls"])
def test_a_client_that_goes_away(how: str) -> None:
    served, application, reply = begun(peer=Peer("test:1", local=True, tls=how == "tls"))
    reply.write(b"one")
    if how == "lost":
        served.transport.abort()
    else:
        served.eof()
    served.loop.settle()
    assert application.cancelled == application.exchanges
    assert application.exchanges[0].cancelled
    assert reply.write(b"two")
    reply.finish()
    served.loop.advance(100)
    assert served.closed == 1


def test_a_client_that_shuts_its_side_still_gets_all_p010() -> None:
    served, _, reply = begun()
    served.eof()
    reply.write(b"one")
    reply.finish()
    assert sent(served).endswith(b"3\r\none\r\n0\r\n\r\n")
    assert served.ending


def test_a_reply_that_fails_never_looks_whole() -> None:
    served, application, reply = begun()
    served.take()
    reply.write(b"one")
    served.loop.settle()
    reply.fail()
    assert b"0\r\n\r\n" not in sent(served)
    assert served.transport.aborted
    assert application.cancelled == [], "it was the producer that gave up"
    for again in (reply.finish, reply.fail):
        with pytest.raises(RuntimeError):
            again()


def test_a_route_that_raises_after_it_has_begun() -> None:
    served = Served(application=Application())
    served.feed(b"GET /parts/raise HTTP/1.1\r\nHost: a\r\n\r\n")
    assert served.transport.aborted


def test_a_silent_producer_is_not_a_slow_client() -> None:
    served, _, reply = begun()
    served.loop.advance(10_000)
    assert not served.ending
    reply.write(b"late")
    reply.finish()
    assert sent(served).endswith(b"4\r\nlate\r\n0\r\n\r\n")
    assert not served.ending


def test_drained_after_the_head_closes_after_the_end() -> None:
    served, _, reply = begun()
    served.connection.drain()
    assert not served.ending
    reply.finish()
    assert sent(served).endswith(b"0\r\n\r\n")
    assert served.ending


def test_the_rest_of_an_unwanted_body_is_read_meanwhile() -> None:
    served, _, reply = begun(b"POST /headonly HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
    reply.write(b"one")
    served.feed(b"67890" + NEXT)
    reply.finish()
    served.loop.settle()
    assert statuses(served.take()) == [200]
    assert not served.ending


def test_an_exchange_is_answered_once() -> None:
    _, application, reply = begun()
    exchange = application.exchanges[0]
    assert isinstance(exchange, RepliesInParts)
    with pytest.raises(RuntimeError):
        exchange.begin(OK)
    with pytest.raises(RuntimeError):
        exchange.respond(OK)
    reply.finish()
    for again in (reply.finish, reply.fail, lambda: reply.write(b"x")):
        with pytest.raises(RuntimeError):
            again()

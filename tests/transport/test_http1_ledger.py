"""What HTTP/1.1 connections put on the account of their process: refusals, unfinished bodies, slow readers."""

from __future__ import annotations

import pytest
from tests.transport.fakes import Served, statuses

from servable.transport.limits import KIB, Limits

GET = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
LIMITS = Limits(max_body=100_000, process_body_budget=100 * KIB, max_request_fields=5)


def post(length: int, path: bytes = b"/echo", *more: bytes) -> bytes:
    fields = b"".join(field + b"\r\n" for field in more)
    return b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%b\r\n" % (path, length, fields)


def chunked(size: int) -> bytes:
    return b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % size


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"BAD\r\n\r\n", 400),
        (post(200_000), 413),
        (post(11, b"/small"), 413),
        (chunked(200_000), 413),
        (b"GET /" + b"x" * 9000, 414),
        (b"GET /echo HTTP/1.1\r\nHost: a\r\nExpect: nothing\r\n\r\n", 417),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * 9 + b"\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ],
)
def test_each_refusal_is_an_event(request_bytes: bytes, status: int) -> None:
    served = Served(LIMITS)
    assert statuses(served.feed(GET + request_bytes)) == [200, status]
    assert served.events == [f"http1_{status}"]


@pytest.mark.parametrize("begun", [b"GET / HT", post(100) + b"x"], ids=["head", "body"])
def test_who_is_too_slow_is_an_event(begun: bytes) -> None:
    served = Served(LIMITS)
    served.feed(begun)
    served.loop.advance(40)
    assert statuses(served.take()) == [408]
    assert served.events == ["http1_408"]


def test_a_reply_that_nobody_fetches_is_an_event_and_its_wait_is_counted() -> None:
    served = Served(LIMITS)
    served.transport.stalled = True
    served.feed(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    served.loop.advance(7)
    served.transport.release()
    assert served.stalls == [("socket", 7.0)]
    served.transport.stalled = True
    served.feed(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    served.loop.advance(200)
    assert served.transport.aborted
    assert served.events == ["send_stalled"]


@pytest.mark.parametrize("head", [post(90 * KIB), chunked(90 * KIB)], ids=["length", "chunks"])
def test_unfinished_bodies_share_one_budget(head: bytes) -> None:
    first = Served(LIMITS)
    second = Served(LIMITS)
    second.connection._reception.ledger = first.ledger
    first.feed(head, b"x" * 60 * KIB)
    assert first.ledger.buffered == 60 * KIB
    second.feed(head, b"y" * 40 * KIB)
    assert not second.ending
    reply = second.feed(b"z")
    assert statuses(reply) == [503]
    assert b"retry-after: 1" in reply
    assert first.events == ["body_budget", "http1_503"]
    assert first.ledger.buffered == 60 * KIB, "what was refused is given back"
    assert statuses(first.feed(b"x" * 30 * KIB + (b"\r\n0\r\n\r\n" if b"chunked" in head else b""))) == [200]
    assert first.ledger.buffered == 0


def lose(served: Served) -> None:
    served.transport.abort()
    served.loop.settle()


def stall(served: Served) -> None:
    served.loop.advance(60)


def overrun(served: Served) -> None:
    served.feed(b"\r\nfffff\r\n")


@pytest.mark.parametrize("end", [Served.eof, lose, stall, overrun])
def test_however_an_unfinished_body_ends_its_bytes_are_given_back(end: object) -> None:
    served = Served(LIMITS)
    served.feed(chunked(50_000), b"x" * 50_000)
    assert served.ledger.buffered == 50_000
    assert callable(end)
    end(served)
    assert served.ledger.buffered == 0


def test_a_body_that_arrives_whole_is_never_counted() -> None:
    served = Served(Limits(process_body_budget=0))
    assert statuses(served.feed(post(3) + b"abc")) == [200]

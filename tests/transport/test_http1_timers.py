"""Slow and silent clients. Time is the fake loop's: nothing waits."""

from __future__ import annotations

from tests.transport.fakes import OK, Served, statuses

from servable.transport.limits import Limits

GET = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
LIMITS = Limits(
    head_timeout_s=10, body_progress_timeout_s=30, keep_alive_timeout_s=75, send_stall_timeout_s=60, linger_s=2
)


def test_an_idle_connection_is_closed_in_silence() -> None:
    served = Served(LIMITS)
    served.feed(GET)
    served.loop.advance(74)
    assert not served.transport.closing
    served.loop.advance(2)
    assert served.closed == 1
    assert served.take() == b""


def test_requests_put_the_idle_timer_off() -> None:
    served = Served(LIMITS)
    for _ in range(10):
        served.feed(GET)
        served.loop.advance(60)
    assert served.closed == 0


def test_a_slow_head_is_answered_408_whatever_its_progress() -> None:
    served = Served(LIMITS)
    served.feed(GET)
    for i in range(9):
        served.feed(GET[i : i + 1])
        served.loop.advance(1)
    assert statuses(served.take()) == []
    served.loop.advance(2)
    assert statuses(served.take()) == [408]
    assert served.transport.eof_written
    served.loop.advance(3)
    assert served.closed == 1


def test_empty_lines_are_no_request() -> None:
    served = Served(LIMITS)
    served.feed(b"\r\n")
    served.loop.advance(20)
    assert not served.ending


def test_a_body_without_progress_is_answered_408() -> None:
    served = Served(LIMITS)
    served.feed(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n" + b"x" * 80_000)
    served.loop.advance(29)
    assert not served.ending
    served.loop.advance(2)
    assert statuses(served.take()) == [408]
    assert served.application.handled == []


def test_a_body_that_trickles_is_answered_408() -> None:
    served = Served(LIMITS)
    served.feed(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    seconds = 0
    while not served.ending:
        served.feed(b"1\r\nx\r\n")
        served.loop.advance(1)
        seconds += 1
    assert seconds == 10
    assert statuses(served.take()) == [408]


def test_a_body_at_a_fair_rate_may_take_long() -> None:
    served = Served(LIMITS)
    served.feed(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n")
    for _ in range(89):
        served.feed(b"x" * 1000)
        served.loop.advance(1)
    assert statuses(served.feed(b"x" * 1000)) == [200]


def test_the_application_may_take_its_time() -> None:
    served = Served(LIMITS)
    served.feed(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
    served.loop.advance(100_000)
    assert not served.ending
    served.application.waiting[0].respond(OK)
    assert statuses(served.take()) == [200]
    served.loop.advance(80)
    assert served.closed == 1


def test_a_client_that_stops_reading_is_dropped() -> None:
    served = Served(LIMITS)
    served.transport.stalled = True
    served.feed(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    served.loop.advance(59)
    assert not served.transport.closing
    served.loop.advance(2)
    assert served.transport.aborted


def test_a_client_that_reads_slowly_is_not_dropped() -> None:
    served = Served(LIMITS)
    served.transport.stalled = True
    served.feed(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    for _ in range(10):
        served.loop.advance(50)
        served.transport.buffered -= 1000
    assert not served.transport.closing


def test_closing_does_not_wait_for_ever() -> None:
    served = Served(LIMITS)
    served.transport.stalled = True
    served.feed(b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert served.transport.closing
    served.loop.advance(200)
    assert served.transport.aborted
    assert served.closed == 1


def test_a_rest_that_never_comes_ends_the_connection() -> None:
    served = Served(LIMITS)
    served.feed(b"POST /headonly HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
    assert statuses(served.take()) == []
    served.loop.advance(31)
    assert served.closed == 1


def test_one_timer_a_connection() -> None:
    served = Served(LIMITS)
    for _ in range(1000):
        served.feed(GET)
    assert served.loop.timers_made == 1
    served.feed(GET[:5], GET[5:])
    assert served.loop.live_timers() == 1
    served.transport.abort()
    served.loop.settle()
    assert served.loop.live_timers() == 0

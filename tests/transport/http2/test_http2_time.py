"""Deadlines of a server connection, and its ways of coming to an end."""

from __future__ import annotations

import pytest
from tests.transport.http2.harness import (
    CANCEL,
    EH,
    ENHANCE,
    ES,
    FRESH,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    PING,
    PREFACE,
    PROTOCOL,
    REPLY,
    RST,
    S0,
    SETTINGS_TIMEOUT,
    Frame,
    Session,
    block,
    d,
    h,
    ping,
    rst,
)

from servable.transport.limits import Limits

LIMITS = Limits()


def goaways(session: Session) -> list[tuple[int, int, bytes]]:
    return [
        (int.from_bytes(frame.payload[:4], "big"), int.from_bytes(frame.payload[4:8], "big"), frame.payload[8:])
        for frame in session.frames
        if frame.kind == GOAWAY
    ]


@pytest.mark.parametrize("sent", [b"", b"PRI * HTTP/2.0\r\n\r\n", PREFACE, PREFACE + S0[:5]], ids=len)
def test_a_preface_that_does_not_come_c004(sent: bytes) -> None:
    session = Session()
    session.feed(sent)
    session.loop.advance(LIMITS.preface_timeout_s - 0.1)
    assert not session.connection.closing
    session.loop.advance(0.2)
    session.collect()
    session.assert_failed(PROTOCOL)


def test_settings_that_are_never_acknowledged_c019() -> None:
    session = Session()
    session.feed(PREFACE + S0)
    for number in range(8):
        session.feed(h(2 * number + 1, EH | ES))
        session.loop.advance(5)
    session.collect()
    session.assert_failed(SETTINGS_TIMEOUT)


def test_a_quiet_client_may_take_its_time_to_acknowledge() -> None:
    session = Session()
    session.feed(PREFACE + S0)
    session.loop.advance(60)
    session.assert_alive(FRESH)


def test_a_header_block_that_does_not_end_a009() -> None:
    session = Session()
    session.start()
    session.feed(h(1, 0))
    session.loop.advance(LIMITS.head_timeout_s + 0.1)
    session.collect()
    session.assert_failed(ENHANCE)


def test_a_body_that_stops_a009() -> None:
    session = Session()
    session.start()
    session.feed(h(1) + d(1, b"\0") + h(3, EH, block(b"/hold")) + d(3, flags=ES))
    session.loop.advance(LIMITS.body_progress_timeout_s - 1)
    session.feed(d(1, b"\0"))
    session.loop.advance(LIMITS.body_progress_timeout_s - 1)
    assert session.collect() == []
    session.loop.advance(7)
    assert session.collect() == [Frame(RST, 0, 1, CANCEL.to_bytes(4, "big"))]
    session.application.held[0].respond(*REPLY)
    session.assert_alive(FRESH)
    session.assert_clean()


def test_an_idle_connection_is_closed_k007() -> None:
    session = Session()
    session.start()
    session.feed(h(1, EH | ES))
    for _ in range(int(LIMITS.idle_timeout_s) // 10 + 1):
        session.loop.advance(10)
        if not session.connection.closing:
            session.feed(ping())  # no sign of life that counts
    session.collect()
    assert goaways(session) == [(1, NO_ERROR, b"")]
    session.assert_failed(NO_ERROR)


def test_a_call_in_progress_is_not_idle() -> None:
    session = Session()
    session.start()
    session.feed(h(1, EH | ES, block(b"/hold")))
    session.loop.advance(LIMITS.idle_timeout_s * 3)
    assert not session.connection.closing
    session.application.held[0].respond(*REPLY)
    session.loop.turn()
    session.loop.advance(LIMITS.idle_timeout_s + 6)
    session.collect()
    assert goaways(session) == [(1, NO_ERROR, b"")]


@pytest.mark.parametrize("answered", [True, False], ids=["PING answered", "PING lost"])
@pytest.mark.parametrize("running", [0, 3])
def test_drain_in_two_phases_k003_k004(running: int, answered: bool) -> None:
    session = Session()
    session.start()
    hold = block(b"/hold")
    for number in range(running):
        session.feed(h(2 * number + 1, EH | ES, hold))
    session.connection.drain()
    session.connection.drain()
    session.loop.turn()
    frames = session.collect()
    assert goaways(session) == [(2**31 - 1, NO_ERROR, b"graceful_stop")]
    racing = 2 * running + 1
    session.feed(h(racing, EH | ES, hold))
    if answered:
        session.feed(ping(b"whatever", flags=1))
        assert len(goaways(session)) == 1
        (question,) = [frame for frame in frames if frame.kind == PING]
        session.feed(ping(question.payload, flags=1))
    else:
        session.loop.advance(LIMITS.drain_ping_timeout_s + 0.1)
        session.collect()
    assert goaways(session)[1:] == [(racing, NO_ERROR, b"")]
    session.feed(h(racing + 2) + d(racing + 2) + rst(racing + 4) + d(racing + 2, flags=ES))
    assert not session.connection.closing
    for exchange in session.application.held:
        assert not exchange.cancelled
        exchange.respond(*REPLY)
    session.loop.turn()
    session.collect()
    assert len(list(session.replies())) == running + 1
    assert session.transport.has_ended()
    assert session.frames[-1].kind == HEADERS
    session.assert_clean()
    session.loop.advance(LIMITS.linger_s + 0.1)
    assert session.closed == [session.connection]


def test_drain_before_the_preface_is_short() -> None:
    session = Session()
    session.connection.drain()
    session.collect()
    session.assert_failed(NO_ERROR)


def test_the_table_stays_in_step_above_the_final_goaway() -> None:
    session = Session()
    session.start()
    session.feed(h(1, EH | ES, block(b"/hold")))
    session.connection.drain()
    session.loop.advance(LIMITS.drain_ping_timeout_s + 0.1)
    session.collect()
    assert session.feed(h(3, EH, b"\x40\x01a\x01b")) == []
    assert session.connection.blocks.decoder.table == [(b"a", b"b")]


def test_abort_cancels_and_reports() -> None:
    session = Session()
    session.start()
    session.feed(h(1, EH | ES, block(b"/hold")))
    session.connection.abort()
    session.loop.turn()
    assert session.closed == [session.connection]
    assert session.application.cancelled == session.application.held
    assert session.connection.active == 1
    session.application.held[0].respond(*REPLY)
    session.assert_clean()
    assert session.loop.armed == 0
    assert session.collect() == []


def test_pings_of_an_idle_client_k001() -> None:
    session = Session()
    session.start()
    for _ in range(3):
        assert [frame.kind for frame in session.feed(ping())] == [PING]
        session.loop.advance(1)
    session.feed(ping())
    assert goaways(session) == [(0, ENHANCE, b"too_many_pings")]
    session.assert_failed(ENHANCE)
    assert session.events == ["ping_strikes"]


def test_pings_that_measure_are_no_strikes_k002() -> None:
    session = Session()
    session.start()
    for number in range(50):
        session.feed(h(2 * number + 1, EH | ES))
        assert [frame.kind for frame in session.feed(ping())] == [PING]
    session.feed(h(101, EH | ES, block(b"/hold")))
    for _ in range(5):
        session.feed(ping())
        session.application.held[-1].respond(*REPLY)
        session.loop.turn()
        session.feed(h(session.connection._ids.highest + 2, EH | ES, block(b"/hold")))
    assert not session.connection.closing


def test_an_old_connection_is_drained_then_cut_k005() -> None:
    session = Session(Limits(max_connection_age_s=100, max_connection_age_grace_s=30))
    session.start()
    session.feed(h(1, EH | ES, block(b"/hold")))
    session.loop.advance(89)
    assert goaways(session) == []
    session.loop.advance(27)
    session.collect()
    assert goaways(session) == [(2**31 - 1, NO_ERROR, b"max_age"), (1, NO_ERROR, b"")]
    assert not session.connection.closing
    for _ in range(30):
        if not session.connection.closing:
            session.loop.advance(1)
    session.collect()
    assert goaways(session)[2:] == [(1, NO_ERROR, b"max_age")]
    assert session.application.cancelled == session.application.held
    session.assert_failed(NO_ERROR)


@pytest.mark.parametrize("answers", [True, False])
def test_a_silent_client_is_asked_k006(answers: bool) -> None:
    session = Session(Limits(keepalive_interval_s=60, keepalive_timeout_s=20))
    session.start()
    session.feed(h(1, EH | ES, block(b"/hold")))
    session.loop.advance(66)
    (question,) = session.collect()
    assert (question.kind, question.flags) == (PING, 0)
    if answers:
        session.feed(ping(question.payload, flags=1))
    session.loop.advance(26)
    assert session.transport.is_closing() != answers
    assert ("keepalive_timeout" in session.events) != answers


def test_a_short_age_is_kept_as_exactly_as_a_long_one_k005() -> None:
    session = Session(Limits(max_connection_age_s=1, max_connection_age_grace_s=1))
    session.start()
    session.feed(h(1, EH | ES, block(b"/hold")))
    session.loop.advance(0.89)
    assert session.collect() == []
    session.loop.advance(0.22)
    session.collect()
    assert goaways(session) == [(2**31 - 1, NO_ERROR, b"max_age")]
    session.loop.advance(1.01)
    session.collect()
    assert goaways(session)[1:] == [(1, NO_ERROR, b"max_age")]
    session.assert_failed(NO_ERROR)

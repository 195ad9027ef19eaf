"""Floods at full speed against one connection, and the legal extremes beside them. The clock is the test's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.transport.http2.harness import (
    CONT,
    EH,
    ENHANCE,
    ES,
    FRAME_SIZE,
    FRESH,
    GOAWAY,
    PAD,
    PING,
    PRIORITY,
    PROTOCOL,
    REPLY,
    RST,
    STREAM_CLOSED,
    Session,
    block,
    d,
    h,
    ping,
    raw,
    rst,
    settings,
    wu,
)

from servable.transport.limits import KIB, MIB, Limits, Rate, Rates

RATES = Rates()
HOLD = block(b"/hold")


def odd() -> Iterator[int]:
    return iter(range(1, 2**31, 2))


def flood(session: Session, frame: Callable[[int], bytes], most: int) -> int:
    """Send ``frame(1)``, ``frame(3)``, ... until the connection ends; return how many it took."""
    for count, stream in enumerate(odd()):
        if session.connection.closing:
            return count
        assert count <= most, f"{most} frames, and the connection is still there"
        session.feed(frame(stream))
    raise AssertionError


def ended_for(session: Session, event: str, code: int = ENHANCE) -> None:
    session.assert_failed(code)
    assert session.events[-1] == event or event in session.events


def test_rapid_reset_a001() -> None:
    session = Session()
    session.start()
    taken = flood(session, lambda stream: h(stream, EH | ES, HOLD) + rst(stream), 20_000)
    assert taken == RATES.resets_received.burst + 1
    ended_for(session, "rapid_reset")
    assert len(session.application.calls) <= session.limits.max_concurrent_streams


def test_rapid_reset_in_one_write_a001() -> None:
    session = Session()
    session.start()
    session.feed(b"".join(h(stream, EH | ES, HOLD) + rst(stream) for stream in range(1, 40_001, 2)))
    session.loop.turn()
    session.collect()
    ended_for(session, "rapid_reset")
    assert len(session.application.calls) <= session.limits.max_concurrent_streams


@pytest.mark.parametrize(
    ("primitive", "code", "most"),
    [
        (lambda stream: wu(stream, 0), PROTOCOL, 1),
        (lambda stream: wu(stream, 2**31 - 1), ENHANCE, 101),
        (lambda stream: raw(PRIORITY, 0, stream, bytes(4)), FRAME_SIZE, 1),
        (lambda stream: raw(PRIORITY, 0, stream, stream.to_bytes(4, "big") + b"\0"), PROTOCOL, 1),
        (lambda stream: h(stream, EH | ES, HOLD), STREAM_CLOSED, 1),
        (lambda stream: d(stream), STREAM_CLOSED, 1),
    ],
    ids=["WINDOW_UPDATE 0", "overflow", "PRIORITY length", "own parent", "HEADERS after end", "DATA after end"],
)
def test_made_you_reset_a002(primitive: Callable[[int], bytes], code: int, most: int) -> None:
    session = Session()
    session.start()
    taken = flood(session, lambda stream: h(stream, EH | ES, HOLD) + primitive(stream), 5000)
    assert taken <= most
    session.assert_failed(code)
    assert session.connection.active <= session.limits.max_concurrent_streams


@pytest.mark.parametrize("fragment", [b"", b"\0"], ids=["empty", "tiny"])
def test_continuations_a003(fragment: bytes) -> None:
    session = Session()
    session.start()
    session.feed(h(1, 0) + raw(CONT, 0, 1, fragment) * 20_000)
    ended_for(session, "continuation_flood")


def test_header_blocks_that_begin_with_nothing_a003() -> None:
    session = Session()
    session.start()
    session.feed(b"".join(h(n, ES, b"") + raw(CONT, EH, n, HOLD) for n in range(1, 300, 2)))
    ended_for(session, "empty_data")


def test_pings_a004() -> None:
    session = Session(Limits(max_ping_strikes=0))
    session.start()
    session.feed(ping() * 20_000)
    assert sum(frame.kind == PING for frame in session.frames) <= RATES.pings.burst
    ended_for(session, "ping_flood")


def test_settings_a005() -> None:
    session = Session()
    session.start()
    session.feed(settings() * 20_000)
    ended_for(session, "settings_flood")


@pytest.mark.parametrize("frame", [d(1, b""), d(1, b"\3" + bytes(3), PAD)], ids=["empty", "padding only"])
def test_empty_data_a006(frame: bytes) -> None:
    session = Session()
    session.start()
    session.feed(h(1) + frame * 10)
    assert not session.connection.closing
    session.feed(frame)
    ended_for(session, "empty_data")


def test_empty_data_in_between_a006() -> None:
    session = Session()
    session.start()
    session.feed(h(1) + (d(1, b"") + d(1, bytes(64))) * 100)
    assert not session.connection.closing
    session.feed(d(1, b""))
    ended_for(session, "empty_data")


def test_tiny_data() -> None:
    session = Session()
    session.start()
    session.feed(h(1) + d(1, b"\0") * 10_000)
    assert not session.connection.closing
    session.feed(d(1, b"\0"))
    ended_for(session, "tiny_data")


@pytest.mark.parametrize(
    ("frame", "event", "most"),
    [
        (raw(PRIORITY, 0, 3, bytes(5)), "priority_flood", 201),
        (wu(0, 1), "window_update_flood", 100 + 2 * 11 + 1),
        (raw(0xEE, 0, 0, b"what"), "glitches", 10_001),
        (raw(4, 1, 0), "glitches", 10_001),
        (raw(GOAWAY, 0, 0, bytes(8)), "glitches", 10_001),
    ],
    ids=["PRIORITY", "WINDOW_UPDATE", "unknown", "SETTINGS acknowledged", "GOAWAY"],
)
def test_floods_of_frames_a007(frame: bytes, event: str, most: int) -> None:
    session = Session()
    session.start()
    session.feed(h(1, EH | ES, HOLD))
    session.feed(frame * (most - 1))
    assert not session.connection.closing
    session.feed(frame)
    ended_for(session, event)


def test_a_reply_in_crumbs_a008() -> None:
    session = Session()
    session.start((4, 0))
    session.feed(h(1, EH | ES, block(b"/big/100000")))
    taken = flood(session, lambda _: wu(1, 1), 5000)
    assert taken <= RATES.dribbles.burst + 30
    ended_for(session, "data_dribble")


def test_the_budget_of_the_process_a010() -> None:
    session = Session(Limits(process_body_budget=1 * MIB))
    session.start()
    session.feed(b"".join(h(n) + d(n, bytes(300 * KIB)) for n in (1, 3, 5)))
    assert session.connection.ledger.buffered == 900 * KIB
    (refused,) = [frame for frame in session.feed(h(7) + d(7, bytes(300 * KIB))) if frame.kind == RST]
    assert (refused.stream, refused.payload) == (7, ENHANCE.to_bytes(4, "big"))
    assert "body_budget" in session.events
    assert session.connection.ledger.buffered == 900 * KIB
    session.feed(d(1, flags=ES) + rst(3) + rst(5))
    assert session.connection.ledger.buffered == 0
    session.assert_alive(FRESH)
    session.assert_clean()


def test_malformed_requests_a011() -> None:
    session = Session()
    session.start()
    taken = flood(session, lambda stream: h(stream, EH | ES, block(b"relative")), 5000)
    assert taken == RATES.resets_caused.burst + 1
    ended_for(session, "own_reset")


def test_large_header_blocks_a012() -> None:
    session = Session(Limits(max_header_list=64 * KIB))
    session.start()
    taken = flood(session, lambda n: h(n, EH | ES, block(b"/t.S/M", (b"a", b"%d" % n + bytes(b"z" * 16000)))), 1000)
    assert taken <= 4 * MIB / 15_000
    ended_for(session, "header_bytes")


def test_a_rate_of_requests_may_be_set() -> None:
    session = Session(Limits(rates=Rates(requests=Rate(10, 1))))
    session.start()
    session.feed(b"".join(h(n, EH | ES) for n in range(1, 20, 2)))
    assert not session.connection.closing
    session.feed(h(21, EH | ES) + h(23, EH | ES))
    ended_for(session, "request_rate")


def test_what_honest_clients_do_a013() -> None:
    """A call costs C-core three control frames; it cancels; browsers send PRIORITY; a quiet hour refills everything."""
    session = Session()
    session.start()
    session.feed(b"".join(raw(PRIORITY, 0, n, bytes(4) + b"\1") for n in (3, 5, 7, 9, 11)))
    streams = odd()
    for _ in range(200):
        call = b"".join(
            h(n) + d(n, flags=ES) + wu(0, 5) + wu(n, 5) + ping(n.to_bytes(8, "big"))
            for n in (next(streams) for _ in range(5))
        )
        session.feed(call)
        session.loop.advance(0.1)
    cancelled = 0
    for _ in range(30):
        hold = [next(streams) for _ in range(100)]
        session.feed(b"".join(h(n, EH | ES, HOLD) for n in hold) + b"".join(rst(n) for n in hold))
        for exchange in session.application.held:
            assert exchange.cancelled
            exchange.respond(*REPLY)
        cancelled += len(session.application.held)
        session.application.held.clear()
        session.loop.advance(0.6)
    assert cancelled == 3000
    session.assert_alive(FRESH)
    session.assert_clean()

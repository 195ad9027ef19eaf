"""What a server connection does beyond single rules: slots, cancellation, early replies, caching, fairness, ends."""

from __future__ import annotations

import pytest
from tests.transport.http2.application import EMPTY_MESSAGE
from tests.transport.http2.harness import (
    CANCEL,
    EH,
    ENHANCE,
    ES,
    FRESH,
    GOAWAY,
    HEADERS,
    INTERNAL,
    NO_ERROR,
    PROTOCOL,
    REFUSED,
    REPLY,
    RST,
    STREAM_CLOSED,
    WU,
    Frame,
    Session,
    block,
    d,
    h,
    hpack_plain,
    literal,
    ping,
    raw,
    rst,
    wu,
)
from tests.transport.http2.rows import entry, in_both_ways

from servable.transport.limits import MIB, Limits, Rate, Rates

M, S = (b":method", b"POST"), (b":scheme", b"http")


def test_headers_of_a_stream_above_the_limit_keep_the_table_in_step_s010_h012() -> None:
    session = Session(Limits(max_concurrent_streams=4))
    session.start()
    hold = block(b"/hold")
    session.feed(b"".join(h(stream, EH | ES, hold) for stream in (1, 3, 5, 7)))
    answer = session.feed(h(9, EH | ES, block(b"/t.S/M") + entry(b"x-b", b"table")))
    assert answer == [Frame(RST, 0, 9, REFUSED.to_bytes(4, "big"))]
    session.application.held.pop().respond(*REPLY)
    session.feed(h(11, EH | ES, block(b"/t.S/M") + b"\xbe"))
    assert (b"x-b", b"table") in session.application.calls[-1].exchange.head.fields
    for exchange in session.application.held:
        exchange.respond(*REPLY)
    session.loop.turn()
    session.collect()
    session.assert_alive(FRESH)
    session.assert_clean()


def test_frames_on_their_way_to_a_reset_stream_are_no_offence_s009_w013() -> None:
    session = Session(Limits(connection_window=1 * MIB))
    session.start()
    session.feed(h(1, EH, block(b"/t.S/M", (b"content-length", b"1"))) + d(1, bytes(2)))
    assert session.frames[-1] == Frame(RST, 0, 1, PROTOCOL.to_bytes(4, "big"))
    returned = 0
    for _ in range(200):
        returned += sum(
            int.from_bytes(frame.payload, "big")
            for frame in session.feed(d(1, bytes(16384)))
            if frame.kind == WU and frame.stream == 0
        )
    assert returned >= 200 * 16384 - 1 * MIB // 2
    session.feed(h(1, EH | ES, literal(b"x-t", b"1")) + rst(1) + wu(1, 1))
    session.assert_alive(FRESH)
    session.assert_clean()


def test_a_stream_reset_long_ago_is_forgotten() -> None:
    session = Session(Limits(rates=Rates(resets_caused=Rate(1000, 0))))
    session.start()
    broken = block(b"relative")
    session.feed(b"".join(h(stream, EH, broken) for stream in range(1, 601, 2)))
    session.loop.advance(3)
    session.feed(h(601, EH, broken))
    session.feed(d(599))
    session.feed(d(1))
    session.assert_failed(STREAM_CLOSED)


def test_the_last_stream_id_ends_the_connection_s014() -> None:
    session = Session()
    session.start()
    session.feed(h(1) + d(1, flags=ES) + h(2**31 - 1) + d(2**31 - 1, flags=ES))
    assert [stream for stream, _ in session.replies()] == [1, 2**31 - 1]
    assert session.frames[-1].kind == GOAWAY
    session.assert_failed(NO_ERROR)


@pytest.mark.parametrize("where", ["in a frame", "in a handler"])
def test_end_of_input_cancels_s015(where: str) -> None:
    session = Session()
    session.start()
    session.feed(h(1, EH | ES, block(b"/hold")))
    if where == "in a frame":
        session.feed(h(3)[:20])
    assert session.connection.eof_received() is None
    (exchange,) = session.application.held
    assert session.application.cancelled == [exchange]
    assert exchange.cancelled
    assert session.connection.active == 1, "work is counted until it has really ended"
    exchange.respond(*REPLY)
    assert session.connection.active == 0
    session.transport.abort()
    session.loop.turn()
    session.assert_clean()


@pytest.mark.parametrize("path", [b"/raises", b"/raises/late", b"/unroutable"])
def test_an_exception_of_the_application_ends_that_exchange_alone_g026(
    path: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    session = Session()
    session.start()
    frames = session.feed(h(1, EH | ES, block(path)))
    if path.endswith(b"late"):
        assert list(session.replies()) == [(1, EMPTY_MESSAGE)]
    else:
        assert frames == [Frame(RST, 0, 1, INTERNAL.to_bytes(4, "big"))]
    assert "Traceback" in caplog.text
    session.assert_alive(FRESH)
    session.assert_clean()


def test_the_meaning_of_an_index_follows_the_table_h010_h011() -> None:
    session = Session()
    session.start()
    first = block(b"/t.S/M")
    session.feed(h(1, EH | ES, first + entry(b"x-v", b"one")))
    indexed = first + b"\xbe"
    seen = []
    for stream in range(3, 203, 2):
        session.feed(h(stream, EH | ES, indexed))
        seen.append(session.application.calls[-1].exchange.head.get(b"x-v"))
    assert set(seen) == {b"one"}
    assert session.application.routed == 2, "a block that is known is not routed again"
    session.feed(h(203, EH | ES, first + entry(b"x-v", b"two")))
    session.feed(h(205, EH | ES, indexed))
    assert session.application.calls[-1].exchange.head.get(b"x-v") == b"two"
    session.feed(h(207, EH | ES, first + entry(b"y", b"z") + b"\xbf"))
    assert session.application.calls[-1].exchange.head.get(b"x-v") == b"two"
    session.feed(h(209, EH | ES, indexed))
    assert session.application.calls[-1].exchange.head.get(b"x-v") is None
    session.assert_clean()


@in_both_ways
def test_a_head_too_large_gets_431_h016(byte_by_byte: bool) -> None:
    session = Session()
    session.start()
    session.byte_by_byte = byte_by_byte
    many = [(b"x-%d" % number, b"v" * 40) for number in range(300)]
    frames = session.feed(h(1, EH | ES, block(b"/t.S/M", *many)))
    assert session.fields(frames[0])[0] == (b":status", b"431")
    frames = session.feed(h(3, EH | ES, hpack_plain([M, S, (b":path", b"/" + b"x" * 20000)])))
    assert session.fields(frames[0])[0] == (b":status", b"431")
    assert session.application.calls == []
    session.assert_alive(FRESH)
    session.assert_clean()


def test_a_client_that_still_sends_behind_a_head_too_large_is_told_to_stop() -> None:
    session = Session()
    session.start()
    frames = session.feed(h(1, EH, block(b"/t.S/M", (b"x", b"v" * 20000))))
    assert frames[-1] == Frame(RST, 0, 1, NO_ERROR.to_bytes(4, "big"))
    session.feed(d(1, bytes(1000), ES))
    session.assert_alive(FRESH)
    session.assert_clean()


def test_a_reply_before_the_end_of_the_request_stops_the_upload_in_the_same_write_g022() -> None:
    session = Session()
    session.start()
    session.transport.writes.clear()
    session.connection.data_received(h(1, EH, block(b"/early")))
    (written,) = session.transport.writes
    session.feed(b"")
    assert [(frame.kind, frame.flags) for frame in session.frames[-2:]] == [(HEADERS, EH | ES), (RST, 0)]
    assert written.endswith(rst(1, NO_ERROR))
    session.feed(d(1, bytes(20000)) + d(1, flags=ES))
    session.assert_alive(FRESH)
    session.assert_clean()


def test_no_reset_if_the_rest_of_the_request_was_there_already() -> None:
    session = Session()
    session.start()
    frames = session.feed(h(1, EH, block(b"/early")) + d(1) + d(1, flags=ES))
    assert [frame.kind for frame in frames] == [HEADERS]
    session.assert_clean()


def test_cancelled_work_writes_nothing_and_keeps_its_slot_g021() -> None:
    session = Session()
    session.start()
    session.feed(h(1, EH | ES, block(b"/hold")) + rst(1))
    (exchange,) = session.application.held
    assert exchange.cancelled
    assert session.application.cancelled == [exchange]
    assert session.connection.active == 1
    exchange.respond(*REPLY)
    session.loop.turn()
    assert session.collect() == []
    session.assert_alive(FRESH)
    session.assert_clean()


def test_an_exchange_is_answered_once() -> None:
    session = Session()
    session.start()
    session.feed(h(1, EH | ES, block(b"/hold")))
    (exchange,) = session.application.held
    exchange.respond(*REPLY)
    with pytest.raises(RuntimeError, match="once"):
        exchange.respond(*REPLY)
    session.loop.turn()
    session.assert_clean()


def test_resetting_streams_buys_no_more_work_than_the_slots() -> None:
    session = Session(Limits(max_concurrent_streams=4))
    session.start()
    hold = block(b"/hold")
    for stream in range(1, 2001, 2):
        session.feed(h(stream, EH | ES, hold) + rst(stream))
    assert len(session.application.held) == 4
    session.feed(h(2001, EH | ES))
    assert session.connection.active == 4
    assert list(session.replies()) == []
    session.application.held[0].respond(*REPLY)
    session.loop.turn()
    session.collect()
    assert list(session.replies()) == [(2001, EMPTY_MESSAGE)]
    for exchange in session.application.held[1:]:
        exchange.respond(*REPLY)
    session.assert_clean()


def test_requests_that_wait_are_started_in_order_without_deep_recursion() -> None:
    session = Session(Limits(max_concurrent_streams=2000))
    session.start()
    session.connection.work._slots = 1
    session.feed(h(1, EH | ES, block(b"/hold")))
    for stream in range(3, 3003, 2):
        session.feed(h(stream, EH | ES))
    session.application.held[0].respond(*REPLY)
    session.loop.turn()
    session.collect()
    assert [stream for stream, _ in session.replies()] == list(range(1, 3003, 2))
    session.assert_clean()


def test_one_connection_may_not_starve_the_loop() -> None:
    session = Session(Limits(requests_per_turn=10))
    session.start()
    session.connection.data_received(b"".join(h(stream) + d(stream, flags=ES) for stream in range(1, 101, 2)))
    assert len(session.application.calls) == 10
    assert not session.transport.is_reading()
    session.connection.data_received(h(101))
    session.loop.turn()
    session.connection.data_received(d(101, flags=ES))
    session.collect()
    assert [stream for stream, _ in session.replies()] == list(range(1, 103, 2))
    assert session.transport.is_reading()
    session.assert_clean()


def test_long_heads_take_the_place_of_several_requests() -> None:
    session = Session(Limits(requests_per_turn=10))
    session.start()
    head = block(b"/t.S/M", (b"a", b"b" * 4000))
    session.connection.data_received(b"".join(h(stream, EH | ES, head) for stream in range(1, 21, 2)))
    assert len(session.application.calls) == 3
    session.loop.turn()
    assert len(session.application.calls) == 10
    session.assert_clean()


def test_frames_that_begin_nothing_may_not_starve_the_loop_either() -> None:
    session = Session(Limits(frames_per_turn=10))
    session.start()
    script = h(1) + raw(0xEE, 0, 0, b"what") * 98 + d(1, flags=ES)
    session.connection.data_received(script + h(3)[:20])
    turns = 1
    while not session.transport.is_reading():
        assert len(session.application.calls) == turns // 10
        session.loop.turn_once()
        turns += 1
    assert turns == 11
    session.collect()
    assert [stream for stream, _ in session.replies()] == [1]
    session.feed(h(3)[20:] + d(3, flags=ES))
    assert [stream for stream, _ in session.replies()] == [1, 3]
    session.assert_clean()


def test_a_full_read_is_not_followed_by_another_before_others_had_their_turn() -> None:
    session = Session()
    session.start()
    large = h(1) + d(1, bytes(MIB // 4)) + h(3) + d(3, flags=ES)
    session.connection.data_received(large)
    assert not session.transport.is_reading()
    session.connection.data_received(d(1, flags=ES)[:5])  # what the transport had read already
    session.loop.turn()
    assert session.transport.is_reading()
    session.feed(d(1, flags=ES)[5:])
    assert [stream for stream, _ in session.replies()] == [3, 1]
    session.assert_clean()


def test_a_connection_that_ends_keeps_nothing_of_what_it_was_sent() -> None:
    session = Session(Limits(frames_per_turn=10))
    session.start()
    session.feed(raw(GOAWAY, 0, 0, bytes(8)) * 10_000)
    assert session.connection.closing
    assert session.connection._held == []


def test_control_replies_that_are_not_read_stop_the_reading_and_then_the_connection() -> None:
    session = Session(Limits(max_ping_strikes=0, rates=Rates(pings=Rate(100_000, 0)), frames_per_turn=100_000))
    session.start()
    session.transport.stuck = True
    session.connection.data_received(ping() * 20000)
    session.loop.turn()
    assert session.connection.sender.paused
    session.connection.data_received(ping() * 65)
    assert not session.transport.is_reading()
    session.transport.unstick()
    session.loop.turn()
    assert session.transport.is_reading()
    assert len(session.collect()) == 20065
    session.transport.stuck = True
    session.connection.data_received(ping() * 20000)
    session.connection.data_received(ping() * 1001)
    session.collect()
    session.assert_failed(ENHANCE)


def test_a_defect_of_our_own_ends_the_connection_decently(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session = Session()
    session.start()
    monkeypatch.setattr(type(session.connection), "_ponged", _broken)
    session.feed(ping(flags=1))
    assert "Traceback" in caplog.text
    session.assert_failed(INTERNAL)


def _broken(*_: object) -> None:
    raise ZeroDivisionError


def test_lingering_ends_when_the_peer_sends_too_much() -> None:
    session = Session(Limits(linger_bytes=1000))
    session.start()
    session.feed(d(0))
    assert session.transport.has_ended()
    session.connection.data_received(bytes(1000))
    assert not session.transport.is_closing()
    session.connection.data_received(b"x")
    assert session.transport.is_closing()


CODES = (CANCEL, PROTOCOL)


@pytest.mark.parametrize("code", CODES)
def test_goaway_of_the_client_lets_its_calls_finish_f044(code: int) -> None:
    session = Session()
    session.start()
    session.feed(h(1, EH | ES, block(b"/hold")))
    session.feed(raw(GOAWAY, 0, 0, bytes(4) + code.to_bytes(4, "big") + b"bye\xff"))
    assert not session.transport.has_ended()
    session.application.held[0].respond(*REPLY)
    session.loop.turn()
    session.collect()
    assert list(session.replies()) == [(1, EMPTY_MESSAGE)]
    assert session.transport.has_ended()
    session.assert_clean()

"""Replies that leave in parts: order, windows, back-pressure, cancellation, ends."""

from __future__ import annotations

import itertools

import pytest
from tests.transport.http2.application import GRPC, OK, TEXT, FakeApplication, pattern
from tests.transport.http2.harness import (
    CANCEL,
    DATA,
    EH,
    ES,
    FRESH,
    HEADERS,
    INTERNAL,
    NO_ERROR,
    PING,
    REPLY,
    RST,
    Frame,
    Session,
    block,
    h,
    ping,
    rst,
    settings,
    wu,
)

from servable.transport.exchange import Exchange, PartedReply, RepliesInParts, ReplyHead
from servable.transport.limits import KIB, MIB, Limits

HOLD = block(b"/hold")


def begin(exchange: Exchange, head: ReplyHead = GRPC) -> PartedReply:
    assert isinstance(exchange, RepliesInParts)
    return exchange.begin(head)


def begun(window: int = 65535, flags: int = EH | ES, head: ReplyHead = GRPC) -> tuple[Session, Exchange, PartedReply]:
    session = Session(application=FakeApplication())
    session.start((4, window))
    session.feed(h(1, flags, HOLD) if flags & ES else h(1, flags, block(b"/earlyhold")))
    exchange = session.application.held[0]
    return session, exchange, begin(exchange, head)


def sent(session: Session) -> list[Frame]:
    session.loop.turn()
    return session.collect()


def test_head_and_parts_leave_as_they_are_written() -> None:
    session, _, reply = begun()
    (head,) = sent(session)
    assert (head.kind, head.flags) == (HEADERS, EH)
    assert reply.write(b"one")
    assert reply.write(b"two")
    assert [(f.kind, f.flags, f.payload) for f in sent(session)] == [(DATA, 0, b"one"), (DATA, 0, b"two")]
    session.loop.advance(session.limits.send_stall_timeout_s + session.limits.idle_timeout_s)
    assert not session.connection.closing, "a stream that says nothing is not idle"
    reply.write(b"three")
    reply.finish(OK)
    assert [(f.kind, f.flags) for f in sent(session)] == [(DATA, 0), (HEADERS, EH | ES)]
    session.assert_alive(FRESH)
    session.assert_clean()


def test_a_reply_of_no_parts() -> None:
    session, _, reply = begun()
    reply.write(b"")
    reply.finish(OK)
    assert [(f.kind, f.flags) for f in sent(session)] == [(HEADERS, EH), (HEADERS, EH | ES)]
    session.assert_clean()


def test_a_slow_client_holds_the_producer_and_the_order_is_kept_g027() -> None:
    session, _, reply = begun(window=1000)
    drained: list[int] = []
    reply.on_drained = lambda: drained.append(session.connection.sender.queued)
    parts = (number.to_bytes(4, "big") * 64 for number in itertools.count())
    written = bytearray()
    for _ in range(5):
        for part in parts:
            written += part
            if not reply.write(part):
                break
        assert session.connection.sender.queued <= 1 * MIB + 64 * KIB
        before = len(drained)
        while len(drained) == before:
            session.feed(wu(1, 50_000) + wu(0, 50_000))
    reply.finish(OK)
    while session.connection.streams:
        session.feed(wu(1, 50_000) + wu(0, 50_000))
    assert dict(session.replies())[1] == written
    assert len(written) > 5 * 700 * KIB
    session.assert_clean()


def test_parts_larger_than_a_frame_and_a_socket_that_is_stuck() -> None:
    session, _, reply = begun(window=2**31 - 1)
    session.feed(wu(0, 10 * MIB))
    session.transport.stuck = True
    reply.write(pattern(300_000))
    reply.write(pattern(100_000))
    reply.finish(OK)
    session.loop.turn()
    session.transport.unstick()
    while session.connection.streams:
        session.loop.turn()
    session.collect()
    assert dict(session.replies())[1] == pattern(300_000) + pattern(100_000)
    session.assert_clean()


@pytest.mark.parametrize("window", [0, 65535], ids=["something waits", "nothing waits"])
def test_cancelled_while_it_is_written_g028(window: int) -> None:
    session, exchange, reply = begun(window)
    for _ in range(10):
        reply.write(bytes(1000))
    sent(session)
    session.feed(rst(1))
    assert exchange.cancelled
    assert session.application.cancelled == [exchange]
    assert session.connection.sender.queued == 0
    assert session.connection.active == 1, "the slot is kept until the producer has ended"
    assert reply.write(b"nobody reads this")
    reply.finish(OK)
    assert sent(session) == []
    session.feed(settings((4, 65535)))
    session.assert_alive(FRESH)
    session.assert_clean()


def test_what_is_not_read_for_long_is_reset() -> None:
    session, exchange, reply = begun(window=0)
    reply.write(b"one")
    session.loop.advance(session.limits.send_stall_timeout_s + 6)
    assert session.collect()[-1] == Frame(RST, 0, 1, CANCEL.to_bytes(4, "big"))
    assert exchange.cancelled
    reply.finish(OK)
    session.assert_clean()


def test_an_end_before_the_request_has_ended() -> None:
    session, _, reply = begun(flags=EH)
    reply.write(b"enough")
    reply.finish(OK)
    assert [(f.kind, f.payload) for f in sent(session)][-1] == (RST, NO_ERROR.to_bytes(4, "big"))
    session.assert_clean()


def test_the_window_opens_by_settings() -> None:
    session, _, reply = begun(window=0)
    reply.write(b"one")
    reply.write(b"two")
    reply.finish(OK)
    assert [f.kind for f in sent(session)] == [HEADERS]
    frames = session.feed(settings((4, 100)))
    assert b"".join(f.payload for f in frames if f.kind == DATA) == b"onetwo"
    assert frames[-1].flags == EH | ES or any(f.kind == HEADERS and f.flags == EH | ES for f in frames)
    session.assert_clean()


@pytest.mark.parametrize("size", [10, 60_000])
def test_a_client_that_measures_while_it_receives_is_no_flood_k002(size: int) -> None:
    session, _, reply = begun()
    for _ in range(20):
        reply.write(bytes(size))
        sent(session)
        frames = session.feed(wu(1, size) + wu(0, size) + ping())
        assert frames == [Frame(PING, 1, 0, b"abcdefgh")], "after our data a PING is never one too many"
    reply.finish(OK)
    sent(session)
    session.assert_clean()


def test_an_exchange_is_answered_once() -> None:
    session, exchange, reply = begun()
    with pytest.raises(RuntimeError):
        exchange.respond(*REPLY)
    with pytest.raises(RuntimeError):
        begin(exchange)
    reply.finish(OK)
    for again in (lambda: reply.finish(OK), lambda: reply.write(b"more")):
        with pytest.raises(RuntimeError):
            again()
    assert [f.kind for f in sent(session)] == [HEADERS, HEADERS]
    session.assert_clean()


def test_producers_wait_for_the_whole_connection_too() -> None:
    session = Session(Limits(max_outbound=100_000), application=FakeApplication())
    session.start((4, 0))
    numbers = range(1, 81, 2)
    session.feed(b"".join(h(number, EH | ES, HOLD) for number in numbers))
    replies = [begin(exchange) for exchange in session.application.held]
    drained: list[int] = []
    for number, reply in enumerate(replies):
        reply.on_drained = lambda number=number: drained.append(number)
        while reply.write(bytes(1_000)):
            pass
    assert 100_000 < session.connection.sender.queued < 100_000 + len(replies) * 2_000
    assert drained == []
    session.feed(settings((4, 1_000_000)) + wu(0, 10 * MIB))
    sent(session)
    assert sorted(drained) == list(range(len(replies))), "each is told once"
    for reply in replies:
        reply.finish(OK)
    sent(session)
    session.assert_clean()


@pytest.mark.parametrize("window", [0, 65535], ids=["something waits", "nothing waits"])
def test_a_plain_reply_ends_without_trailers(window: int) -> None:
    session, exchange, reply = begun(window, head=TEXT)
    (head,) = sent(session)
    fields = dict(session.fields(head))
    assert b"date" in fields
    assert b"content-length" not in fields
    reply.write(b"one")
    reply.finish()
    frames = sent(session) + session.feed(settings((4, 65535)))
    assert [(f.kind, f.flags, f.payload) for f in frames if f.stream] == [(DATA, 0, b"one"), (DATA, ES, b"")]
    assert not exchange.cancelled
    session.assert_alive(FRESH)
    session.assert_clean()


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"POST", 204)])
def test_replies_without_a_body_end_with_their_head_p005(method: bytes, status: int) -> None:
    session = Session(application=FakeApplication())
    session.start()
    session.feed(h(1, EH | ES, block(b"/hold", method=method)))
    exchange = session.application.held[0]
    assert isinstance(exchange, RepliesInParts)
    reply = exchange.begin(ReplyHead(status))
    assert reply.write(b"never seen")
    reply.finish()
    assert [(f.kind, f.flags) for f in sent(session)] == [(HEADERS, EH | ES)]
    session.assert_alive(FRESH)
    session.assert_clean()


@pytest.mark.parametrize("window", [0, 65535], ids=["something waits", "nothing waits"])
def test_a_reply_that_fails_is_reset(window: int) -> None:
    session, _, reply = begun(window)
    reply.write(b"one")
    sent(session)
    reply.fail()
    assert sent(session)[-1] == Frame(RST, 0, 1, INTERNAL.to_bytes(4, "big"))
    assert session.application.cancelled == [], "it was the producer that gave up"
    for again in (reply.finish, reply.fail):
        with pytest.raises(RuntimeError):
            again()
    session.feed(settings((4, 65535)))
    session.assert_alive(FRESH)
    session.assert_clean()


def test_the_slots_of_parted_replies_are_counted() -> None:
    session = Session(Limits(max_concurrent_streams=2))
    session.start()
    session.feed(b"".join(h(n, EH | ES, HOLD) for n in (1, 3)))
    replies = [begin(exchange) for exchange in session.application.held]
    session.feed(rst(1) + h(5, EH | ES, HOLD))
    assert len(session.application.held) == 2
    replies[0].finish(OK)
    assert len(session.application.held) == 3
    replies[1].finish(OK)
    session.application.held[2].respond(*REPLY)
    sent(session)
    session.assert_clean()

"""Requests that are taken in parts: order, the stream's window, memory, cancellation, ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.transport.http2.application import GRPC, OK, FakeApplication, pattern
from tests.transport.http2.harness import (
    CANCEL,
    DATA,
    EH,
    ENHANCE,
    ES,
    FLOW_CONTROL,
    FRESH,
    HEADERS,
    INTERNAL,
    NO_ERROR,
    PAD,
    PROTOCOL,
    REPLY,
    RST,
    SETTINGS_ACK,
    WU,
    Frame,
    Session,
    block,
    d,
    h,
    raw,
    rst,
)

from servable.transport.exchange import (
    Exchange,
    PartedBody,
    RepliesInParts,
    RequestHead,
    Route,
    TakesInParts,
)
from servable.transport.limits import KIB, MIB, Limits

UPLOAD = block(b"/upload")


class Upload(Route):
    """Remembers what comes; a greedy one consumes it at once."""

    in_parts = True

    def __init__(self, application: Application, *, greedy: bool) -> None:
        self.application = application
        self.greedy = greedy

    def handle(self, exchange: Exchange, body: bytes) -> None:
        assert body == b""
        assert isinstance(exchange, TakesInParts)
        reader = Reader(exchange, exchange.receive(), greedy=self.greedy)
        self.application.readers.append(reader)
        exchange.on_cancel = lambda: self.application.cancelled.append(exchange)
        reader.body.start(reader)


class Reader:
    def __init__(self, exchange: Exchange, body: PartedBody, *, greedy: bool) -> None:
        self.exchange = exchange
        self.body = body
        self.greedy = greedy
        self.got = bytearray()
        self.ended = False
        self.answer_at = -1

    def data(self, part: bytes) -> None:
        assert not self.ended
        self.got += part
        if part == b"raise":
            raise RuntimeError("a defect")
        if self.greedy:
            self.body.consume(len(part))
        if 0 <= self.answer_at <= len(self.got):
            self.exchange.respond(*REPLY)

    def end(self) -> None:
        assert not self.ended
        self.ended = True

    def gave_up(self) -> bool:
        return self.exchange.cancelled


class Application(FakeApplication):
    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Reader] = []

    def route(self, head: RequestHead) -> Route:
        if head.target in (b"/upload", b"/greedy"):
            return Upload(self, greedy=head.target == b"/greedy")
        return super().route(head)


def readers(session: Session) -> list[Reader]:
    assert isinstance(session.application, Application)
    return session.application.readers


def begun(head: bytes = UPLOAD, limits: Limits | None = None) -> tuple[Session, Reader]:
    session = Session(limits, application=Application())
    session.start()
    session.feed(h(1, EH, head))
    return session, readers(session)[0]


def updates(frames: list[Frame], stream: int = 1) -> int:
    """What the server lets the client send more on a stream."""
    return sum(int.from_bytes(f.payload, "big") for f in frames if f.kind == WU and f.stream == stream)


def sent(session: Session) -> list[Frame]:
    session.loop.turn()
    return session.collect()


def test_the_reader_gets_bytes_as_they_arrive_and_answers_when_it_likes() -> None:
    session, reader = begun()
    session.feed(d(1, b"one"))
    assert bytes(reader.got) == b"one"
    session.feed(d(1, b"two") + d(1, b""))
    session.feed(d(1, b"three", ES))
    assert (bytes(reader.got), reader.ended) == (b"onetwothree", True)
    reader.exchange.respond(*REPLY)
    assert [f.kind for f in sent(session)] == [HEADERS, DATA, HEADERS]
    session.assert_alive(FRESH)
    session.assert_clean()


def test_a_body_that_ends_with_its_head_g030() -> None:
    session = Session(application=Application())
    session.start()
    session.feed(h(1, EH | ES, UPLOAD))
    (reader,) = readers(session)
    assert (bytes(reader.got), reader.ended) == (b"", True)
    reader.exchange.respond(*REPLY)
    sent(session)
    session.assert_clean()


def test_a_body_that_ends_with_trailers() -> None:
    session, reader = begun()
    session.feed(d(1, b"one") + h(1, EH | ES, b"\0\3x-a\1b"))
    assert (bytes(reader.got), reader.ended) == (b"one", True)
    reader.exchange.respond(*REPLY)
    session.assert_alive(FRESH)
    session.assert_clean()


def test_both_directions_at_once() -> None:
    session, reader = begun()
    assert isinstance(reader.exchange, RepliesInParts)
    reply = reader.exchange.begin(GRPC)
    for turn in (b"ping", b"pong", b"ping"):
        session.feed(d(1, turn))
        reply.write(bytes(reader.got[-4:]).upper())
        assert [f.payload for f in sent(session) if f.kind == DATA] == [turn.upper()]
    session.feed(d(1, b"", ES))
    reply.finish(OK)
    assert [f.kind for f in sent(session)] == [HEADERS]
    session.assert_clean()


def test_the_window_follows_the_reader_w018() -> None:
    session, reader = begun(limits=Limits(connection_window=MIB))
    frames = []
    for _ in range(4):
        frames += session.feed(d(1, pattern(256 * KIB)))
    assert len(reader.got) == MIB, "the whole window was used"
    assert updates(frames) == 0, "nothing was consumed"
    assert updates(frames, 0) == MIB, "the connection's window is for everybody"
    session.assert_alive(FRESH)
    assert session.connection.receiver.buffered == session.connection.ledger.buffered == MIB
    reader.body.consume(300 * KIB)
    assert updates(sent(session)) == 300 * KIB, "an empty window opens at once"
    reader.body.consume(300 * KIB)
    assert updates(sent(session)) == 0, "small steps are not worth a frame"
    reader.body.consume(424 * KIB)
    assert updates(sent(session)) == MIB - 300 * KIB
    assert session.connection.receiver.buffered == 0
    for _ in range(4):
        session.feed(d(1, pattern(256 * KIB)))
    assert bytes(reader.got) == 8 * pattern(256 * KIB)
    reader.exchange.respond(*REPLY)
    assert [f for f in sent(session) if f.kind == RST] == [Frame(RST, 0, 1, NO_ERROR.to_bytes(4, "big"))]
    session.assert_clean()


def test_what_exceeds_the_window_resets_the_stream() -> None:
    session, reader = begun()
    frames = session.feed(d(1, bytes(MIB)) + d(1, b"1"))
    assert Frame(RST, 0, 1, FLOW_CONTROL.to_bytes(4, "big")) in frames
    assert reader.gave_up()
    reader.exchange.respond(*REPLY)
    session.assert_alive(FRESH)
    session.assert_clean()


def test_padding_is_given_back_by_itself() -> None:
    session, reader = begun(limits=Limits(initial_window=65_536))
    frames = []
    for _ in range(1000):
        frames += session.feed(raw(DATA, PAD, 1, b"\xff" + b"x" + bytes(255)))
    assert len(reader.got) == 1000
    assert 65_536 + updates(frames) - 257 * 1000 >= 32_768 - 1000
    session.feed(rst(1))
    reader.exchange.respond(*REPLY)
    session.assert_clean()


def test_a_message_beyond_the_window_may_come_when_it_is_needed() -> None:
    session, reader = begun()
    session.feed(d(1, bytes(1000)))
    reader.body.need(5 * MIB)
    assert 4 * MIB <= updates(sent(session)) <= 5 * MIB
    for _ in range(5):
        assert updates(session.feed(d(1, bytes(MIB)))) <= MIB
    assert len(reader.got) == 5 * MIB + 1000
    reader.body.consume(5 * MIB + 1000)
    session.feed(d(1, bytes(MIB), ES))
    reader.exchange.respond(*REPLY)
    sent(session)
    session.assert_clean()


@pytest.mark.parametrize("padding", [0, 200])
def test_a_greedy_reader_never_makes_its_client_wait(padding: int) -> None:
    session, reader = begun(block(b"/greedy"), Limits(initial_window=100_000))
    window = 100_000
    for _ in range(200):
        frame = raw(DATA, PAD, 1, bytes((padding,)) + bytes(9_000) + bytes(padding))
        assert window >= 9_001 + padding, "the client would have to wait"
        window += updates(session.feed(frame)) - 9_001 - padding
    assert len(reader.got) == 200 * 9_000
    reader.exchange.respond(*REPLY)
    sent(session)
    session.assert_clean()


def test_a_small_window_counts_from_the_acknowledgement_on() -> None:
    session = Session(Limits(initial_window=1_000), application=Application())
    session.feed(bytes.fromhex("505249202a20485454502f322e300d0a0d0a534d0d0a0d0a") + raw(4, 0, 0))
    session.feed(h(1, EH, block(b"/greedy")) + d(1, bytes(40_000)))
    assert updates(session.feed(SETTINGS_ACK)) == 40_000
    (reader,) = readers(session)
    reader.exchange.respond(*REPLY)
    sent(session)
    session.assert_clean()


def test_requests_that_wait_for_a_slot_keep_what_came() -> None:
    session = Session(Limits(max_concurrent_streams=1), application=Application())
    session.start()
    session.feed(h(1, EH, block(b"/hold")) + d(1, flags=ES))
    (holder,) = session.application.held
    session.feed(rst(1))
    session.feed(h(3, EH, UPLOAD) + d(3, b"one") + d(3, b"two", ES))
    assert readers(session) == []
    holder.respond(*REPLY)
    (reader,) = readers(session)
    assert (bytes(reader.got), reader.ended) == (b"onetwo", True)
    reader.exchange.respond(*REPLY)
    sent(session)
    session.assert_clean()


def test_cancelled_while_it_waits_for_a_slot() -> None:
    session = Session(Limits(max_concurrent_streams=1), application=Application())
    session.start()
    session.feed(h(1, EH, block(b"/hold")) + d(1, flags=ES) + rst(1))
    session.feed(h(3, EH, UPLOAD) + d(3, b"one") + rst(3))
    session.application.held[0].respond(*REPLY)
    assert readers(session) == []
    session.assert_clean()


@pytest.mark.parametrize("how", ["reset", "lost"])
def test_cancelled(how: str) -> None:
    session, reader = begun()
    session.feed(d(1, bytes(50_000)))
    if how == "reset":
        session.feed(rst(1))
    else:
        session.transport.abort()
        session.loop.turn()
    assert session.application.cancelled == [reader.exchange]
    assert not reader.ended, "what was cut off has not ended"
    assert session.connection.receiver.buffered == session.connection.ledger.buffered == 0
    assert session.connection.active == 1
    reader.body.consume(50_000)
    reader.body.need(10)
    reader.exchange.respond(*REPLY)
    assert session.connection.active == 0
    assert session.connection.ledger.buffered == 0


@pytest.mark.parametrize("end", [False, True], ids=["early", "with its end"])
def test_answered_while_data_arrive_g022(end: bool) -> None:
    session, reader = begun()
    reader.answer_at = 6
    session.feed(d(1, b"one"))
    frames = session.feed(d(1, b"two", ES if end else 0))
    kinds = [f.kind for f in frames]
    assert kinds == [HEADERS, DATA, HEADERS] if end else [HEADERS, DATA, HEADERS, RST]
    if not end:
        assert frames[-1].payload == NO_ERROR.to_bytes(4, "big"), "any other code would cost the status"
        session.feed(d(1, b"three") + d(1, b"", ES))
    assert not reader.ended
    assert bytes(reader.got) == b"onetwo"
    session.assert_alive(FRESH)
    session.assert_clean()


def test_the_body_budget_holds_for_what_is_not_consumed() -> None:
    limits = Limits(body_budget=100_000)
    session, reader = begun(limits=limits)
    frames = session.feed(d(1, bytes(99_000)))
    assert frames == []
    frames = session.feed(d(1, bytes(2_000)))
    assert Frame(RST, 0, 1, ENHANCE.to_bytes(4, "big")) in frames
    assert session.events[-2:] == ["body_budget", "rst_sent_enhance_your_calm"]
    reader.exchange.respond(*REPLY)
    session.assert_alive(FRESH)
    session.assert_clean()
    session, reader = begun(block(b"/greedy"), limits)
    for _ in range(100):
        session.feed(d(1, bytes(2_000)))
    assert len(reader.got) == 200_000
    assert not reader.gave_up()


def test_whoever_owes_a_message_may_not_stop_in_its_middle_a009() -> None:
    session, reader = begun()
    session.loop.advance(1000)
    assert not reader.gave_up(), "a silent stream is not a slow one"
    session.feed(d(1, b"12345"))
    session.loop.advance(1000)
    assert not reader.gave_up(), "the reader asks for nothing"
    session.feed(d(1, b"6"))
    reader.body.need(2)
    session.loop.advance(20)
    session.feed(d(1, b"7"))
    session.loop.advance(20)
    assert not reader.gave_up(), "it moves"
    session.loop.advance(20)
    assert reader.gave_up()
    assert session.collect()[-1] == Frame(RST, 0, 1, CANCEL.to_bytes(4, "big"))
    reader.exchange.respond(*REPLY)
    session.assert_clean()


def test_content_length_holds_for_streams_too() -> None:
    head = block(b"/upload", (b"content-length", b"5"))
    for body, good in ((d(1, b"12345", ES), True), (d(1, b"123456"), False), (d(1, b"1234", ES), False)):
        session, reader = begun(head)
        frames = session.feed(body)
        assert (Frame(RST, 0, 1, PROTOCOL.to_bytes(4, "big")) in frames) is not good
        assert reader.ended is good
        reader.exchange.respond(*REPLY)
        sent(session)
        session.assert_clean()


def test_a_reader_that_fails_costs_its_own_request_only() -> None:
    session, reader = begun()
    frames = session.feed(d(1, b"raise"))
    assert Frame(RST, 0, 1, INTERNAL.to_bytes(4, "big")) in frames
    assert reader.gave_up()
    reader.exchange.respond(*REPLY)
    session.assert_alive(FRESH)
    session.assert_clean()


def test_small_messages_are_normal_and_crumbs_are_not() -> None:
    session, reader = begun(block(b"/greedy"))
    for _ in range(50):
        session.feed(d(1, b"\0\0\0\0\0") * 1_000)
    assert len(reader.got) == 250_000
    reader.exchange.respond(*REPLY)
    session.assert_alive(FRESH)
    limits = Limits()
    rates = replace(limits.rates, tiny_data=replace(limits.rates.tiny_data, burst=100, per_second=1))
    session, reader = begun(block(b"/greedy"), replace(limits, rates=rates))
    session.feed(d(1, b"x") * 101)
    session.assert_failed(ENHANCE)
    assert session.events[-1] == "tiny_data"


def test_a_call_of_many_messages_is_one_for_the_drain() -> None:
    session, reader = begun()
    session.connection.drain()
    sent(session)
    session.feed(raw(6, 1, 0, b"draining"))
    session.feed(d(1, b"still welcome"))
    assert bytes(reader.got) == b"still welcome"
    session.feed(h(3, EH, UPLOAD))
    assert len(readers(session)) == 1
    session.feed(d(1, b"", ES))
    reader.exchange.respond(*REPLY)
    sent(session)
    assert session.transport.has_ended()
    session.assert_clean()


def test_what_is_received_after_the_answer() -> None:
    session, reader = begun()
    reader.exchange.respond(*REPLY)
    assert isinstance(reader.exchange, TakesInParts)
    with pytest.raises(RuntimeError):
        reader.exchange.receive()
    reader.body.consume(1)
    reader.body.need(1_000_000_000)
    sent(session)
    session.assert_clean()

"""Our own windows: credit comes in time, rarely and exactly, and bodies stay within their limits."""

from __future__ import annotations

import pytest
from tests.transport.http2.application import EMPTY_MESSAGE, GRPC, OK, pattern
from tests.transport.http2.harness import (
    DATA,
    EH,
    ENHANCE,
    ES,
    FLOW_CONTROL,
    FRESH,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    PAD,
    REPLY,
    RST,
    WU,
    Frame,
    Session,
    block,
    d,
    h,
    hpack_plain,
    settings,
    wu,
)

from servable.transport.limits import KIB, MIB, Limits

WINDOW = 4


def credit_given(frames: list[Frame], stream: int) -> list[int]:
    return [int.from_bytes(frame.payload, "big") for frame in frames if frame.kind == WU and frame.stream == stream]


class Uploader:
    """Sends bodies as fast as the server's credit allows, and counts it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.connection = 65535
        self.initial = session.limits.initial_window
        self.streams: dict[int, int] = {}
        self.updates: list[Frame] = []
        self.take(session.frames)

    def take(self, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.kind == WU:
                self.updates.append(frame)
                amount = int.from_bytes(frame.payload, "big")
                if frame.stream:
                    self.streams[frame.stream] = self.streams.get(frame.stream, 0) + amount
                else:
                    self.connection += amount

    def send(self, stream: int, body: bytes, piece: int = 16384) -> None:
        """Send everything; fail if the server lets the upload starve."""
        self.streams.setdefault(stream, 0)
        position = 0
        while position < len(body):
            size = min(piece, len(body) - position, self.connection, self.streams[stream] + self.initial)
            assert size > 0, "the upload is stuck"
            self.connection -= size
            self.streams[stream] -= size
            position += size
            last = ES if position == len(body) else 0
            self.take(self.session.feed(d(stream, body[position - size : position], last)))


@pytest.mark.parametrize("window", [1, 100, 65535, MIB])
@pytest.mark.parametrize("path", [b"/echo", b"/measured", b"/small"])
def test_uploads_complete_whatever_the_window(window: int, path: bytes) -> None:
    session = Session(Limits(initial_window=window))
    session.start((WINDOW, MIB))
    session.feed(wu(0, 4 * MIB))
    size = 90 if path == b"/small" else 2000 if window == 1 else 300_000
    body = b"\0" + size.to_bytes(4, "big") + pattern(size)
    session.feed(h(1, EH, block(path)))
    Uploader(session).send(1, body)
    assert list(session.replies()) == [(1, body)]
    session.assert_clean()


def test_a_small_window_binds_only_after_the_settings_are_acknowledged() -> None:
    session = Session(Limits(initial_window=10))
    session.connection.data_received(bytes.fromhex("505249202a20485454502f322e300d0a0d0a534d0d0a0d0a"))
    session.feed(settings())
    session.feed(h(1, EH, block(b"/echo")) + d(1, bytes(1000)))
    frames = session.feed(settings()[:3] + b"\x04\x01" + bytes(4))
    assert credit_given(frames, 1) == [1000], "a client that has sent before it knew is brought back to its window"
    session.feed(d(1, bytes(10), ES))
    assert list(session.replies()) == [(1, bytes(1010))]
    session.assert_clean()


def test_a_stream_that_ignores_its_window_is_reset_w009() -> None:
    session = Session(Limits(initial_window=65535))
    session.start()
    frames = session.feed(h(1, EH, block(b"/echo")) + d(1, bytes(65536)))
    assert frames == [Frame(RST, 0, 1, FLOW_CONTROL.to_bytes(4, "big"))]
    session.assert_alive(FRESH)
    session.assert_clean()


def test_a_connection_that_ignores_its_window_is_ended_w010() -> None:
    session = Session(Limits(connection_window=65535))
    session.start()
    heads = b"".join(h(stream, EH, block(b"/echo")) for stream in range(1, 11, 2))
    session.connection.data_received(heads + b"".join(d(stream, bytes(16384)) for stream in range(1, 11, 2)))
    session.collect()
    session.assert_failed(FLOW_CONTROL)
    session.assert_clean()


def test_the_connection_window_is_returned_rarely_and_exactly_w011() -> None:
    session = Session()
    session.start()
    uploader = Uploader(session)
    calls = 64
    for number in range(calls):
        stream = 2 * number + 1
        session.feed(h(stream))
        uploader.send(stream, bytes(MIB), piece=128 * KIB)
    total = calls * MIB
    returned = sum(credit_given(uploader.updates, 0)) - (session.limits.connection_window - 65535)
    assert returned + session.connection.receiver.unreturned == total
    assert len(credit_given(uploader.updates, 0)) <= total // (session.limits.connection_window // 8) + 2
    assert len([frame for frame in uploader.updates if frame.stream]) <= calls
    session.assert_clean()


def test_calls_that_arrive_whole_count_too() -> None:
    session = Session()
    session.start()
    session.feed(h(1) + d(1, flags=ES))
    session.feed(b"".join(h(stream) + d(stream, bytes(1000), ES) for stream in range(3, 103, 2)))
    assert len(list(session.replies())) == 51
    assert session.connection.receiver.unreturned == 5 + 50 * 1000


@pytest.mark.parametrize("size", [4, 5, 6])
def test_a_known_head_does_not_excuse_the_length_of_a_body(size: int) -> None:
    session = Session()
    session.start()
    known = block(b"/t.S/M", (b"content-length", b"5"))
    session.feed(h(1, EH, known) + d(1, flags=ES))
    frames = session.feed(h(3, EH, known) + d(3, bytes(size), ES))
    assert [frame.kind for frame in frames] == ([HEADERS, DATA, HEADERS] if size == 5 else [RST])
    session.assert_clean()


def test_a_large_message_gets_its_credit_in_one_step_w012() -> None:
    session = Session(Limits(max_body=64 * MIB))
    session.start((WINDOW, 2**30))
    session.feed(wu(0, 2**30))
    size = 3 * MIB
    body = b"\0" + size.to_bytes(4, "big") + pattern(size)
    session.feed(h(1, EH, block(b"/measured")))
    uploader = Uploader(session)
    uploader.send(1, body, piece=128 * KIB)
    assert len([frame for frame in uploader.updates if frame.stream == 1]) == 1
    assert session.application.calls[-1].body == body
    session.assert_clean()


def test_a_declared_length_gets_its_credit_in_one_step() -> None:
    session = Session()
    session.start()
    frames = session.feed(h(1, EH, block(b"/t.S/M", (b"content-length", b"%d" % (5 * MIB)))))
    assert credit_given(frames, 1) == [4 * MIB]
    uploader = Uploader(session)
    uploader.send(1, bytes(5 * MIB), piece=MIB)
    assert credit_given(uploader.updates, 1) == [4 * MIB]
    session.assert_clean()


def test_padding_counts_for_both_windows_f012() -> None:
    session = Session()
    session.start()
    session.feed(h(1) + d(1, b"\x05" + bytes(5 + 5), PAD))
    assert session.connection.receiver.unreturned == 11
    incoming = session.connection.streams[1].incoming
    assert incoming is not None
    assert (incoming.size, incoming.flow) == (5, 11)
    session.feed(d(1, flags=ES))
    session.assert_clean()


@pytest.mark.parametrize("with_length", [False, True])
@pytest.mark.parametrize("at_once", [False, True])
def test_a_body_above_the_limit_of_its_route(with_length: bool, at_once: bool) -> None:
    session = Session()
    session.start()
    extra = ((b"content-length", b"101"),) if with_length else ()
    frames = session.feed(h(1, EH, block(b"/small", *extra)) + (d(1, bytes(101), ES) if at_once else b""))
    if not at_once:
        frames += session.feed(d(1, bytes(60)))
        frames += session.feed(d(1, bytes(41), ES))
    assert session.fields(frames[0])[0] == (b":status", b"413")
    assert session.application.calls == []
    assert [frame.kind for frame in frames if frame.kind == RST] == ([] if at_once or not with_length else [RST])
    session.assert_alive(FRESH)
    session.assert_clean()


@pytest.mark.parametrize("declared", [(), ((b"content-length", b"100"),)], ids=["", "declared"])
def test_a_route_may_refuse_a_length_g012(declared: tuple[tuple[bytes, bytes], ...]) -> None:
    session = Session()
    session.start()
    frames = session.feed(h(1, EH, block(b"/measured", *declared)) + d(1, b"\0\xff\xff\xff\xffxx"))
    assert [frame.kind for frame in frames] == [HEADERS, RST]
    assert frames[1] == Frame(RST, 0, 1, NO_ERROR.to_bytes(4, "big"))
    frames = session.feed(h(3, EH, block(b"/measured")) + d(3, b"\0\x10\0\0\0xx"))
    assert session.fields(frames[0])[0] == (b":status", b"413")
    session.assert_alive(FRESH)
    session.assert_clean()


def test_bodies_may_not_fill_memory_a010() -> None:
    session = Session(Limits(body_budget=MIB, initial_window=MIB))
    session.start()
    upload = b"".join(h(stream, EH, block(b"/echo")) + d(stream, bytes(256 * KIB)) for stream in range(1, 13, 2))
    frames = session.feed(upload)
    refused = [frame for frame in frames if frame.kind == RST]
    assert refused == [Frame(RST, 0, stream, ENHANCE.to_bytes(4, "big")) for stream in (9, 11)]
    session.feed(b"".join(d(stream, b"", ES) for stream in (1, 3, 5, 7)))
    assert len(session.application.calls) == 4
    session.feed(settings((WINDOW, MIB)) + wu(0, 2 * MIB))
    session.assert_alive(FRESH)
    session.assert_clean()


def test_discarded_bytes_return_to_the_connection() -> None:
    session = Session(Limits(connection_window=MIB))
    session.start()
    session.feed(h(1, EH, block(b"/earlyhold")))
    returned = 0
    for _ in range(100):
        returned += sum(credit_given(session.feed(d(1, bytes(64 * KIB))), 0))
    assert returned + session.connection.receiver.unreturned == 100 * 64 * KIB
    session.application.held[0].respond(*REPLY)
    session.loop.turn()
    assert session.collect()[-1] == Frame(RST, 0, 1, NO_ERROR.to_bytes(4, "big"))
    session.assert_alive(FRESH)
    session.assert_clean()


@pytest.mark.parametrize("end", [False, True])
def test_a_reply_that_waits_for_window_while_the_client_still_sends(end: bool) -> None:
    session = Session()
    session.start((WINDOW, 10))
    session.feed(h(1, EH, block(b"/earlyhold")))
    session.application.held[0].respond(GRPC, pattern(30), OK)
    session.loop.turn()
    if end:
        session.feed(d(1, EMPTY_MESSAGE, ES))
    session.collect()
    frames = session.feed(wu(1, 100))
    assert [frame.kind for frame in frames] == [DATA, HEADERS] + ([] if end else [RST])
    assert not [frame for frame in session.frames if frame.kind == GOAWAY]
    session.assert_alive(FRESH)
    session.assert_clean()


def test_split_prefix_and_message_g002_g003() -> None:
    session = Session()
    session.start()
    session.feed(h(1, EH, block(b"/measured")))
    message = b"\0\0\0\0\x03abc"
    session.feed(b"".join(d(1, message[at : at + 1]) for at in range(8)) + d(1, b"", ES))
    assert session.application.calls[-1].body == message
    session.feed(h(3, EH | ES, hpack_plain([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/echo")])))
    assert session.application.calls[-1].body == b"", "an empty body is complete at once"
    session.assert_clean()

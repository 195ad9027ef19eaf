"""Flow control in both directions: what the windows allow is sent, nothing more, and all of it in the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.transport.http2.application import EMPTY_MESSAGE, GRPC, OK, pattern
from tests.transport.http2.harness import (
    CANCEL,
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
    ping,
    rst,
    settings,
    wu,
)

from servable.transport.exchange import ReplyHead, Trailers
from servable.transport.limits import KIB, MIB, Limits

WINDOW, MAX_FRAME = 4, 5


def get(stream: int, size: int) -> bytes:
    return h(stream, EH | ES, block(b"/big/%d" % size))


def sizes(frames: list[Frame], stream: int = 1) -> list[int]:
    return [len(frame.payload) for frame in frames if frame.kind == DATA and frame.stream == stream]


def credit_given(frames: list[Frame], stream: int) -> list[int]:
    return [int.from_bytes(frame.payload, "big") for frame in frames if frame.kind == WU and frame.stream == stream]


# --- what we send


def test_a_window_of_one_w001_f036() -> None:
    session = Session()
    session.start((WINDOW, 100), (WINDOW, 1))
    assert sizes(session.feed(get(1, 100))) == [1]
    for number in range(99):
        frames = session.feed(wu(1, 1))
        assert sizes(frames) == [1]
        assert (frames[-1].kind == HEADERS) == (number == 98), "trailers follow the last octet, and only that"
    assert list(session.replies()) == [(1, pattern(100))]
    session.assert_clean()


def test_a_window_of_zero_holds_back_data_alone_w002() -> None:
    session = Session()
    session.start((WINDOW, 0))
    assert [frame.kind for frame in session.feed(get(1, 100))] == [HEADERS]
    assert sizes(session.feed(settings((WINDOW, 10)))) == [10]
    session.feed(h(3, EH | ES, block(b"/empty")))
    assert [stream for stream, _ in session.replies()] == [3], "no body needs no window"
    session.feed(rst(1))
    session.assert_clean()


def test_a_window_may_become_negative_w003() -> None:
    session = Session()
    session.start((WINDOW, 3))
    assert sizes(session.feed(get(1, 100))) == [3]
    assert sizes(session.feed(settings((WINDOW, 2)))) == []
    assert sizes(session.feed(wu(1, 1))) == []
    assert sizes(session.feed(wu(1, 1))) == [1]
    session.feed(rst(1))
    session.assert_clean()


def test_settings_may_not_overflow_a_window_w004() -> None:
    session = Session()
    session.start()
    session.feed(get(1, 100_000) + wu(1, 2**31 - 1 - 65535))
    session.feed(settings((WINDOW, 2**31 - 1)))
    session.assert_failed(FLOW_CONTROL)


def test_headers_pass_an_exhausted_connection_w005() -> None:
    session = Session()
    session.start((WINDOW, MIB))
    assert sum(sizes(session.feed(get(1, 200_000)))) == 65535
    frames = session.feed(get(3, 10))
    assert [(frame.kind, frame.stream) for frame in frames] == [(HEADERS, 3)]
    frames = session.feed(wu(0, 10))
    assert [(frame.kind, frame.stream) for frame in frames] == [(DATA, 3), (HEADERS, 3)], "a small reply overtakes"
    session.feed(wu(0, MIB))
    assert dict(session.replies()) == {1: pattern(200_000), 3: pattern(10)}
    session.assert_clean()


def test_large_replies_take_turns_w006() -> None:
    session = Session()
    session.start((WINDOW, 2**30))
    size = MIB
    streams = range(1, 17, 2)
    session.feed(b"".join(get(stream, size) for stream in streams))
    sent = dict.fromkeys(streams, 0)

    def count(frames: list[Frame]) -> None:
        for frame in frames:
            if frame.kind == DATA and frame.stream in sent:
                sent[frame.stream] += len(frame.payload)

    count(session.frames)
    for turn in range(100):
        count(session.feed(wu(0, 64 * KIB)))
        unfinished = [amount for amount in sent.values() if amount < size]
        assert not unfinished or max(sent.values()) - min(sent.values()) <= 128 * KIB
        if turn == 50:
            before = sum(sent.values())
            session.feed(get(101, 100))
            count(session.feed(wu(0, 64 * KIB)))
            assert 101 in dict(session.replies())
            assert sum(sent.values()) - before <= 128 * KIB
    session.feed(wu(0, 8 * MIB))
    assert dict(session.replies()) == {**dict.fromkeys(streams, pattern(size)), 101: pattern(100)}
    session.assert_clean()


def test_frames_never_exceed_what_the_peer_takes_w007_w008() -> None:
    session = Session()
    session.start((WINDOW, 40_000))
    assert sizes(session.feed(get(1, 200_000))) == [16384, 16384, 40_000 - 2 * 16384]
    frames = session.feed(settings((MAX_FRAME, MIB)) + wu(0, MIB) + wu(1, 100_000))
    assert max(sizes(frames)) > 16384
    session.feed(wu(1, 100_000))
    assert list(session.replies()) == [(1, pattern(200_000))]
    session.assert_clean()


@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 65535, 65536, 300_000])
@pytest.mark.parametrize("path", [b"/big/%d", b"/plainbig/%d"])
def test_replies_of_any_size_end_once(size: int, path: bytes) -> None:
    session = Session()
    session.start()
    session.feed(h(1, EH | ES, block(path % size)))
    while not list(session.replies()):
        assert session.feed(wu(0, 30_000) + wu(1, 30_000))
    assert list(session.replies()) == [(1, pattern(size))]
    ends = [frame.kind for frame in session.frames if frame.flags & ES and frame.kind in (DATA, HEADERS)]
    assert ends == [HEADERS if b"plain" not in path else DATA]
    session.assert_clean()


def test_window_updates_out_of_season_w014() -> None:
    session = Session()
    session.start()
    session.feed(wu(0, 1000) + h(1) + d(1, flags=ES) + wu(1, 5))
    session.assert_alive(FRESH)
    session.assert_clean()


def test_a_reset_reply_frees_its_bytes() -> None:
    session = Session()
    session.start((WINDOW, 1000))
    session.feed(get(1, 100_000) + get(3, 100_000))
    assert session.connection.sender.queued == 198_000
    session.feed(rst(1) + wu(0, 10_000))
    session.feed(rst(3))
    session.assert_alive(FRESH)
    session.assert_clean()
    assert session.connection.sender.window == 65535 + 10_000 - 2_000 - 5


def test_table_size_of_the_peer_h017() -> None:
    for size in (0, 100):
        session = Session()
        session.start((1, size))
        first = session.feed(h(1) + d(1, flags=ES))[0]
        assert first.payload[:1] == b"\x20"
        second = session.feed(h(3) + d(3, flags=ES))[0]
        assert second.payload == first.payload[1:]


def test_a_long_head_is_continued() -> None:
    session = Session()
    session.start()
    session.feed(h(1, EH | ES, block(b"/hold")))
    fields = ((b"x", b"v" * 40_000),)
    session.application.held[0].respond(ReplyHead(200, fields), b"body", Trailers(fields))
    session.loop.turn()
    frames = session.collect()
    assert [(frame.kind, frame.flags) for frame in frames] == [
        (1, 0),
        (9, 0),
        (9, EH),
        (0, 0),
        (1, ES),
        (9, 0),
        (9, EH),
    ]
    assert max(len(frame.payload) for frame in frames) == 16384
    assert session.decoder.decode(b"".join(frame.payload for frame in frames[4:]), raw=True) == [(b"x", b"v" * 40_000)]


def test_a_slow_socket_holds_back_replies_w015() -> None:
    session = Session(Limits(max_outbound=MIB))
    session.start((WINDOW, 2**30))
    session.feed(wu(0, 2**30))
    session.transport.stuck = True
    for stream in range(1, 101, 2):
        session.feed(get(stream, MIB))
    assert session.connection.sender.paused
    assert session.transport.buffered < MIB
    assert len(session.application.calls) <= 3, "no work for replies that nobody fetches"
    session.transport.unstick()
    session.loop.turn()
    session.collect()
    assert dict(session.replies()) == dict.fromkeys(range(1, 101, 2), pattern(MIB))
    session.assert_clean()


def test_a_socket_stuck_for_too_long_is_closed_w015() -> None:
    session = Session()
    session.start((WINDOW, 2**30))
    session.transport.stuck = True
    session.feed(wu(0, 2**30) + get(1, 8 * MIB))
    session.loop.advance(session.limits.send_stall_timeout_s + 6)
    assert session.transport.is_closing()
    session.assert_clean()


def test_a_window_closed_for_too_long_ends_the_stream_w016() -> None:
    session = Session()
    session.start()
    session.feed(get(1, 100_000) + wu(0, MIB))
    for _ in range(12):
        session.loop.advance(5)
        session.feed(ping())
    session.loop.advance(6)
    session.collect()
    assert session.frames[-1] == Frame(RST, 0, 1, CANCEL.to_bytes(4, "big"))
    session.assert_alive(FRESH)
    session.assert_clean()


class Peer:
    """A client's view of the credit it has given: it never lets the server overdraw."""

    def __init__(self, initial: int) -> None:
        self.initial = initial
        self.connection = 65535
        self.streams: dict[int, int] = {}
        self.max_frame = 16384

    def check(self, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.kind == DATA:
                assert len(frame.payload) <= self.max_frame
                self.connection -= len(frame.payload)
                self.streams[frame.stream] -= len(frame.payload)
                assert self.connection >= 0
                assert self.streams[frame.stream] + self.initial >= 0 or not frame.payload


actions = st.lists(
    st.one_of(
        st.tuples(st.just("get"), st.integers(0, 60_000)),
        st.tuples(st.just("connection"), st.integers(1, 50_000)),
        st.tuples(st.just("stream"), st.integers(0, 30), st.integers(1, 50_000)),
        st.tuples(st.just("initial"), st.integers(0, 70_000)),
        st.tuples(st.just("reset"), st.integers(0, 30)),
        st.tuples(st.just("stuck"), st.booleans()),
    ),
    max_size=30,
)


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.integers(0, 70_000), actions)
def test_credit_is_never_overdrawn_and_everything_arrives(initial: int, script: list[tuple]) -> None:  # type: ignore[type-arg]
    session = Session()
    peer = Peer(initial)
    session.start((WINDOW, initial))
    wanted: dict[int, int] = {}
    for action in script:
        name, *arguments = action
        open_streams = [stream for stream in wanted if stream not in dict(session.replies())]
        if name == "get":
            stream = 2 * len(peer.streams) + 1
            peer.streams[stream] = 0
            wanted[stream] = arguments[0]
            peer.check(session.feed(get(stream, arguments[0])))
        elif name == "connection":
            peer.connection += arguments[0]
            peer.check(session.feed(wu(0, arguments[0])))
        elif name == "initial":
            lowered = arguments[0] < peer.initial
            peer.initial = arguments[0]
            frames = session.feed(settings((WINDOW, peer.initial)))
            assert not lowered or not sizes(frames) or not session.transport.stuck
            peer.check(frames)
        elif name == "stuck":
            session.transport.stuck = arguments[0]
            if not arguments[0]:
                session.transport.unstick()
                session.loop.turn()
                peer.check(session.collect())
        elif open_streams:
            stream = open_streams[arguments[0] % len(open_streams)]
            if name == "reset":
                del wanted[stream]
                peer.check(session.feed(rst(stream)))
            else:
                peer.streams[stream] += arguments[1]
                peer.check(session.feed(wu(stream, arguments[1])))
    session.transport.unstick()
    session.loop.turn()
    peer.connection += 10 * MIB
    peer.initial = MIB
    peer.check(session.collect() + session.feed(settings((WINDOW, MIB)) + wu(0, 10 * MIB)))
    assert {stream: body for stream, body in session.replies() if stream in wanted} == {
        stream: pattern(size) for stream, size in wanted.items()
    }
    session.assert_clean()


# --- what we receive


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


def test_a_route_may_refuse_a_length_g012() -> None:
    session = Session()
    session.start()
    frames = session.feed(h(1, EH, block(b"/measured")) + d(1, b"\0\xff\xff\xff\xffxx"))
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

"""The peer's windows: what they allow is sent, nothing more, and all of it in the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.transport.http2.application import pattern
from tests.transport.http2.harness import (
    CANCEL,
    DATA,
    EH,
    ES,
    FLOW_CONTROL,
    FRESH,
    HEADERS,
    PROTOCOL,
    RST,
    Frame,
    Session,
    block,
    d,
    h,
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


def test_turns_are_short_even_if_nothing_holds_them_back() -> None:
    session = Session()
    session.start((WINDOW, 2**30), (MAX_FRAME, 2**20))
    session.feed(wu(0, 2**30))
    sent = dict.fromkeys(range(1, 9, 2), 0)
    for frame in session.feed(b"".join(get(stream, MIB) for stream in sent)):
        if frame.kind == DATA:
            sent[frame.stream] += len(frame.payload)
            assert max(sent.values()) - min(sent.values()) <= 64 * KIB
    assert sent == dict.fromkeys(sent, MIB)


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


def test_a_fault_of_the_peer_does_not_hold_back_what_was_ready() -> None:
    session = Session()
    session.start()
    session.feed(get(1, 40_000) + d(0))
    assert list(session.replies()) == [(1, pattern(40_000))]
    session.assert_failed(PROTOCOL)


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


def test_waits_for_the_client_are_counted() -> None:
    """Of a stream's window, the connection's, and the socket; a reply that leaves at once waits for nothing."""
    session = Session()
    session.start()
    session.feed(get(1, 100))
    assert session.stalls == []
    session.feed(get(3, 100_000))
    session.loop.advance(2)
    session.feed(wu(0, 34_465))
    assert session.stalls == [("connection", 2.0)], "from here it is the stream's window that is used up"
    session.loop.advance(3)
    session.feed(wu(3, 34_465))
    assert session.stalls[1:] == [("stream", 3.0)]
    session.feed(wu(0, MIB) + settings((WINDOW, 2**20)))
    session.stalls.clear()
    session.transport.stuck = True
    session.feed(get(5, MIB))
    session.loop.advance(4)
    session.transport.unstick()
    assert session.stalls[0] == ("socket", 4.0)
    session.collect()
    assert dict(session.replies())[3] == pattern(100_000)


def test_waits_that_a_reset_or_the_end_cuts_short_are_counted() -> None:
    session = Session()
    session.start((WINDOW, 10))
    session.feed(get(1, 20))
    session.loop.advance(1)
    session.feed(rst(1))
    assert session.stalls == [("stream", 1.0)]
    session.feed(settings((WINDOW, 70_000)) + get(3, 100_000))
    session.loop.advance(1)
    session.connection.connection_lost(None)
    assert session.stalls[1:] == [("connection", 1.0)]


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

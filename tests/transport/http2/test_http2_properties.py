"""What holds for any session: how bytes are cut does not matter, and no bytes do harm."""

from __future__ import annotations

import re
from dataclasses import replace

import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.transport.http2.application import pattern
from tests.transport.http2.harness import (
    B0,
    EH,
    ES,
    NO_ERROR,
    PAD,
    PREFACE,
    PRIO,
    REPLY,
    RST,
    S0,
    SETTINGS_ACK,
    Frame,
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

from servable.transport.limits import KIB, Limits, Rate, Rates

LIMITS = Limits(max_frame=16 * KIB, connection_window=65535, max_concurrent_streams=8, requests_per_turn=1000)
TURNS = replace(LIMITS, frames_per_turn=3, requests_per_turn=2)
"""Turns so short that what arrives in one read takes several."""
PATHS = [
    b"/t.S/M",
    b"/echo",
    b"/stream",
    b"/big/40000",
    b"/plain",
    b"/early",
    b"/small",
    b"/measured",
    b"/empty",
    b"/hold",
]
"""The last is never answered."""


@st.composite
def calls(draw: st.DrawFn, stream: int) -> list[bytes]:
    """The frames of one request; now and then it is malformed, or ends early."""
    path = draw(st.sampled_from(PATHS))
    # an insertion, a reference to the table (an error if it is empty), a name that is malformed
    extra = draw(st.sampled_from([b"", b"\x40\x01a\x01b", b"\xbe", b"\0\x01A\0"]))
    head = draw(st.sampled_from([B0, block(path), block(path, (b"x", b"y")), block(path) + extra]))
    body = draw(st.binary(max_size=40))
    frames = []
    how = draw(st.sampled_from(["plain", "plain", "plain", "split", "padded", "ended", "trailers", "reset"]))
    if how == "ended":
        return [h(stream, EH | ES, head)]
    if how == "split":
        cut = draw(st.integers(0, len(head)))
        frames.append(h(stream, 0, head[:cut]) + raw(9, EH, stream, head[cut:]))
    elif how == "padded":
        frames.append(h(stream, EH | PAD | PRIO, b"\x03" + bytes(4) + b"\x0f" + head + bytes(3)))
    else:
        frames.append(h(stream, EH, head))
    frames += [d(stream, b"\x02" + body + bytes(2), PAD)] if how == "padded" else [d(stream, body)]
    if how == "reset":
        return [*frames, rst(stream)]
    return [*frames, h(stream, EH | ES, b"") if how == "trailers" else d(stream, b"", ES)]


controls = st.sampled_from([ping(), wu(0, 5000), settings((4, 70_000)), settings((5, 20_000)), raw(0x20, 0, 0, b"?")])


@st.composite
def sessions(draw: st.DrawFn) -> bytes:
    """The bytes of a client, calls interleaved."""
    pending = [draw(calls(2 * number + 1)) for number in range(draw(st.integers(1, 6)))]
    script = [PREFACE, S0, SETTINGS_ACK, wu(0, 2**20)]  # room for all: who gets a scarce window is a matter of timing
    opened = 0
    while pending:
        if draw(st.booleans()):
            script.append(draw(controls))
        place = draw(st.integers(0, min(opened, len(pending) - 1)))
        script.append(pending[place].pop(0))
        if place == opened:
            opened += 1
        if not pending[place]:
            del pending[place]
            opened -= 1
    return b"".join(script)


_DATE = re.compile(rb"\x0f\x12\x1d.{29}")


def meaning(session: Session) -> dict[int, list[tuple[int, int, bytes]]]:
    """What the client understands of the output, however it was cut: by stream, DATA joined, credit summed."""
    streams: dict[int, list[tuple[int, int, bytes]]] = {}
    for frame in session.frames:
        if frame.kind == 8 or frame == Frame(RST, 0, frame.stream, NO_ERROR.to_bytes(4, "big")):
            continue
        frames = streams.setdefault(frame.stream, [])
        if frame.kind == 0 and frames and frames[-1][0] == 0:
            frames[-1] = (0, frames[-1][1] | frame.flags, frames[-1][2] + frame.payload)
        else:
            frames.append((frame.kind, frame.flags, _DATE.sub(b"", frame.payload)))
    return streams


@hypothesis_settings(max_examples=100, deadline=None)
@given(sessions(), st.data())
def test_how_the_bytes_are_cut_does_not_matter(script: bytes, data: st.DataObject) -> None:
    whole, cut, byte_by_byte, in_turns = Session(LIMITS), Session(LIMITS), Session(LIMITS), Session(TURNS)
    whole.feed(script)
    in_turns.feed(script)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(script)), max_size=8)))
    for start, end in zip([0, *cuts], [*cuts, len(script)], strict=True):
        cut.feed(script[start:end])
    byte_by_byte.byte_by_byte = True
    byte_by_byte.feed(script)
    assert meaning(cut) == meaning(whole) == meaning(byte_by_byte) == meaning(in_turns)
    assert sorted(cut.connection.streams) == sorted(whole.connection.streams)
    assert [call.body for call in cut.application.calls] == [call.body for call in whole.application.calls]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A session with damage: bytes flipped, pieces cut, doubled or moved."""
    script = bytearray(draw(sessions()))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(len(PREFACE), len(script) - 1))
        size = draw(st.integers(1, 20))
        match draw(st.sampled_from(["flip", "flip", "cut", "double", "move", "noise"])):
            case "flip":
                script[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del script[at : at + size]
            case "double":
                script[at:at] = script[at : at + size]
            case "noise":
                script[at:at] = draw(st.binary(max_size=20))
            case _:
                piece = script[at : at + size]
                del script[at : at + size]
                script += piece
        if len(script) <= len(PREFACE) + 1:
            break
    return bytes(script)


@hypothesis_settings(max_examples=200, deadline=None)
@given(mutated(), st.booleans())
def test_no_bytes_do_harm(script: bytes, byte_by_byte: bool) -> None:
    session = Session(LIMITS)
    session.byte_by_byte = byte_by_byte
    session.feed(script)
    connection = session.connection
    assert not [frame for frame in session.frames if frame.kind == 7 and frame.payload[4:8] == bytes((0, 0, 0, 2))]
    assert connection._held_size <= 2 * len(script)
    connection.connection_lost(None)
    for exchange in session.application.held:
        exchange.respond(*REPLY)
    session.loop.turn()
    session.assert_clean()


class Browser:
    """The ``h2`` package as a client: it refuses whatever a server may not send."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self.h2.initiate_connection()
        self.bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.reset: dict[int, int] = {}

    def exchange(self) -> None:
        """Pass bytes to and fro until nobody has anything to say."""
        while True:
            out = self.h2.data_to_send()
            if out:
                self.session.connection.data_received(out)
            self.session.loop.turn()
            back = self.session.transport.take()
            if not back and not out:
                return
            for event in self.h2.receive_data(back):
                if isinstance(event, h2.events.DataReceived):
                    self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    self.ended.add(event.stream_id)
                elif isinstance(event, h2.events.StreamReset):
                    self.reset[event.stream_id] = event.error_code

    def send(self, path: bytes, body: bytes) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        head = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"a")]
        self.h2.send_headers(stream, head, end_stream=not body)
        self.exchange()
        position = 0
        while position < len(body) and stream not in self.ended:
            size = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(body) - position)
            assert size > 0, "the upload is stuck"
            self.h2.send_data(stream, body[position : position + size], end_stream=position + size == len(body))
            position += size
            self.exchange()
        return stream


CRUMBS = Rates(dribbles=Rate(100_000, 0))
"""A window of 100 bytes makes more pieces of some large replies than a connection may have."""
bodies = st.one_of(st.integers(0, 50), st.sampled_from([0, 1, 16384, 65535, 65536]))


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(PATHS[:-1]), bodies), min_size=1, max_size=8),
    st.sampled_from(
        [Limits(rates=CRUMBS), Limits(rates=CRUMBS, initial_window=2000, max_frame=16384, connection_window=65535)]
    ),
    st.dictionaries(st.sampled_from([1, 4]), st.sampled_from([0, 100, 65535, 100_000]), max_size=2),
)
def test_the_h2_package_accepts_everything_we_send(
    requests: list[tuple[bytes, int]], limits: Limits, changed: dict[int, int]
) -> None:
    session = Session(limits)
    browser = Browser(session)
    browser.exchange()
    for number, (path, size) in enumerate(requests):
        body = pattern(size)
        if number == 1 and changed.get(4) != 0:
            browser.h2.update_settings(changed)
        stream = browser.send(path, body)
        assert stream in browser.ended
        if path in (b"/echo", b"/stream"):
            assert browser.bodies.get(stream, b"") == body
        if path.startswith(b"/big"):
            assert browser.bodies[stream] == pattern(40_000)
    assert set(browser.reset.values()) <= {NO_ERROR}
    session.assert_clean()


@pytest.mark.parametrize("table", [0, 100])
def test_the_h2_package_with_a_small_table_h017(table: int) -> None:
    session = Session()
    browser = Browser(session)
    browser.h2.update_settings({1: table})
    browser.exchange()
    for _ in range(100):
        assert browser.send(b"/t.S/M", bytes(5)) in browser.ended
    session.assert_clean()

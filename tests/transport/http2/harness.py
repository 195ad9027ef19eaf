"""An HTTP/2 connection without sockets or time: a transport with a memory, a loop and a clock that the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from struct import Struct
from typing import Any, NamedTuple, cast

import hpack
from tests.transport.http2.application import EMPTY_MESSAGE, GRPC, OK, FakeApplication
from tests.transport.http2.doubles import FakeLoop, FakeTransport

from servable.transport.exchange import Peer
from servable.transport.http2.connection import ServerConnection
from servable.transport.ledger import Ledger
from servable.transport.limits import Limits

REPLY = (GRPC, EMPTY_MESSAGE, OK)
FRESH = 1_000_001
"""A stream id far above those of the rows."""
PREFACE = bytes.fromhex("505249202a20485454502f322e300d0a0d0a534d0d0a0d0a")
S0 = bytes.fromhex("000000040000000000")
SETTINGS_ACK = bytes.fromhex("000000040100000000")
B0 = bytes.fromhex(
    "838604062f742e532f4d0101610f10106170706c69636174696f6e2f677270630002746508747261696c657273",
)

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WU, CONT = range(10)
ES, EH, PAD, PRIO = 1, 4, 8, 0x20
(
    NO_ERROR,
    PROTOCOL,
    INTERNAL,
    FLOW_CONTROL,
    SETTINGS_TIMEOUT,
    STREAM_CLOSED,
    FRAME_SIZE,
    REFUSED,
    CANCEL,
    COMPRESSION,
    CONNECT,
    ENHANCE,
) = range(12)


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def raw(kind: int, flags: int, stream: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def h(stream: int, flags: int = EH, block: bytes = B0) -> bytes:
    return raw(HEADERS, flags, stream, block)


def d(stream: int, payload: bytes = EMPTY_MESSAGE, flags: int = 0) -> bytes:
    return raw(DATA, flags, stream, payload)


def rst(stream: int, code: int = CANCEL) -> bytes:
    return raw(RST, 0, stream, code.to_bytes(4, "big"))


def wu(stream: int, increment: int) -> bytes:
    return raw(WU, 0, stream, increment.to_bytes(4, "big"))


def settings(*entries: tuple[int, int]) -> bytes:
    return raw(SETTINGS, 0, 0, b"".join(Struct(">HI").pack(*entry) for entry in entries))


def ping(payload: bytes = b"abcdefgh", flags: int = 0) -> bytes:
    return raw(PING, flags, 0, payload)


def literal(name: bytes, value: bytes) -> bytes:
    """A literal without indexing, short, with a new name."""
    return b"".join((b"\0", bytes((len(name),)), name, bytes((len(value),)), value))


def block(path: bytes = b"/t.S/M", *more: tuple[bytes, bytes], method: bytes = b"POST") -> bytes:
    """A request block without any indexing."""
    fields = [(b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", b"a"), *more]
    return hpack_plain(fields)


def hpack_plain(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"\0" + hpack_string(name) + hpack_string(value) for name, value in fields)


def hpack_string(text: bytes) -> bytes:
    return bytes(hpack.hpack.encode_integer(len(text), 7)) + text


def parse(output: bytes) -> list[Frame]:
    """Return the frames; the output must end at the end of one."""
    frames = []
    position = 0
    while position < len(output):
        size = int.from_bytes(output[position : position + 3], "big")
        head = output[position + 3 : position + 9]
        payload = output[position + 9 : position + 9 + size]
        assert len(head) == 6
        assert len(payload) == size, "the output ends inside a frame"
        frames.append(Frame(head[0], head[1], int.from_bytes(head[2:], "big"), payload))
        position += 9 + size
    return frames


class Session:
    """A client's raw bytes against one server connection."""

    def __init__(self, limits: Limits | None = None, application: Any = None) -> None:
        self.loop = FakeLoop()
        self.limits = limits or Limits()
        self.application = application or FakeApplication()
        self.closed: list[ServerConnection] = []
        self.events: list[str] = []
        self.stalls: list[tuple[str, float]] = []
        self.connection = ServerConnection(
            self.application,
            self.limits,
            Peer("test", local=True),
            cast("asyncio.AbstractEventLoop", self.loop),
            self.closed.append,
            clock=self.loop.clock,
            ledger=Ledger(
                self.events.append,
                self.limits.process_body_budget,
                lambda what, seconds: self.stalls.append((what, seconds)),
            ),
        )
        self.transport = FakeTransport(self.loop, self.connection)
        self.connection.connection_made(cast("asyncio.Transport", self.transport))
        self.frames: list[Frame] = []
        self.decoder = hpack.Decoder()
        self.byte_by_byte = False

    def feed(self, data: bytes) -> list[Frame]:
        """Send bytes, in one piece or one at a time, and return the frames they brought about."""
        for piece in [bytes((octet,)) for octet in data] if self.byte_by_byte else [data]:
            if not self.transport.is_closing():
                self.connection.data_received(piece)
            if self.byte_by_byte:
                self.loop.turn()
        self.loop.turn()
        return self.collect()

    def start(self, *entries: tuple[int, int]) -> list[Frame]:
        """The client's preface, and the acknowledgement of the server's settings."""
        return self.feed(PREFACE + settings(*entries) + SETTINGS_ACK)

    def collect(self) -> list[Frame]:
        """Return the frames written since the last time."""
        new = parse(self.transport.take())
        self.frames += new
        return new

    def fields(self, frame: Frame) -> list[tuple[bytes, bytes]]:
        """Decode a HEADERS frame of the server's."""
        return [(bytes(name), bytes(value)) for name, value in self.decoder.decode(frame.payload, raw=True)]

    def replies(self) -> Iterator[tuple[int, bytes]]:
        """Return stream and body of every reply that is complete."""
        bodies: dict[int, bytes] = {}
        for frame in self.frames:
            if frame.kind == DATA:
                bodies[frame.stream] = bodies.get(frame.stream, b"") + frame.payload
            if frame.kind in (DATA, HEADERS) and frame.flags & ES:
                yield frame.stream, bodies.pop(frame.stream, b"")

    def assert_alive(self, stream: int) -> None:
        """A PING is answered and a fresh call succeeds."""
        self.byte_by_byte = False
        before = self.connection.receiver.unreturned
        assert not self.connection.closing, "the connection has been closed"
        assert Frame(PING, 1, 0, b"alive?!!") in self.feed(ping(b"alive?!!"))
        answer = self.feed(h(stream) + d(stream, flags=ES))
        assert [(frame.kind, frame.stream) for frame in answer if frame.kind != WU] == [
            (HEADERS, stream),
            (DATA, stream),
            (HEADERS, stream),
        ]
        assert self.connection.receiver.unreturned <= before + 5

    def assert_clean(self) -> None:
        """Nothing is left of any stream."""
        connection = self.connection
        assert connection.streams == {}
        assert connection.active == 0
        assert connection.work.waiting == {}
        assert connection.receiver.buffered == 0
        assert connection.ledger.buffered == 0
        assert connection.blocks.stream_id == 0 or connection.closing
        assert connection.sender.queued == 0
        assert not connection.sender.ready
        assert not connection.sender.parked
        assert self.loop.armed <= 1, "one timer a connection"

    def assert_failed(self, code: int) -> None:
        """GOAWAY with the code was the last word; the write side is shut; lingering ends."""
        goaway = self.frames[-1]
        assert goaway.kind == GOAWAY, f"no GOAWAY but {goaway}"
        assert int.from_bytes(goaway.payload[4:8], "big") == code, goaway.payload
        assert len(goaway.payload) <= 8 + 64
        assert self.transport.has_ended()
        assert not self.transport.is_closing(), "closed without lingering"
        self.connection.data_received(b"whatever else was on its way")
        self.loop.advance(self.limits.linger_s + 0.1)
        assert self.transport.is_closing()
        self.loop.turn()
        assert self.closed == [self.connection]
        assert self.loop.armed == 0

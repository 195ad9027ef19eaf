"""What clients send, and should not: frames of HTTP/2 and requests of HTTP/1.1, from a seeded source."""

from __future__ import annotations

from random import Random
from struct import Struct

from servable.transport.http2 import frames
from servable.transport.http2.hpack import encode_block

_SETTING = Struct(">HI")
_PATHS = (b"/a.B/C", b"/later", b"/large", b"/early", b"/measured", b"/parts", b"/parts")
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 1, 4, 8, 0x20


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frames.header(len(payload), kind, flags, stream & frames.MAX_STREAM_ID) + payload


def _blocks() -> list[bytes]:
    """Header blocks that are in order, plain and with entries for the dynamic table."""
    found = []
    for path in _PATHS:
        base = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"a")]
        plain = encode_block(base)
        found += [
            plain,
            plain + encode_block([(b"content-type", b"application/grpc"), (b"te", b"trailers")]),
            plain + b"\x40\x03x-a\x021b",
            plain + encode_block([(b"content-length", b"5")]),
            plain + encode_block([(b"x", b"v" * 100)] * 150),
        ]
    return found


BLOCKS = _blocks()
TRAILERS = (b"", encode_block([(b"x-end", b"1")]), BLOCKS[0], b"\xbe")


class FrameScript:
    """One client: mostly legal frames on streams of its own, a share ``wild`` of anything at all."""

    def __init__(self, random: Random, wild: float) -> None:
        self._random = random
        self._wild = wild
        self._next = 1
        self._open: list[int] = []
        self._legal = (
            *(self._request,) * 6,
            *(self._data,) * 6,
            self._trailers,
            self._reset,
            self._window,
            self._window,
            self._settings,
            self._ping,
            self._priority,
            self._unknown,
            self._acknowledge,
        )

    @property
    def is_wild(self) -> bool:
        """Whether it may leave a frame or a header block unfinished."""
        return self._wild > 0

    def next(self) -> bytes:
        """Return one frame, or a header block of several."""
        if self._random.random() < self._wild:
            return self._anything()
        return self._random.choice(self._legal)()

    def _known(self) -> int:
        """Return a stream that there has been, whatever became of it."""
        return self._random.randrange(1, self._next, 2) if self._next > 1 else 0

    def _request(self, *, ends: bool | None = None) -> bytes:
        random = self._random
        stream = self._next
        self._next += random.choice((2, 2, 2, 2, 8))
        block = random.choice(BLOCKS)
        flags = 0
        if ends is None and random.random() < 0.3:
            flags |= _END_STREAM
        else:
            self._open.append(stream)
            if len(self._open) > 20:
                self._open.pop(0)
        if random.random() < 0.1:
            cut = random.randrange(len(block) + 1)
            return frame(frames.HEADERS, flags, stream, block[:cut]) + frame(
                frames.CONTINUATION, _END_HEADERS, stream, block[cut:]
            )
        if random.random() < 0.1:
            padding = random.randrange(256)
            head = bytes((padding,)) + (stream >> 1 or 7).to_bytes(4, "big") + b"\x0f"
            return frame(
                frames.HEADERS,
                flags | _END_HEADERS | _PADDED | _PRIORITY,
                stream,
                head + block + bytes(padding),
            )
        return frame(frames.HEADERS, flags | _END_HEADERS, stream, block)

    def _data(self) -> bytes:
        random = self._random
        if not self._open:
            return self._request(ends=False)
        size = random.choice((0, 1, 5, 5, 100, 5000, 16_000, random.randrange(16_000)))
        body = (
            b"\0" + max(0, size - 5).to_bytes(4, "big") + bytes(max(0, size - 5))
            if random.random() < 0.5
            else bytes(size)
        )
        flags = _END_STREAM if random.random() < 0.4 else 0
        stream = random.choice(self._open)
        if flags:
            self._open.remove(stream)
        if random.random() < 0.1:
            padding = random.randrange(256)
            return frame(frames.DATA, flags | _PADDED, stream, bytes((padding,)) + body + bytes(padding))
        return frame(frames.DATA, flags, stream, body)

    def _trailers(self) -> bytes:
        if not self._open:
            return self._request(ends=False)
        stream = self._open.pop(self._random.randrange(len(self._open)))
        return frame(frames.HEADERS, _END_STREAM | _END_HEADERS, stream, self._random.choice(TRAILERS))

    def _reset(self) -> bytes:
        stream = self._known()
        if not stream:
            return self._request(ends=False)
        if stream in self._open:
            self._open.remove(stream)
        return frames.rst_stream(stream, self._random.choice((0, 5, 8, 0xFF)))

    def _window(self) -> bytes:
        return frames.window_update(
            self._random.choice((0, self._known())), self._random.choice((1, 5, 1000, 65_535, 2**20))
        )

    def _settings(self) -> bytes:
        random = self._random
        entries = random.choice(
            (
                [],
                [(4, random.choice((0, 1, 65_535, 65_535, 2**20)))],
                [(1, random.choice((0, 100, 4096)))],
                [(5, random.choice((16_384, 2**20)))],
                [(0xFF, 1), (3, 7), (6, 100)],
            )
        )
        return frame(frames.SETTINGS, 0, 0, b"".join(_SETTING.pack(*entry) for entry in entries))

    def _ping(self) -> bytes:
        return frames.ping(self._random.randbytes(8), self._random.choice((0, 0, frames.ACK)))

    def _priority(self) -> bytes:
        return frame(frames.PRIORITY, 0, self._next + 2, bytes(4) + b"\x0f")

    def _unknown(self) -> bytes:
        return frame(self._random.randrange(10, 256), self._random.getrandbits(8), self._known(), bytes(9))

    def _acknowledge(self) -> bytes:
        return frames.SETTINGS_ACK

    def _anything(self) -> bytes:
        """A frame of no particular kind, a legal one with damage, or one in the wrong place."""
        random = self._random
        how = random.randrange(5)
        if how == 0:
            return frame(
                random.randrange(11),
                random.getrandbits(8),
                random.choice((0, self._known(), self._next)),
                random.randbytes(random.choice((0, 4, 5, 8, 30))),
            )
        if how == 1:
            return damaged(random, random.choice(self._legal)())
        if how == 2:
            return frame(frames.HEADERS, _END_HEADERS, self._next, random.randbytes(random.randrange(60)))
        if how == 3:
            return frame(random.randrange(10), 0, random.choice((0, 2, self._next, 1)), bytes(random.randrange(12)))
        return random.randbytes(random.randrange(1, 40))


def damaged(random: Random, data: bytes) -> bytes:
    """Return the bytes with a few of them flipped, dropped, doubled or put in."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(changed) + 1)
        how = random.randrange(4)
        if how == 0 and at < len(changed):
            changed[at] ^= 1 << random.randrange(8)
        elif how == 1:
            del changed[at : at + random.randrange(1, 9)]
        elif how == 2:
            changed[at:at] = changed[at : at + random.randrange(1, 9)]
        else:
            changed[at:at] = random.choice(
                (random.randbytes(3), b"\r\n", b"\r", b"\n", b"\0", b":", b" ", b"\xff", b";")
            )
    return bytes(changed)


_LINES = (
    b"GET /a HTTP/1.1", b"POST /a HTTP/1.1", b"POST /later HTTP/1.1", b"GET /large HTTP/1.1", b"POST /early HTTP/1.1",
    b"POST /measured HTTP/1.1", b"POST /parts HTTP/1.1",
    b"HEAD /a HTTP/1.1", b"GET http://b/a?c HTTP/1.0", b"OPTIONS * HTTP/1.1",
    b"PUT /a HTTP/1.1", b"CONNECT a:1 HTTP/1.1", b"GET /a HTTP/2.0", b"GET /" + b"x" * 9000 + b" HTTP/1.1",
)  # fmt: skip
_FIELDS = (
    b"Connection: close", b"Connection: keep-alive, Foo", b"Expect: 100-continue", b"X: y", b"X: \t y \t",
    b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABk", b"Content-Length: 5",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"TE: trailers", b"Cookie: a=b", b"Host: c",
    b"A" * 300 + b": b", b"C: " + b"d" * 20_000,
)  # fmt: skip


def request(random: Random) -> bytes:
    """One HTTP/1.1 request, mostly in order."""
    fields = [b"Host: a"] if random.random() < 0.95 else []
    fields += random.sample(_FIELDS, random.choice((0, 0, 0, 1, 1, 2, 3)))
    body = b""
    if random.random() < 0.5:
        content = bytes(random.choice((0, 1, 5, 100, 5000, 80_000)))
        if random.random() < 0.5:
            fields.append(b"Content-Length: %d" % len(content))
            body = content
        else:
            fields.append(b"Transfer-Encoding: chunked")
            step = random.choice((1, 7, 1000, 100_000)) if len(content) < 6000 else 10_000
            for at in range(0, len(content), step):
                piece = content[at : at + step]
                body += b"%x%b\r\n%b\r\n" % (len(piece), random.choice((b"", b"", b";a=b")), piece)
            body += b"0\r\n" + random.choice((b"", b"", b"X-T: 1\r\n")) + b"\r\n"
    random.shuffle(fields)
    return b"\r\n".join([random.choice(_LINES), *fields, b"", b""]) + body

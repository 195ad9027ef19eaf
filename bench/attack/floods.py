"""Hostile clients: floods, which send as fast as the server takes it, and stalls, which begin things and wait."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from struct import Struct

from bench.questions import PREDICT, Sample
from servable.core.tensors import Array
from servable.transport.http2 import frames
from servable.transport.http2.hpack import encode_block

CALL = encode_block(
    [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", PREDICT.encode()),
        (b":authority", b"a"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
)
MALFORMED = encode_block([(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a")])
OPEN, WHOLE = frames.END_HEADERS, frames.END_HEADERS | frames.END_STREAM
GREETING = frames.PREFACE + frames.settings([]) + frames.SETTINGS_ACK
HELD_CONNECTIONS = 300
_SETTING = Struct(">HI")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frames.header(len(payload), kind, flags, stream) + payload


def headers(stream: int, flags: int = WHOLE, block: bytes = CALL) -> bytes:
    return frame(frames.HEADERS, flags, stream, block)


def large_block(stream: int) -> bytes:
    return headers(stream, WHOLE, CALL + encode_block([(b"x", b"%d" % stream + b"z" * 16_000)]))


def bomb(stream: int) -> bytes:
    """A table entry of 4 KB, named as often as a header block has octets."""
    entry = encode_block([(b"x", b"y" * 4000)])
    return headers(stream, WHOLE, CALL + b"\x40" + entry[1:] + b"\xbe" * 16_000)


def pipelined(_stream: int) -> bytes:
    return b"GET /v1/models/half_plus_two HTTP/1.1\r\nHost: a\r\n\r\n" * 100


Flood = Callable[[int], bytes]
"""What is sent for a stream id that has not been used on this connection."""
FLOODS: dict[str, Flood] = {
    "rapid reset": lambda n: headers(n, OPEN) + frames.rst_stream(n, frames.CANCEL),
    "made you reset": lambda n: headers(n, OPEN) + frames.window_update(n, 2**31 - 1),
    "malformed requests": lambda n: headers(n, WHOLE, MALFORMED),
    "CONTINUATION": lambda n: headers(n, 0) + frame(frames.CONTINUATION, 0, n, b"") * 1000,
    "SETTINGS": lambda _: frames.settings([]) * 1000,
    "PING": lambda _: frames.ping(b"abcdefgh") * 1000,
    "empty DATA": lambda n: headers(n, OPEN) + frame(frames.DATA, 0, n) * 1000,
    "tiny DATA": lambda n: headers(n, OPEN) + frame(frames.DATA, 0, n, b"\0") * 1000,
    "PRIORITY": lambda n: frame(frames.PRIORITY, 0, n, bytes(4) + b"\1") * 1000,
    "WINDOW_UPDATE": lambda _: frames.window_update(0, 1) * 1000,
    "GOAWAY": lambda _: frames.goaway(0, 0) * 1000,
    "unknown frames": lambda _: frame(0xEE, 0, 0, b"what") * 1000,
    "large header blocks": large_block,
    "header bomb": bomb,
    "unfinished bodies": lambda n: headers(n, OPEN) + frame(frames.DATA, 0, n, b"\0\0\x10\0\0" + bytes(4000)),
    "bad requests": lambda n: headers(n, OPEN) + frame(frames.DATA, frames.END_STREAM, n, bytes(5)),
    "HTTP/1.1 pipelined": pipelined,
    "HTTP/1.1 malformed": lambda _: b"BAD\r\n\r\n",
    "connections": lambda _: b"",
}
HTTP1 = frozenset({"HTTP/1.1 pipelined", "HTTP/1.1 malformed", "connections"})


def flood(name: str, port: int, seconds: float) -> int:
    """Send until the time is over, connecting again when the server has had enough; return how often that was."""
    make = FLOODS[name]
    greeting = b"" if name in HTTP1 else GREETING
    end = time.monotonic() + seconds
    used = 0
    while time.monotonic() < end:
        used += 1
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.settimeout(0.5)
            connection.sendall(greeting)
            stream = 1
            while time.monotonic() < end:
                chunk = b"".join(make(n) for n in range(stream, stream + 64, 2))
                stream += 64
                if not chunk:
                    break
                connection.sendall(chunk)
    return used


def large_call(stream: int) -> bytes:
    """A call whose reply has 400 KB."""
    x: Array = _large()
    body = Sample({"x": x}, {}).framed("half_plus_two")
    sent = headers(stream, OPEN)
    for start in range(0, len(body), 100_000):
        last = start + 100_000 >= len(body)
        sent += frame(frames.DATA, frames.END_STREAM if last else 0, stream, body[start : start + 100_000])
    return sent


def _large() -> Array:
    import numpy as np  # only these attacks want arrays

    return np.zeros(100_000, np.float32)


def settings(key: int, value: int) -> bytes:
    return frame(frames.SETTINGS, 0, 0, _SETTING.pack(key, value))


def _held_open(first: bytes) -> Callable[[int, float], int]:
    """Many connections that send this and then nothing."""

    def hold(port: int, seconds: float) -> int:
        with ExitStack() as stack:
            for _ in range(HELD_CONNECTIONS):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), 5)).sendall(first)
            time.sleep(seconds)
        return HELD_CONNECTIONS

    return hold


def _calls_unread(port: int, seconds: float) -> int:
    """Large replies, a window for all of them, and a socket that is not read."""
    calls = b"".join(large_call(n) for n in range(1, 128, 2))
    return _send_and_wait(port, seconds, GREETING + settings(4, 2**30) + frames.window_update(0, 2**30) + calls)


def _calls_without_window(port: int, seconds: float) -> int:
    """Large replies and no window for any."""
    calls = b"".join(large_call(n) for n in range(1, 128, 2))
    return _send_and_wait(port, seconds, GREETING + settings(4, 0) + calls)


def _send_and_wait(port: int, seconds: float, data: bytes) -> int:
    """Send as much as is taken, until the time is over; read nothing."""
    end = time.monotonic() + seconds
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.setblocking(False)
        left = memoryview(data)
        while time.monotonic() < end:
            if not left or not select.select([], [connection], [], 0.1)[1]:
                time.sleep(0.05)
                continue
            try:
                left = left[connection.send(left) :]
            except OSError:
                break
        time.sleep(max(0.0, end - time.monotonic()))
    return 1


def _crumbs(port: int, seconds: float) -> int:
    """A large reply, an octet at a time, as fast as that goes."""
    end = time.monotonic() + seconds
    used = 0
    while time.monotonic() < end:
        used += 1
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.settimeout(0.5)
            connection.sendall(GREETING + settings(4, 0) + large_call(1))
            while time.monotonic() < end:
                connection.sendall(frames.window_update(1, 1) * 64)
    return used


STALLS: dict[str, Callable[[int, float], int]] = {
    "slow heads, HTTP/1.1": _held_open(b"GET / HTTP/1.1\r\nHost"),
    "slow heads, HTTP/2": _held_open(GREETING + headers(1, 0)),
    "slow bodies, HTTP/1.1": _held_open(
        b"POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n" + bytes(50_000)
    ),
    "nothing but a preface": _held_open(frames.PREFACE),
    "replies not read": _calls_unread,
    "replies without window": _calls_without_window,
    "replies in crumbs": _crumbs,
}

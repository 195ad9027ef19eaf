"""Microseconds of CPU a unary gRPC call costs in the HTTP/2 layer: connections in memory, no sockets, a constant reply.

    python bench/http2_micro.py [--calls N] [--only WORD] [--profile]

``steady`` is what gRPC's C core repeats (nine indexed octets, two WINDOW_UPDATEs a call); ``new timeout`` changes
``grpc-timeout`` with each call, as the clients in Go, Java and JavaScript do; ``later`` replies from another turn of
the loop, as batched inference does; ``1 MiB`` echoes that much; ``client`` is the other role.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import hpack

from servable.transport.errors import TransportError
from servable.transport.exchange import Exchange, Peer, ReplyHead, RequestHead, Route, Trailers
from servable.transport.http2 import frames
from servable.transport.http2.client import ClientConnection
from servable.transport.http2.connection import ServerConnection
from servable.transport.http2.hpack import encode_block
from servable.transport.limits import MIB, Limits
from servable.transport.reply import Reply

HEAD = ReplyHead(200, ((b"content-type", b"application/grpc"),))
TRAILERS = Trailers(((b"grpc-status", b"0"),))
MESSAGE = b"\0\0\0\1\4" + bytes(260)
FIELDS = [
    (b":path", b"/tensorflow.serving.PredictionService/Predict"),
    (b":authority", b"127.0.0.1:8500"),
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
    (b"grpc-accept-encoding", b"identity, deflate, gzip"),
    (b"grpc-timeout", b"10S"),
    (b"user-agent", b"grpc-python/1.68.0 grpc-c/45.0.0 (linux; chttp2)"),
]
ROUNDS = 5
LIMITS = Limits(requests_per_turn=1000, frames_per_turn=10_000)
"""Of a server that handles all of a read in one turn: what others wait meanwhile is not measured here."""


class Constant(Route):
    """Answers at once, or when ``release`` is called; ``echo`` sends the request's message back."""

    def __init__(self, *, later: bool, echo: bool) -> None:
        self.later = later
        self.echo = echo
        self.held: list[Exchange] = []

    def handle(self, exchange: Exchange, body: bytes) -> None:
        if self.later:
            self.held.append(exchange)
        else:
            exchange.respond(HEAD, body if self.echo else MESSAGE, TRAILERS)

    def release(self) -> None:
        held, self.held = self.held, []
        for exchange in held:
            exchange.respond(HEAD, MESSAGE, TRAILERS)


class Application:
    def __init__(self, route: Constant) -> None:
        self.only = route

    def route(self, head: RequestHead) -> Route:
        return self.only


class Loop:
    """The two calls that a connection makes."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Loop:
        return self

    def cancel(self) -> None:
        """No timer fires here."""

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()


class Sink:
    """A transport that counts what is written."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """No limits."""

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """What is read is what the case feeds."""

    def resume_reading(self) -> None:
        """Likewise."""


def credit(stream_id: int, size: int) -> bytes:
    return frames.window_update(stream_id, 5) + frames.window_update(0, size)


def calls(number: int, *, new_timeout: bool, body: bytes) -> list[bytes]:
    """Return the frames of each call, the first one with a full header block."""
    encoder = hpack.Encoder()
    result = []
    for place in range(number):
        fields = list(FIELDS)
        if new_timeout:
            fields[7] = (b"grpc-timeout", b"%du" % (4_990_000 + place % 10_000))
        stream_id = 2 * place + 1
        pieces = [frames.headers(stream_id, encoder.encode(fields), 16384, end_stream=False)]
        for start in range(0, len(body), MIB):
            part = body[start : start + MIB]
            flags = frames.END_STREAM if start + MIB >= len(body) else 0
            pieces += (frames.header(len(part), frames.DATA, flags, stream_id), part)
        result.append(b"".join(pieces) + credit(stream_id, len(body)))
    return result


Timer = Callable[[Callable[[], None]], float]


def serve(
    timer: Timer, number: int, per_read: int, *, new_timeout: bool = False, later: bool = False, size: int = 260
) -> float:
    """Return the CPU seconds a call costs."""
    loop, sink, route = Loop(), Sink(), Constant(later=later, echo=size > 260)
    connection = ServerConnection(
        Application(route), LIMITS, Peer("bench", local=True), cast("asyncio.AbstractEventLoop", loop)
    )
    connection.connection_made(cast("asyncio.Transport", sink))
    settings = frames.settings([(frames.INITIAL_WINDOW_SIZE, 2**22), (frames.MAX_FRAME_SIZE, 2**22)])
    connection.data_received(frames.PREFACE + settings + frames.SETTINGS_ACK + frames.window_update(0, 2**24))
    body = b"\0" + size.to_bytes(4, "big") + bytes(size)
    first, *rest = calls(number + 1, new_timeout=new_timeout, body=body)
    connection.data_received(first)
    route.release()
    reads = [b"".join(rest[start : start + per_read]) for start in range(0, number, per_read)]

    def run() -> None:
        for data in reads:
            connection.data_received(data)
            if later:
                route.release()
                loop.turn()

    spent = timer(run)
    assert not connection.streams, "a call was not answered"
    assert sink.size >= number * len(MESSAGE)
    return spent / number


def ask(timer: Timer, number: int, per_read: int) -> float:
    """Return the CPU seconds a call costs the client."""
    loop, sink = Loop(), Sink()
    connection = ClientConnection(cast("asyncio.AbstractEventLoop", loop))
    connection.connection_made(cast("asyncio.Transport", sink))
    connection.data_received(frames.settings([(frames.INITIAL_WINDOW_SIZE, 2**22)]) + frames.SETTINGS_ACK)
    connection.data_received(frames.window_update(0, 2**30))
    head = RequestHead(b"POST", FIELDS[0][1], tuple(FIELDS[4:]), authority=b"127.0.0.1:8500")
    start, end = encode_block([(b":status", b"200"), *HEAD.fields]), encode_block(TRAILERS.fields)
    done: list[Reply | TransportError] = []

    def reply(stream_id: int) -> bytes:
        head = frames.headers(stream_id, start, 16384, end_stream=False)
        data = frames.header(len(MESSAGE), frames.DATA, 0, stream_id) + MESSAGE
        return head + data + frames.headers(stream_id, end, 16384, end_stream=True)

    replies = [
        b"".join(reply(2 * place + 1) for place in range(first, first + per_read))
        for first in range(0, number, per_read)
    ]

    def run() -> None:
        for data in replies:
            for _ in range(per_read):
                connection.request(head, MESSAGE, done.append, 10.0)
            loop.turn()
            connection.data_received(data)

    spent = timer(run)
    assert len(done) == number
    assert all(isinstance(one, Reply) for one in done)
    return spent / number


CASES: dict[str, Callable[[Timer, int], float]] = {
    "steady, 32 calls a read": lambda timer, number: serve(timer, number, 32),
    "steady, 1 call a read": lambda timer, number: serve(timer, number, 1),
    "new timeout, 32 calls a read": lambda timer, number: serve(timer, number, 32, new_timeout=True),
    "later, 32 calls a read": lambda timer, number: serve(timer, number, 32, later=True),
    "1 MiB, 1 call a read": lambda timer, number: serve(timer, max(number // 100, 1), 1, size=MIB - 5),
    "client, 32 calls a read": lambda timer, number: ask(timer, number, 32),
}


def clock(run: Callable[[], None]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def profiled(run: Callable[[], None]) -> float:
    profile: Any = cProfile.Profile()
    profile.runcall(run)
    pstats.Stats(profile).sort_stats("tottime").print_stats(16)
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=19_200, help="calls a round, a multiple of 32")
    parser.add_argument("--only", default="", help="run the cases whose name has this word")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    gc.freeze()
    gc.set_threshold(50_000)
    for name, case in CASES.items():
        if options.only in name:
            if options.profile:
                case(profiled, options.calls)
            else:
                spent = [case(clock, options.calls) * 1e6 for _ in range(ROUNDS)]
                print(f"{name:32}{statistics.median(spent):8.2f} us a call   (best {min(spent):.2f})")


if __name__ == "__main__":
    main()

"""What surrounds a connection under test: a loop and a clock turned by hand, a transport, an application."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from servable.transport.exchange import (
    Exchange,
    PartedBody,
    PartedReply,
    RepliesInParts,
    ReplyHead,
    RequestHead,
    Route,
    TakesInParts,
    Trailers,
)

GRPC = ReplyHead(200, ((b"content-type", b"application/grpc"),))
TEXT = ReplyHead(200, ((b"content-type", b"text/plain"),))
STATUS_OK = Trailers(((b"grpc-status", b"0"),))
LARGE = bytes(200_000)


class Timer:
    """What ``call_later`` and ``call_soon`` return."""

    def __init__(self, callback: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.callback = callback
        self.arguments = arguments
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def run(self) -> None:
        if not self.cancelled:
            self.cancelled = True
            self.callback(*self.arguments)


class Loop:
    """The calls that a connection makes. Whatever a callback raises reaches who turns the loop: the fuzzer."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._soon: deque[Timer] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> Timer:
        timer = Timer(callback, arguments)
        self._soon.append(timer)
        return timer

    def call_later(self, delay: float, callback: Callable[..., None], *arguments: Any) -> Timer:
        timer = Timer(callback, arguments)
        heapq.heappush(self._timers, (self.now + delay, next(self._order), timer))
        return timer

    def turn(self) -> None:
        while self._soon:
            self._soon.popleft().run()

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        self.turn()
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            timer.run()
            self.turn()
        self.now = end

    @property
    def armed(self) -> int:
        """Timers that would still fire."""
        return sum(not timer.cancelled for _, _, timer in self._timers)


class Transport:
    """Keeps what is written. ``stuck`` is a client that does not read."""

    def __init__(self, loop: Loop, protocol: Any) -> None:
        self._loop = loop
        self._protocol = protocol
        self._high = 65536
        self._unread = 0
        self._paused = False
        self.stuck = False
        self.reading = True
        self.written = bytearray()
        self.shut = False
        self.closing = False
        self.lost = False

    def write(self, data: Any) -> None:
        if self.shut:
            raise AssertionError("written after the end")
        if self.closing:
            return
        self.written += data
        if self.stuck:
            self._unread += memoryview(data).nbytes
            if self._unread > self._high and not self._paused:
                self._paused = True
                self._protocol.pause_writing()

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def release(self) -> None:
        """The client reads again."""
        self.stuck, self._unread = False, 0
        if self._paused:
            self._paused = False
            self._protocol.resume_writing()

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        self._high = high

    def get_write_buffer_size(self) -> int:
        return self._unread

    def pause_reading(self) -> None:
        if not self.reading:
            raise AssertionError("paused twice")
        self.reading = False

    def resume_reading(self) -> None:
        if self.reading:
            raise AssertionError("resumed twice")
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.shut = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self.closing:
            self.closing = True
            self._loop.call_soon(self.lose)

    def lose(self) -> None:
        """The connection is gone."""
        self.closing = True
        if not self.lost:
            self.lost = True
            self._protocol.connection_lost(None)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Answer(Route):
    """Sends the body back at once."""

    def __init__(self, application: Application) -> None:
        self.application = application

    def handle(self, exchange: Exchange, body: bytes) -> None:
        self.application.handled += 1
        exchange.respond(GRPC, body, STATUS_OK)


class Later(Answer):
    """Leaves the answer to ``Application.release``."""

    def handle(self, exchange: Exchange, body: bytes) -> None:
        self.application.handled += 1
        self.application.held.append(exchange)


class Large(Answer):
    def handle(self, exchange: Exchange, body: bytes) -> None:
        self.application.handled += 1
        exchange.respond(TEXT, LARGE)


class Early(Answer):
    wants_body = False


class Measured(Answer):
    prefix_size = 5
    max_body = 50_000

    def body_size(self, exchange: Exchange, prefix: bytes) -> int:
        return 5 + int.from_bytes(prefix[1:], "big")


class Conversation:
    """Sends back what comes while it comes; consumes some of it later, and now and then fails in the middle."""

    def __init__(self, application: Application, exchange: Exchange) -> None:
        assert isinstance(exchange, RepliesInParts)
        exchange.on_cancel = self.end
        self._application = application
        self._exchange = exchange
        self._reply: PartedReply | None = exchange.begin(GRPC)
        self._flow: PartedBody | None = None
        self._owed = 0

    def follow(self) -> None:
        """Take the body as it comes."""
        assert isinstance(self._exchange, TakesInParts)
        flow = self._flow = self._exchange.receive()
        flow.start(self)

    def data(self, part: bytes) -> None:
        if self._reply is None:
            return
        self._reply.write(part)
        if len(part) == 1 and self._flow is not None:
            self._flow.need(100)
        if len(part) % 3 and self._flow is not None:
            self._flow.consume(len(part))
        else:
            self._owed += len(part)
            self._application.talks.append(self)

    def release(self) -> None:
        owed, self._owed = self._owed, 0
        if self._reply is not None and self._flow is not None and owed:
            self._flow.consume(owed)
        if self._reply is not None and owed % 7 == 1:
            reply, self._reply = self._reply, None
            reply.fail()

    def end(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.finish(STATUS_OK)


class Parts(Answer):
    in_parts = True

    def handle(self, exchange: Exchange, body: bytes) -> None:
        self.application.handled += 1
        conversation = Conversation(self.application, exchange)
        if isinstance(exchange, TakesInParts):
            conversation.follow()
        else:
            conversation.data(body)
            conversation.end()


class Application:
    """Routes by path. What is held is answered by ``release``, whether its client is still there or not."""

    def __init__(self) -> None:
        self.handled = 0
        self.held: list[Exchange] = []
        self.talks: list[Conversation] = []
        self._routes: dict[bytes, Route] = {
            b"/later": Later(self),
            b"/large": Large(self),
            b"/early": Early(self),
            b"/measured": Measured(self),
            b"/parts": Parts(self),
        }
        self._other = Answer(self)

    def route(self, head: RequestHead) -> Route:
        return self._routes.get(head.target, self._other)

    def release(self, random: Random | None = None) -> None:
        """Answer all that waits, or some of it."""
        talks, self.talks = self.talks, []
        for talk in talks:
            talk.release()
        held, self.held = self.held, []
        for exchange in held:
            if random is not None and random.random() < 0.5:
                self.held.append(exchange)
            else:
                exchange.respond(GRPC, b"\0\0\0\0\0", STATUS_OK)

"""Watches the requests of a port for the access log. A server without one does not have this in its way."""

from __future__ import annotations

import time
from collections.abc import Callable

from servable.core.errors import Code
from servable.core.messages import InferResponse, ModelRef
from servable.listeners.guard import GuardedApplication
from servable.listeners.ports import PortApplication
from servable.observe.access_log import Access
from servable.transport.exchange import (
    Exchange,
    Field,
    PartedBody,
    PartedReply,
    PartReader,
    RepliesInParts,
    ReplyHead,
    RequestHead,
    Route,
    TakesInParts,
    Trailers,
)
from servable.wire.grpc import is_grpc, parse_status

Write = Callable[[Access], None]

LONGEST_ROUTE = 256
"""Characters of a path that are logged."""
CLIENT_CLOSED = 499
"""The status logged for a client that did not wait for its reply: there is none that was sent."""
INTERNAL_ERROR = 500


class WatchedApplication:
    """A port's application, with every reply reported to ``write``."""

    def __init__(self, application: PortApplication | GuardedApplication, write: Write) -> None:
        self._application = application
        self._write = write

    def route(self, head: RequestHead) -> Route:
        """Choose as the application does."""
        return WatchedRoute(self._application.route(head), head, self._write)

    def oversized(self, head: RequestHead, size: int, limit: int) -> Route:
        """Choose as the application does."""
        return WatchedRoute(self._application.oversized(head, size, limit), head, self._write)


class WatchedRoute(Route):
    """A route whose exchanges are watched. What all requests with its head share is made once."""

    __slots__ = ("_route", "_write", "in_parts", "max_body", "method", "prefix_size", "target", "wants_body", "wire")

    def __init__(self, route: Route, head: RequestHead, write: Write) -> None:
        self._route = route
        self._write = write
        self.wants_body = route.wants_body
        self.in_parts = route.in_parts
        self.max_body = route.max_body
        self.prefix_size = route.prefix_size
        self.wire = "grpc" if head.version == b"2" and is_grpc(head.get(b"content-type")) else "rest"
        self.method = head.method.decode("latin-1")
        self.target = head.target[:LONGEST_ROUTE].decode("latin-1")

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Handle as the route does."""
        watched = WatchedExchange(exchange, self, len(body), self._write)
        try:
            self._route.handle(watched, body)
        except Exception:
            if not watched.reported:
                watched.report(INTERNAL_ERROR, Code.INTERNAL.name if self.wire == "grpc" else "", 0)
            raise

    def body_size(self, exchange: Exchange, prefix: bytes) -> int:
        """Ask the route."""
        return self._route.body_size(WatchedExchange(exchange, self, len(prefix), self._write), prefix)

    def too_large(self, exchange: Exchange, limit: int) -> None:
        """Answer as the route does. How much the client wanted to send is not known."""
        self._route.too_large(WatchedExchange(exchange, self, limit, self._write), limit)


class WatchedExchange(RepliesInParts, TakesInParts):
    """An exchange that reports its reply."""

    __slots__ = ("_answer", "_exchange", "_route", "_write", "bytes_in", "reported")
    watched = True

    def __init__(self, exchange: Exchange, route: WatchedRoute, bytes_in: int, write: Write) -> None:
        self.head = exchange.head
        self.peer = exchange.peer
        self.arrived = exchange.arrived
        self._exchange = exchange
        self._route = route
        self.bytes_in = bytes_in
        self._write = write
        self._answer: object = None
        self.reported = False

    @property
    def cancelled(self) -> bool:
        """Whether the client gave up."""
        return self._exchange.cancelled

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        self._exchange.cancelled = value

    @property
    def on_cancel(self) -> Callable[[], None] | None:
        """What is called when it does."""
        return self._exchange.on_cancel

    @on_cancel.setter
    def on_cancel(self, callback: Callable[[], None] | None) -> None:
        self._exchange.on_cancel = callback

    def note(self, answer: object) -> None:
        """Remember an ``InferResponse``, or the ``ModelRef`` that was asked for."""
        self._answer = answer

    def respond(self, head: ReplyHead, body: bytes | memoryview = b"", trailers: Trailers | None = None) -> None:
        """Reply, then report."""
        cancelled = self._exchange.cancelled
        self._exchange.respond(head, body, trailers)
        grpc = self._route.wire == "grpc"
        if cancelled:
            self.report(CLIENT_CLOSED, Code.CANCELLED.name if grpc else "", 0)
        else:
            size = body.nbytes if isinstance(body, memoryview) else len(body)
            self.report(head.status, _grpc_code((head if trailers is None else trailers).fields) if grpc else "", size)

    def begin(self, head: ReplyHead) -> PartedReply:
        """Reply in parts; report when the reply has ended."""
        exchange = self._exchange
        assert isinstance(exchange, RepliesInParts), "a client waits for the reply"
        return WatchedReply(self, head.status, exchange.begin(head))

    def receive(self) -> PartedBody:
        """Take the body in parts; what the route consumes of it is reported."""
        exchange = self._exchange
        assert isinstance(exchange, TakesInParts), "only a route of HTTP/2 takes a body in parts"
        return WatchedBody(self, exchange.receive())

    def finished(self, status: int, trailers: Trailers | None, size: int) -> None:
        """Report a reply in parts."""
        grpc = self._route.wire == "grpc"
        if self._exchange.cancelled:
            self.report(CLIENT_CLOSED, Code.CANCELLED.name if grpc else "", size)
        else:
            self.report(status, _grpc_code(trailers.fields) if grpc and trailers is not None else "", size)

    def failed(self, size: int) -> None:
        """Report a reply that was cut off."""
        self.report(INTERNAL_ERROR, Code.INTERNAL.name if self._route.wire == "grpc" else "", size)

    def report(self, status: int, code: str, bytes_out: int) -> None:
        """Write the line."""
        self.reported = True
        answer, route = self._answer, self._route
        ref = answer.model if isinstance(answer, InferResponse) else answer if isinstance(answer, ModelRef) else None
        times = (answer.queue_s, answer.compute_s) if isinstance(answer, InferResponse) else (None, None)
        self._write(
            Access(
                time.time(),
                self.peer.address,
                route.wire,
                route.method,
                route.target,
                ref.name if ref is not None else "",
                ref.version if ref is not None else None,
                status,
                code,
                self.bytes_in,
                bytes_out,
                time.monotonic() - self.arrived,
                *times,
            )
        )


class WatchedReply(PartedReply):
    """A reply in parts whose end is reported."""

    __slots__ = ("_exchange", "_reply", "_size", "_status")

    def __init__(self, exchange: WatchedExchange, status: int, reply: PartedReply) -> None:
        self._exchange = exchange
        self._status = status
        self._reply = reply
        self._size = 0

    @property
    def on_drained(self) -> Callable[[], None] | None:
        """What is called when writing is welcome again."""
        return self._reply.on_drained

    @on_drained.setter
    def on_drained(self, callback: Callable[[], None] | None) -> None:
        self._reply.on_drained = callback

    def write(self, part: bytes) -> bool:
        """Write."""
        self._size += len(part)
        return self._reply.write(part)

    def finish(self, trailers: Trailers | None = None) -> None:
        """Finish, then report."""
        self._reply.finish(trailers)
        self._exchange.finished(self._status, trailers, self._size)

    def fail(self) -> None:
        """Fail, then report."""
        self._reply.fail()
        self._exchange.failed(self._size)


class WatchedBody(PartedBody):
    """A body in parts whose size is reported."""

    __slots__ = ("_body", "_exchange")

    def __init__(self, exchange: WatchedExchange, body: PartedBody) -> None:
        self._exchange = exchange
        self._body = body

    def start(self, reader: PartReader) -> None:
        """Start."""
        self._body.start(reader)

    def consume(self, size: int) -> None:
        """Consume and count."""
        self._exchange.bytes_in += size
        self._body.consume(size)

    def need(self, size: int) -> None:
        """Need."""
        self._body.need(size)


def _grpc_code(fields: tuple[Field, ...]) -> str:
    for name, value in fields:
        if name == b"grpc-status":
            return parse_status(value).name
    return ""

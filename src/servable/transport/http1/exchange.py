"""A request on an HTTP/1.1 connection: the application's view of the connection, and the connection's of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from servable.transport.exchange import PartedReply, RepliesInParts, ReplyHead
from servable.transport.http1.parts import ChunkedReply

if TYPE_CHECKING:
    from servable.transport.exchange import Trailers
    from servable.transport.http1.reception import Known
    from servable.transport.http1.server import Http1Connection

logger = logging.getLogger("servable.transport")

INTERNAL_ERROR = ReplyHead(500, ((b"content-type", b"text/plain; charset=utf-8"),))


class Http1Exchange(RepliesInParts):
    """A request and its route. No exception of the application leaves ``handle``, ``too_large`` or ``body_size``."""

    __slots__ = ("_connection", "_parts", "known")

    def __init__(self, connection: Http1Connection, known: Known, arrived: float) -> None:
        self.head = known.facts.head
        self.peer = connection.peer
        self.arrived = arrived
        self.cancelled = False
        self.on_cancel = None
        self.known = known
        self._connection: Http1Connection | None = connection
        self._parts: ChunkedReply | None = None

    def respond(self, head: ReplyHead, body: bytes | memoryview = b"", trailers: Trailers | None = None) -> None:
        """Send the whole reply. ``trailers`` are dropped."""
        connection = self._connection
        if connection is not None:
            connection.reply(self.known.facts, head, body)
            self._connection = None
        elif not self.cancelled:
            raise RuntimeError("this exchange was answered before")

    def begin(self, head: ReplyHead) -> PartedReply:
        """Send the head now and the rest in parts."""
        connection, self._connection = self._connection, None
        if connection is None and (self._parts is not None or not self.cancelled):
            raise RuntimeError("this exchange was answered before")
        start = None if connection is None else connection.begin(self.known.facts, head)
        self._parts = ChunkedReply(connection, start)
        return self._parts

    def drained(self) -> None:
        """Tell the producer of a reply in parts to go on."""
        if self._parts is not None:
            self._parts.drained()

    def give_up(self) -> None:
        """Part from the connection, which answers the request itself."""
        self._connection = None

    def cancel(self) -> None:
        """Tell the application that the client went away."""
        self._connection = None
        self.cancelled = True
        if self._parts is not None:
            self._parts.lost()
        if self.on_cancel is not None:
            try:
                self.on_cancel()
            except Exception:
                logger.exception("on_cancel failed for %r", self.head)

    def handle(self, body: bytes) -> None:
        """Give the request to its route."""
        try:
            self.known.route.handle(self, body)
        except Exception:
            logger.exception("the application failed on %r", self.head)
            self._fail()

    def too_large(self) -> None:
        """Have the route answer a body above the limit."""
        try:
            self.known.route.too_large(self, self.known.limit)
        except Exception:
            logger.exception("the application failed on %r", self.head)
            self._fail()

    def body_size(self, prefix: bytes) -> int:
        """Ask the route for the body's length; -1 if the body is not wanted."""
        try:
            return self.known.route.body_size(self, prefix)
        except Exception:
            logger.exception("the application failed on %r", self.head)
            self._fail()
            return -1

    def _fail(self) -> None:
        if self._parts is not None and not self._parts.finished:
            self._parts.fail()
        if self._connection is not None:
            self.respond(INTERNAL_ERROR, b"internal error\n")

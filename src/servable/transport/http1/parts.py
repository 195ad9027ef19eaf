"""Replies of HTTP/1.1 in parts: chunks, or, for HTTP/1.0, whatever comes before the end of the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servable.transport.exchange import PartedReply
from servable.transport.http1.replies import JOINED

if TYPE_CHECKING:
    from collections.abc import Callable

    from servable.transport.exchange import Trailers
    from servable.transport.http1.replies import Start
    from servable.transport.http1.server import Http1Connection

_LAST_CHUNK = b"0\r\n\r\n"


class ChunkedReply(PartedReply):
    """The reply to one request. Without a connection nobody reads it any more."""

    __slots__ = ("_connection", "_finished", "_start")

    def __init__(self, connection: Http1Connection | None, start: Start | None) -> None:
        self.on_drained: Callable[[], None] | None = None
        self._connection = connection
        self._start = start
        self._finished = False

    def write(self, part: bytes) -> bool:
        """Send a part."""
        connection, start = self._connection, self._start
        if connection is None or start is None:
            return True
        if self._finished:
            raise RuntimeError("the reply is finished")
        if not part or start.bodyless:
            return True
        if not start.chunked:
            return connection.write([part])
        if len(part) > JOINED:
            return connection.write([b"%x\r\n" % len(part), part, b"\r\n"])
        return connection.write([b"%x\r\n%b\r\n" % (len(part), part)])

    def finish(self, trailers: Trailers | None = None) -> None:
        """End the reply. ``trailers`` are dropped."""
        connection, start = self._end()
        if connection is not None and start is not None:
            last = _LAST_CHUNK if start.chunked and not start.bodyless else b""
            connection.finish(last, keep_alive=start.keep_alive)

    def fail(self) -> None:
        """Drop the connection before the last chunk: there is no other way to say that more should have come."""
        connection, _ = self._end()
        if connection is not None:
            connection.fail()

    def _end(self) -> tuple[Http1Connection | None, Start | None]:
        if self._finished:
            raise RuntimeError("an exchange is answered once")
        self._finished = True
        return self._connection, self._start

    def drained(self) -> None:
        """The client has read."""
        if self.on_drained is not None and not self._finished:
            self.on_drained()

    def lost(self) -> None:
        """The client has gone."""
        self._connection = None

    @property
    def finished(self) -> bool:
        """Whether it has come to its end, good or bad."""
        return self._finished

"""The client's end of an HTTP/1.1 connection: one request at a time, the connection kept between them."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from servable.transport.dial import dial
from servable.transport.errors import Failure, TransportError
from servable.transport.http1.alarm import Alarm
from servable.transport.http1.bodies import Body, BodyTooLargeError, ChunkedBody, CountedBody, RestOfConnection
from servable.transport.http1.heads import CHUNKED, END, UNTIL_CLOSE, ProtocolError, ReplyFacts, parse_reply
from servable.transport.http1.replies import CONNECTION_FIELDS, encode_fields, send
from servable.transport.limits import KIB, MIB
from servable.transport.reply import Reply
from servable.transport.tls import why_lost

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from servable.transport.address import Address
    from servable.transport.exchange import RequestHead

_MAX_KNOWN = 256
_MAX_KNOWN_HEAD = 2048  # bytes
_NEVER = float("inf")
_GIVEN_UP = frozenset({Failure.TIMEOUT, Failure.CANCELLED})
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time
_NOT_IN_LINE = re.compile(rb"[\x00-\x20\x7f-\xff]")
_BODY_METHODS = frozenset({b"POST", b"PUT", b"PATCH"})


@dataclass(frozen=True, slots=True)
class ReplyLimits:
    """What a client accepts from a server, in bytes."""

    max_head: int = 64 * KIB
    max_body: int = 2048 * MIB


def encode_request(head: RequestHead) -> bytes:
    """Return request line and fields, each with its CR LF, without the body's length."""
    if _NOT_IN_LINE.search(head.method + head.target) or _NOT_IN_LINE.search(head.authority):
        raise ValueError(f"{head!r} has a space or control byte where HTTP/1.1 can not carry one")
    host = b"host: %b\r\n" % head.authority if head.authority else b""
    line = b"%b %b HTTP/1.1\r\n" % (head.method, head.target)
    skip = CONNECTION_FIELDS | {b"host"} if host else CONNECTION_FIELDS
    return line + host + encode_fields(head.fields, skip)


class Http1ClientConnection(asyncio.Protocol):
    """Sends requests and gives each its reply, or a ``TransportError``, exactly once.

    Any failure ends the connection. ``on_close`` is called with this object when it is gone.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: ReplyLimits | None = None,
        on_close: Callable[[Http1ClientConnection], None] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits or ReplyLimits()
        self._loop = loop
        self._on_close = on_close
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._on_reply: Callable[[Reply | TransportError], None] | None = None  # set while a request is out
        self._bodyless = False
        self._facts: ReplyFacts | None = None  # set while a reply's body arrives
        self._body: Body = CountedBody(0, 0)
        self._buffer = b""
        self._known: dict[bytes, ReplyFacts] = {}
        self._last_head: RequestHead | None = None
        self._last_encoded = b""
        self._alarm = Alarm(loop, clock, self._on_due)

    @classmethod
    async def connect(
        cls,
        address: Address,
        limits: ReplyLimits | None = None,
        on_close: Callable[[Http1ClientConnection], None] | None = None,
        *,
        timeout_s: float = 10.0,
        tls: ssl.SSLContext | None = None,
    ) -> Http1ClientConnection:
        """Open a connection; raise ``TransportError`` if that fails or takes too long."""
        loop = asyncio.get_running_loop()
        return await dial(lambda: cls(loop, limits, on_close), address, timeout_s, tls)

    @property
    def ready(self) -> bool:
        """True if a request can be sent now."""
        return self._on_reply is None and self._transport is not None and not self._transport.is_closing()

    def request(
        self,
        head: RequestHead,
        body: bytes | memoryview,
        on_reply: Callable[[Reply | TransportError], None],
        timeout_s: float | None = None,
    ) -> None:
        """Send a request; ``on_reply`` is called once, later, on the loop, and may send the next.

        Raises ``TransportError`` (safe to retry) if the connection is not ``ready``.
        """
        transport = self._transport
        if transport is None or not self.ready:
            busy = self._on_reply is not None
            raise TransportError(Failure.NOT_STARTED, "the connection is busy" if busy else "the connection is closed")
        if head is not self._last_head:
            self._last_head, self._last_encoded = head, encode_request(head)
        self._on_reply = on_reply
        self._bodyless = head.method == b"HEAD"
        self._alarm.set(_NEVER if timeout_s is None else self._clock() + timeout_s)
        size = memoryview(body).nbytes
        if size:
            send(transport, [b"%bcontent-length: %d\r\n\r\n" % (self._last_encoded, size), body])
        elif head.method in _BODY_METHODS:
            transport.write(self._last_encoded + b"content-length: 0\r\n\r\n")
        else:
            transport.write(self._last_encoded + b"\r\n")

    async def fetch(self, head: RequestHead, body: bytes | memoryview = b"", timeout_s: float | None = None) -> Reply:
        """Send a request and wait for its reply. Cancelling it ends the connection."""
        answer: asyncio.Future[Reply | TransportError] = self._loop.create_future()
        self.request(head, body, lambda result: None if answer.done() else answer.set_result(result), timeout_s)
        try:
            result = await answer
        except asyncio.CancelledError:
            self._fail(Failure.CANCELLED, "the request was cancelled")
            raise
        if isinstance(result, TransportError):
            raise result
        return result

    def close(self) -> None:
        """Close; a request that is out fails."""
        self._fail(Failure.CANCELLED, "the connection was closed by this side")

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready."""
        self._transport = transport  # type: ignore[assignment]  # always a stream's

    def data_received(self, data: bytes) -> None:
        """Put the reply together."""
        if self._on_reply is None:
            self._fail(Failure.MALFORMED, "the server sent bytes that nobody asked for")
            return
        try:
            self._take(self._buffer + data if self._buffer else data)
        except ProtocolError as error:
            self._fail(Failure.MALFORMED, error.text)
        except BodyTooLargeError:
            self._fail(Failure.MALFORMED, f"the reply's body exceeds {self._limits.max_body} bytes")

    def eof_received(self) -> bool:
        """Complete a reply that ends with the connection."""
        if self._facts is not None and isinstance(self._body, RestOfConnection):
            self._finish(self._facts, bytes(self._body.data), reusable=False)
        else:
            self._fail(Failure.LOST, "the server closed the connection before its reply was complete")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is out."""
        self._fail(Failure.LOST, why_lost(exc))
        self._transport = None
        self._alarm.stop()
        if self._on_close is not None:
            self._on_close(self)

    def _on_due(self) -> None:
        self._fail(Failure.TIMEOUT, "no reply in time")

    # The reply

    def _take(self, data: bytes) -> None:
        pos = 0
        facts = self._facts
        while facts is None:
            end = data.find(END, pos) + 4
            if end == 3:
                if len(data) - pos > self._limits.max_head:
                    raise ProtocolError(431, f"the reply's head exceeds {self._limits.max_head} bytes")
                self._buffer = data[pos:]
                return
            facts = self._understand(data[pos:end])
            pos = end
            if facts.status < 200:
                facts = None  # an interim reply: the final one follows
        self._buffer = b""
        if self._facts is None:
            length = 0 if self._bodyless else facts.length
            if 0 <= length == len(data) - pos <= self._limits.max_body:
                self._finish(facts, data[pos:], reusable=True)
                return
            self._facts = facts
            self._body = self._new_body(length)
        while pos < len(data) and not self._body.done:
            pos = self._body.feed(data, pos)
        if self._body.done:
            self._finish(facts, bytes(self._body.data), reusable=pos == len(data))

    def _understand(self, head: bytes) -> ReplyFacts:
        facts = self._known.get(head)
        if facts is None:
            if len(head) > self._limits.max_head:
                raise ProtocolError(431, f"the reply's head exceeds {self._limits.max_head} bytes")
            facts = parse_reply(head)
            if len(head) <= _MAX_KNOWN_HEAD:
                if len(self._known) >= _MAX_KNOWN:
                    self._known.clear()
                self._known[head] = facts
        return facts

    def _new_body(self, length: int) -> Body:
        limit = self._limits.max_body
        if length == CHUNKED:
            return ChunkedBody(limit)
        if length == UNTIL_CLOSE:
            return RestOfConnection(limit)
        if length > limit:
            raise BodyTooLargeError
        return CountedBody(length, limit)

    def _finish(self, facts: ReplyFacts, body: bytes, *, reusable: bool) -> None:
        on_reply, self._on_reply = self._on_reply, None
        self._facts = None
        self._alarm.deadline = _NEVER
        if not (reusable and facts.keep_alive) and self._transport is not None:
            self._transport.close()
        if on_reply is not None:
            on_reply(Reply(facts.status, facts.fields, body))

    def _fail(self, failure: Failure, reason: str) -> None:
        on_reply, self._on_reply = self._on_reply, None
        self._facts = None
        if self._transport is not None and not self._transport.is_closing():
            if failure in _GIVEN_UP:
                _reset_on_close(self._transport)
            self._transport.abort()
        if on_reply is not None:
            on_reply(TransportError(failure, reason))


def _reset_on_close(transport: asyncio.Transport) -> None:
    """Have the server see a reset, not the end of a stream that may still want its reply: it can stop its work."""
    made: socket.socket | None = transport.get_extra_info("socket")
    if made is not None and made.family != socket.AF_UNIX:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

"""The server's streams: one exchange each, made from a template that its header block came to."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from servable.transport.exchange import PartedReply, RepliesInParts, ReplyHead, RequestHead, Route, Trailers
from servable.transport.http2 import frames
from servable.transport.http2.parts import StreamedReply
from servable.transport.http2.replies import BODYLESS, head_block, plain_block, trailers_block
from servable.transport.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from servable.transport.http2.connection import ServerConnection
    from servable.transport.http2.receiving import Incoming
    from servable.transport.http2.sending import Outgoing

log = logging.getLogger("servable.transport")


class Template:
    """What a header block means: all that is the same for every request with these bytes."""

    __slots__ = (
        "_is_grpc",
        "awaits_continue",
        "head",
        "inline",
        "length",
        "max_body",
        "prefix_size",
        "route",
        "stream",
        "wants_body",
    )

    def __init__(
        self,
        head: RequestHead,
        route: Route,
        length: int,
        limits: Limits,
        stream: type[ServerStream],
        *,
        awaits_continue: bool = False,
        oversized: bool = False,
    ) -> None:
        """``stream`` is what a request with this head becomes."""
        self.head = head
        self.route = route
        self.stream = stream
        self.length = length
        """The content length, or -1."""
        self.max_body = limits.max_body if route.max_body is None else route.max_body
        self.prefix_size = route.prefix_size
        self.awaits_continue = awaits_continue
        self.wants_body = route.wants_body and not (oversized or route.in_parts)
        self.inline = min(self.max_body, limits.initial_window, limits.max_frame) if self.wants_body else -1
        """The longest body that may be handed over straight from the frame behind the header block."""
        self._is_grpc: bool | None = None

    def is_grpc(self) -> bool:
        """Return True for a gRPC call, whose replies have their own rules. Most calls never need to know."""
        if self._is_grpc is None:
            self._is_grpc = (self.head.get(b"content-type") or b"").startswith(b"application/grpc")
        return self._is_grpc


class ServerStream(RepliesInParts):
    """A request of a client, and the way its reply takes."""

    __slots__ = ("answered", "connection", "credit", "ended", "incoming", "outgoing", "parts", "stream_id", "template")

    def __init__(self, connection: ServerConnection, stream_id: int, template: Template, *, ended: bool) -> None:
        self.head = template.head
        self.peer = connection.peer
        self.arrived = connection.now
        self.cancelled = False
        self.on_cancel: Callable[[], None] | None = None
        self.connection = connection
        self.stream_id = stream_id
        self.template = template
        self.answered = False
        self.ended = ended
        """The client has sent everything."""
        self.credit = 0
        self.incoming: Incoming | None = None
        self.outgoing: Outgoing | None = None
        self.parts: StreamedReply | None = None

    def respond(self, head: ReplyHead, body: bytes | memoryview = b"", trailers: Trailers | None = None) -> None:
        """Send the whole reply, or end the work on a cancelled request. ``body`` must not change any more."""
        if self.answered or self.parts is not None:
            if self.cancelled and self.parts is None:
                return
            raise RuntimeError("an exchange is answered once")
        self.answered = True
        connection = self.connection
        if not self.cancelled:
            if body.__class__ is memoryview:
                body = body.cast("B")
            block = head.encoded_h2 or head_block(head)
            if trailers is None:
                whole = self._send_without_trailers(head.status, block, body)
            else:
                tail = trailers.encoded_h2 or trailers_block(trailers)
                whole = connection.sender.send(self, block, body, tail)
            if whole:
                connection.finished(self)
            if not connection.in_turn:
                connection.sender.schedule()
        connection.work.ended()

    def begin(self, head: ReplyHead) -> PartedReply:
        """Send the head now and the rest in parts."""
        if self.answered or self.parts is not None:
            raise RuntimeError("an exchange is answered once")
        block = head.encoded_h2 or head_block(head)
        bodyless = head.status in BODYLESS or self.head.method == b"HEAD"
        if not self.template.is_grpc():
            block = plain_block(block, head.status, None)
        self.parts = StreamedReply(self, bodyless=bodyless)
        if not self.cancelled:
            sender = self.connection.sender
            sender.out.append(sender.head(self.stream_id, block, end_stream=bodyless))
            if not self.connection.in_turn:
                sender.schedule()
        return self.parts

    def take_unassembled(self, part: bytes, flow: int, *, end: bool) -> int:
        """Take DATA, or the end, of a body that nobody assembles; return an error code if the stream must be reset."""
        if end:
            self.connection.ended_unread(self)
        return frames.NO_ERROR

    def takes_tiny(self, size: int) -> bool:
        """Return True if DATA of ``size`` bytes is normal here, however small."""
        return False

    def owed_since(self) -> float | None:
        """Return when the client last sent some of a body that it owes, or ``None``."""
        return self.incoming.moved_at if self.incoming is not None else None

    def extend(self) -> None:
        """The receive window was set anew: let the client send what it may."""

    def stop_reading(self) -> None:
        """The request is answered, whether or not the client has ended it."""

    def cancel(self) -> None:
        """The client no longer waits: tell the one who works for it, once."""
        self.cancelled = True
        if self.parts is not None:
            self.parts.drop()
        on_cancel, self.on_cancel = self.on_cancel, None
        if on_cancel is not None and not self.answered:
            try:
                on_cancel()
            except Exception:
                log.exception("a callback on cancellation failed")

    def _send_without_trailers(self, status: int, block: bytes, body: bytes | memoryview) -> bool:
        """Send the reply of plain HTTP, or of a gRPC call that fails at once: then the head is all there is."""
        if not self.template.is_grpc():
            block = plain_block(block, status, len(body))
        if status in BODYLESS or self.head.method == b"HEAD":
            body = b""
        return self.connection.sender.send(self, block, body, None)

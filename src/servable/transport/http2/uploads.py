"""Request bodies in parts: each is given to its reader as it arrives, and the client's window follows the reader.

The connection's window is returned on arrival all the same, so one slow reader stalls its own stream and no other;
what its stream's window let in meanwhile counts as a body in assembly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servable.transport.exchange import PartedBody, PartReader, ReplyHead, TakesInParts, Trailers
from servable.transport.http2 import frames
from servable.transport.http2.refusals import CONTINUE
from servable.transport.http2.replies import head_block
from servable.transport.http2.streams import ServerStream, Template, log

if TYPE_CHECKING:
    from servable.transport.http2.connection import ServerConnection

_LEAST_DATA = 5
"""Bytes in the smallest DATA frame that clients send for a message of their own: gRPC's prefix. Less is a trick."""


class StreamedBody(PartedBody):
    """The body of one stream, and the stream's receive window."""

    __slots__ = ("_credit", "_early", "_ended", "_flow", "_reader", "_returned", "_stream", "_wanted", "held", "size")

    def __init__(self, stream: PartedStream) -> None:
        self._stream = stream
        self._reader: PartReader | None = None
        self._early = bytearray()
        """What came before there was a reader."""
        self._ended = False
        self.size = 0
        self.held = 0
        """Bytes not consumed."""
        self._wanted = 0
        """Where in the body the reader can go on."""
        self._flow = self._returned = self._credit = 0
        """Bytes of DATA frames received; of those, consumed or padding; WINDOW_UPDATEs given."""

    @property
    def starved(self) -> bool:
        """Whether the client owes bytes that it may send and the reader cannot go on without."""
        return self.size < self._wanted and not self._ended

    def start(self, reader: PartReader) -> None:
        """Hand over what has arrived, and from now on what comes."""
        self._reader = reader
        early, self._early = bytes(self._early), bytearray()
        if early:
            reader.data(early)
        if self._ended and not self._stream.answered:
            reader.end()

    def arrived(self, part: bytes, flow: int) -> int:
        """Take a piece that ``flow`` bytes of a frame brought; return an error code if the client may not send it."""
        connection = self._stream.connection
        receiver = connection.receiver
        size = len(part)
        self._flow += flow
        self._returned += flow - size
        self.size += size
        self.hold(size)
        if self._flow - self._credit > receiver.enforced_window:
            return frames.FLOW_CONTROL_ERROR
        if 0 <= self._stream.template.length < self.size:
            return frames.PROTOCOL_ERROR
        if (
            receiver.buffered > connection.limits.body_budget
            or connection.ledger.buffered > connection.ledger.body_budget
        ):
            connection.ledger.count("body_budget")
            return frames.ENHANCE_YOUR_CALM
        if self._reader is None:
            self._early += part
        elif part:
            self._reader.data(part)
        self.extend()
        return frames.NO_ERROR

    def end(self) -> int:
        """The client has sent everything; return an error code if that is too little."""
        if self._stream.template.length not in (-1, self.size):
            return frames.PROTOCOL_ERROR
        self._ended = True
        if self._reader is not None:
            self._reader.end()
        return frames.NO_ERROR

    def consume(self, size: int) -> None:
        """Free the memory and return the window."""
        size = min(size, self.held)
        if size > 0:
            self._returned += size
            self.hold(-size)
            self.extend()

    def need(self, size: int) -> None:
        """Open the window as far as the reader needs it."""
        self._wanted = self.size + size
        self._stream.moved_at = self._stream.connection.now
        self.extend()

    def extend(self) -> None:
        """Let the client send what it may: a window beyond what was consumed, and all that is needed."""
        stream = self._stream
        if self._ended or stream.answered or stream.cancelled:
            return
        receiver = stream.connection.receiver
        remaining = receiver.enforced_window + self._credit - self._flow
        needed = max(0, self._wanted - self.size)
        window = self._returned + receiver.advertised - self._flow
        increment = min(max(window, needed), frames.MAX_WINDOW) - remaining
        if increment > 0 and (increment >= receiver.advertised >> 1 or remaining < needed or not remaining):
            self._credit += increment
            stream.connection.sender.out.append(frames.window_update(stream.stream_id, increment))
            if not stream.connection.in_turn:
                stream.connection.sender.schedule()

    def hold(self, size: int) -> None:
        """Count ``size`` more bytes as memory of the connection and the process."""
        connection = self._stream.connection
        self.held += size
        connection.receiver.buffered += size
        connection.ledger.buffered += size

    def drop(self) -> None:
        """Forget what waits: nobody reads it any more."""
        self._early.clear()
        self.hold(-self.held)


class PartedStream(ServerStream, TakesInParts):
    """A request whose route takes the body in parts."""

    __slots__ = ("_body", "moved_at")

    def __init__(self, connection: ServerConnection, stream_id: int, template: Template, *, ended: bool) -> None:
        super().__init__(connection, stream_id, template, ended=ended)
        self._body: StreamedBody | None = StreamedBody(self)
        self.moved_at = connection.now
        if ended:
            self._body.end()

    def receive(self) -> PartedBody:
        """Return the flow of the body."""
        if self._body is None:
            raise RuntimeError("the body of an exchange is received before its answer")
        if self.template.awaits_continue and not self.ended:
            sender = self.connection.sender
            sender.out.append(sender.head(self.stream_id, CONTINUE.encoded_h2 or head_block(CONTINUE)))
        return self._body

    def take_unassembled(self, part: bytes, flow: int, *, end: bool) -> int:
        """Give DATA, or the end, to the reader."""
        body = self._body
        if body is None:
            return super().take_unassembled(part, flow, end=end)
        self.moved_at = self.connection.now
        self.ended = end
        try:
            code = body.arrived(part, flow)
            if end and not (code or self.answered):
                code = body.end()
        except Exception:  # noqa: BLE001  # whatever a reader raises ends this request alone
            log.exception("a route failed to take a body")
            return frames.INTERNAL_ERROR
        return code

    def takes_tiny(self, size: int) -> bool:
        """Small messages are what streams are made of."""
        return size >= _LEAST_DATA

    def owed_since(self) -> float | None:
        """Return when the client last sent something, if the reader can not go on without more."""
        return self.moved_at if self._body is not None and self._body.starved else None

    def extend(self) -> None:
        """The receive window was set anew."""
        if self._body is not None:
            self._body.extend()

    def respond(self, head: ReplyHead, body: bytes | memoryview = b"", trailers: Trailers | None = None) -> None:
        """Send the whole reply; what was not consumed is dropped."""
        self.stop_reading()
        super().respond(head, body, trailers)

    def stop_reading(self) -> None:
        """The request is over, or answered."""
        body, self._body = self._body, None
        if body is not None:
            body.drop()

    def cancel(self) -> None:
        """The client no longer waits."""
        self.stop_reading()
        super().cancel()

"""A reply in parts: what the producer has written and the client's windows hold back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from servable.transport.exchange import PartedReply, Trailers
from servable.transport.http2 import frames
from servable.transport.http2.replies import trailers_block
from servable.transport.limits import KIB, MIB

if TYPE_CHECKING:
    from servable.transport.http2.streams import ServerStream

_HIGH = 1 * MIB
_LOW = 256 * KIB
_AT_ONCE = 64 * KIB


class StreamedReply(PartedReply):
    """The parts of one stream. What waits counts as the connection's queued output."""

    __slots__ = ("_bodyless", "_held", "_parts", "_stream", "_tail", "_waited_for")

    def __init__(self, stream: ServerStream, *, bodyless: bool) -> None:
        """``bodyless``: the head ends the reply, whatever is written."""
        self.on_drained: Callable[[], None] | None = None
        self._stream = stream
        self._bodyless = bodyless
        self._parts: deque[bytes] = deque()
        self._held = 0
        self._tail = b""
        self._waited_for = False
        """The producer was told to wait."""

    def write(self, part: bytes) -> bool:
        """Send a part, now or when the client takes it."""
        stream = self._stream
        if stream.answered:
            if stream.cancelled:
                return True
            raise RuntimeError("the reply is finished")
        if stream.cancelled or not part or self._bodyless:
            return True
        connection = stream.connection
        if stream.outgoing is None and not self._parts:
            connection.sender.send_part(stream, part)
        else:
            self._parts.append(part)
            self._held += len(part)
            connection.sender.queued += len(part)
        if not connection.in_turn:
            connection.sender.schedule()
        self._waited_for = not self._is_welcome(_HIGH)
        return not self._waited_for

    def _is_welcome(self, held: int) -> bool:
        """Tell whether the producer should go on: little waits, here and on the whole connection.

        With nothing held it always may: nothing would go out from here that could tell it so later.
        """
        connection = self._stream.connection
        return not self._held or (self._held < held and connection.sender.queued <= connection.limits.max_outbound)

    def finish(self, trailers: Trailers | None = None) -> None:
        """End the reply after what was written. This frees the work slot, of a cancelled exchange too."""
        stream = self._stream
        self._answer()
        connection = stream.connection
        if not stream.cancelled:
            tail = self._last(trailers)
            if stream.outgoing is None and not self._parts:
                connection.sender.out.append(tail)
                connection.finished(stream)
            else:
                self._tail = tail
            if not connection.in_turn:
                connection.sender.schedule()
        connection.work.ended()

    def fail(self) -> None:
        """Reset the stream."""
        stream = self._stream
        self._answer()
        if not stream.cancelled:
            stream.connection.fail_stream(stream)
        stream.connection.work.ended()

    def _answer(self) -> None:
        stream = self._stream
        if stream.answered:
            raise RuntimeError("an exchange is answered once")
        stream.answered = True
        stream.stop_reading()

    def _last(self, trailers: Trailers | None) -> bytes:
        """Return the frames that end the stream."""
        stream = self._stream
        if self._bodyless:
            return b""
        if trailers is None:
            return frames.header(0, frames.DATA, frames.END_STREAM, stream.stream_id)
        block = trailers.encoded_h2 or trailers_block(trailers)
        return frames.headers(stream.stream_id, block, stream.connection.sender.max_frame, end_stream=True)

    def go_on(self) -> bool:
        """A part has gone out: send the next. Return False if that was the last, and its trailers are out."""
        stream = self._stream
        sender = stream.connection.sender
        while self._parts and stream.outgoing is None:
            sender.send_part(stream, self._take())
        if stream.outgoing is None and self._tail:
            sender.out.append(self._tail)
            return False
        return True

    def _take(self) -> bytes:
        """Return the next parts as one, small ones together."""
        taken: list[bytes] = []
        size = 0
        while self._parts and size < _AT_ONCE:
            taken.append(self._parts.popleft())
            size += len(taken[-1])
        self._held -= size
        self._stream.connection.sender.queued -= size
        if self._waited_for and self._is_welcome(_LOW):
            self._waited_for = False
            self._stream.connection.loop.call_soon(self._tell)
        return b"".join(taken)

    def _tell(self) -> None:
        if self.on_drained is not None and not (self._stream.answered or self._stream.cancelled):
            self.on_drained()

    def drop(self) -> None:
        """Forget what waits: nobody wants it any more."""
        self._stream.connection.sender.queued -= self._held
        self._parts.clear()
        self._held = 0
        self._tail = b""

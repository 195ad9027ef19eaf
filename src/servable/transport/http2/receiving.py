"""Flow control of what comes in, and the bodies being put together.

Bytes of a body are counted as consumed for the connection's window when they arrive, whatever becomes of their
stream: one slow or dead stream must never stall the others. Memory is bounded by the byte budget instead. Stream
credit is given up to the whole body, because nobody can consume half of a unary message.
"""

from __future__ import annotations

from servable.transport.http2 import frames
from servable.transport.http2.errors import PeerError
from servable.transport.http2.fields import UNKNOWN_LENGTH


class Incoming:
    """A body in assembly."""

    __slots__ = ("credit", "expected", "flow", "measured", "moved_at", "parts", "size")

    def __init__(self, expected: int, now: float) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.expected = expected
        """Length of the whole body if a field or its first bytes told it, else ``UNKNOWN_LENGTH``."""
        self.measured = False
        """The route has been asked for the length."""
        self.flow = 0
        """Bytes counted by flow control: the body and its padding."""
        self.credit = 0
        """WINDOW_UPDATEs given."""
        self.moved_at = now

    def add(self, part: bytes, now: float) -> None:
        """Append a piece of the body."""
        if part:
            self.parts.append(part)
            self.size += len(part)
        self.moved_at = now

    def prefix(self, size: int) -> bytes:
        """Return the first ``size`` bytes."""
        if len(self.parts[0]) < size:
            self.parts = [b"".join(self.parts)]
        return self.parts[0][:size]

    def take(self) -> bytes:
        """Return the body."""
        parts = self.parts
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Receiver:
    """The receive windows of one connection."""

    __slots__ = ("_window", "advertised", "buffered", "enforced_window", "unreturned")

    def __init__(self, connection_window: int, initial_window: int) -> None:
        self._window = max(connection_window, frames.DEFAULT_WINDOW)
        self.advertised = initial_window
        """The stream window that our SETTINGS give."""
        self.enforced_window = max(initial_window, frames.DEFAULT_WINDOW)
        """The stream window a peer may use: until it has seen our SETTINGS, at least the default."""
        self.unreturned = 0
        """Bytes received since the last WINDOW_UPDATE of the connection."""
        self.buffered = 0
        """Bytes of bodies in assembly."""

    def acknowledged(self) -> None:
        """The peer has applied our SETTINGS."""
        self.enforced_window = self.advertised

    def count(self, size: int) -> None:
        """Count a DATA frame; raise if the peer ignores the connection's window."""
        self.unreturned += size
        if self.unreturned > self._window:
            raise PeerError(frames.FLOW_CONTROL_ERROR, "connection window exceeded")

    def return_window(self, *, eager: bool) -> bytes:
        """Return the WINDOW_UPDATE due, or nothing. ``eager``: something else is being written anyway."""
        size = self.unreturned
        if size >= (self._window >> 3 if eager else self._window >> 1) and size:
            self.unreturned = 0
            return frames.window_update(0, size)
        return b""

    def extend(self, stream_id: int, body: Incoming) -> bytes:
        """Return the WINDOW_UPDATE that lets an unfinished body go on, or nothing.

        One exact step if the length of the body is known.
        """
        remaining = self.enforced_window + body.credit - body.flow
        needed = body.expected - body.size
        if body.expected != UNKNOWN_LENGTH and needed > 0:
            increment = min(needed, frames.MAX_WINDOW) - remaining
        elif remaining < self.advertised >> 1 or not remaining:
            increment = self.advertised - remaining
        else:
            return b""
        if increment <= 0:
            return b""
        body.credit += increment
        return frames.window_update(stream_id, increment)

"""Which streams there have been: the server's memory of a client's stream ids (RFC 9113, section 5.1). Pure."""

from __future__ import annotations

from collections import deque

from servable.transport.http2 import frames
from servable.transport.http2.errors import PeerError, protocol_error

_RECENT_S = 2.0
_RECENT = 256
_RECENT_MAX = 4096
_MAX_GAPS = 64


class StreamIds:
    """The ids a client has used, skipped and lost, and the last one it may use."""

    __slots__ = ("_gaps", "_recent", "_skipped", "highest", "last_allowed")

    def __init__(self) -> None:
        self.highest = 0
        """The highest id that HEADERS has opened."""
        self.last_allowed = frames.MAX_STREAM_ID
        """The id in our final GOAWAY. Streams above it are ignored: the client knows that they never began."""
        self._skipped = 0
        self._recent: dict[int, float] = {}
        self._gaps: deque[tuple[int, int]] = deque(maxlen=_MAX_GAPS)

    def opens(self, stream_id: int) -> bool:
        """Return True if HEADERS begins a request, False if it is to be ignored; raise if it cannot be."""
        if not stream_id & 1:
            raise protocol_error("clients use odd stream ids")
        if stream_id > self.last_allowed or stream_id in self._recent:
            return False
        if stream_id > self.highest:
            return True
        if any(first <= stream_id <= last for first, last in self._gaps):
            raise protocol_error("stream ids must grow")
        raise PeerError(frames.STREAM_CLOSED, "HEADERS on a closed stream")

    def count(self, stream_id: int) -> None:
        """Note a new stream; the ids below it that were never used are closed by it."""
        if stream_id > self.highest + 2:
            self._skipped += (stream_id - self.highest - 1) // 2
            self._gaps.append((self.highest + 1, stream_id - 1))
        self.highest = stream_id

    @property
    def opened(self) -> int:
        """How many streams there have been."""
        return (self.highest + 1) // 2 - self._skipped

    def note_reset(self, stream_id: int, now: float) -> None:
        """Note a stream that we reset: what is on its way to it is no offence."""
        recent = self._recent
        recent[stream_id] = now
        while len(recent) > _RECENT:
            oldest = next(iter(recent))
            if now - recent[oldest] < _RECENT_S and len(recent) <= _RECENT_MAX:
                break
            del recent[oldest]

    def check_data(self, stream_id: int) -> None:
        """Raise if DATA may not come for a stream that does not exist."""
        if self.is_idle(stream_id):
            raise protocol_error("DATA on an idle stream")
        if stream_id <= self.last_allowed and stream_id not in self._recent:
            raise PeerError(frames.STREAM_CLOSED, "DATA on a closed stream")

    def is_idle(self, stream_id: int) -> bool:
        """Return True if nothing but HEADERS and PRIORITY may mention the stream."""
        return not stream_id & 1 or self.highest < stream_id <= self.last_allowed

    def close(self) -> None:
        """Allow no further streams."""
        self.last_allowed = self.highest

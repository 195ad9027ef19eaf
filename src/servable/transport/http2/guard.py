"""What one peer may cost: every frame that is legal once and an attack a thousand times has a price.

The common frames of common calls are free or cost one subtraction. Everything else takes from a bucket; an empty one
ends the connection with ENHANCE_YOUR_CALM. The clock is the connection's, read once for each read.
"""

from __future__ import annotations

from servable.transport.http2 import frames
from servable.transport.http2.buckets import Allowance, Bucket
from servable.transport.http2.errors import PeerError
from servable.transport.limits import Rates

TINY = 64
"""DATA with fewer bytes that does not end its stream has a price where a stream is one message."""
_FREE_BLOCK = 256
"""Bytes of a header block that cost nothing: clients whose timeout changes send so much with every call."""


class Guard:
    """The account of one peer."""

    __slots__ = ("_buckets", "_empty_run", "_rates", "_strays", "_strays_left", "_updates", "meters_requests")

    def __init__(self, rates: Rates, now: float) -> None:
        self._rates = rates
        self._buckets = {
            "rapid_reset": Bucket(rates.resets_received, now),
            "own_reset": Bucket(rates.resets_caused, now),
            "settings_flood": Bucket(rates.settings, now),
            "ping_flood": Bucket(rates.pings, now),
            "empty_data": Bucket(rates.empty_data, now),
            "tiny_data": Bucket(rates.tiny_data, now),
            "glitches": Bucket(rates.glitches, now),
            "header_bytes": Bucket(rates.header_bytes, now),
            "data_dribble": Bucket(rates.dribbles, now),
        }
        self.meters_requests = rates.requests is not None
        if rates.requests is not None:
            self._buckets["request_rate"] = Bucket(rates.requests, now)
        self._empty_run = 0
        self._strays = Allowance()
        self._strays_left = 0.0
        self._updates = Allowance()

    def charge(self, event: str, now: float, amount: float = 1.0) -> None:
        """Take from the bucket of ``event``; raise if it is empty."""
        if not self._buckets[event].take(now, amount):
            raise _calm(event)

    def glitch(self, now: float) -> None:
        """Something harmless and pointless: an unknown frame, DATA for a closed stream, an unasked acknowledgement."""
        self.charge("glitches", now)

    def data(self, size: int, now: float, *, tiny_is_normal: bool) -> None:
        """DATA with fewer than ``TINY`` bytes that does not end its stream."""
        if size:
            self._empty_run = 0
            if not tiny_is_normal:
                self.charge("tiny_data", now)
            return
        self._empty_run += 1
        if self._empty_run > self._rates.empty_data_run:
            raise _calm("empty_data")
        self.charge("empty_data", now)

    def data_moves(self) -> None:
        """DATA of some size came."""
        self._empty_run = 0

    def header_block(self, size: int, now: float) -> None:
        """A header block has to be decoded."""
        if size > _FREE_BLOCK:
            self.charge("header_bytes", now, size - _FREE_BLOCK)

    def stray(self, streams_opened: int) -> None:
        """PRIORITY, or RST_STREAM for a stream that is over: some for every stream there was."""
        self._strays_left -= 1
        if self._strays_left < 0:
            self._strays_left += self._strays.more(self._rates.strays_per_stream * (1 + streams_opened))
            if self._strays_left < 0:
                raise _calm("priority_flood")

    def more_updates(self, streams_opened: int, data_frames: int) -> float:
        """Return how many further WINDOW_UPDATEs the peer may send; raise if none."""
        rates = self._rates
        # A reply that leaves at once is not counted as a frame of its own: every stream stands for one.
        sent = data_frames + streams_opened
        more = self._updates.more(
            rates.updates_free + rates.updates_per_stream * (streams_opened + rates.updates_per_data * sent)
        )
        if more <= 0:
            raise _calm("window_update_flood")
        return more


def _calm(event: str) -> PeerError:
    return PeerError(frames.ENHANCE_YOUR_CALM, event, event)

"""Token buckets: what a peer may do in a burst, and how fast that comes back. Pure: the clock is passed in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servable.transport.limits import Rate


class Bucket:
    """Full at first; refilled only when somebody takes from it."""

    __slots__ = ("_at", "_burst", "_left", "_per_second")

    def __init__(self, rate: Rate, now: float) -> None:
        self._burst = self._left = rate.burst
        self._per_second = rate.per_second
        self._at = now

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Take ``amount``; return False if there was less."""
        left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        self._left = left - amount
        return left >= amount


class Allowance:
    """A total over a connection's life that grows with what else the peer has done."""

    __slots__ = ("_granted",)

    def __init__(self) -> None:
        self._granted = 0.0

    def more(self, total: float) -> float:
        """Return how much of ``total`` has not been granted yet, and grant it."""
        more = total - self._granted
        self._granted = max(total, self._granted)
        return more

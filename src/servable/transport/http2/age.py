"""When a connection has lived long enough, and when to ask whether its client lives. Pure: the clock is passed in."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable

from servable.transport.limits import Limits

_JITTER = 0.1


class Step(enum.Enum):
    """What is due."""

    NOTHING = enum.auto()
    LEAVE = enum.auto()
    """The connection is old: let the client go elsewhere."""
    CUT = enum.auto()
    """The time to go elsewhere is over."""
    ASK = enum.auto()
    """Nothing has been heard for long: send a PING."""
    GIVE_UP = enum.auto()
    """The PING was not answered in time."""


class Age:
    """The clocks of one connection. Ages differ by a tenth, so that clients do not all come back at once."""

    __slots__ = ("_asked_at", "_cut_at", "_leave_at", "_limits")

    def __init__(self, limits: Limits, now: float, jitter: Callable[[float, float], float] = random.uniform) -> None:
        self._limits = limits
        self._leave_at = now + limits.max_connection_age_s * jitter(1 - _JITTER, 1 + _JITTER)
        self._cut_at = float("inf")
        self._asked_at: float | None = None

    def step(self, now: float, last_input: float) -> tuple[Step, float]:
        """Return what is to be done now, and when to ask again. ``last_input``: when the client was last heard."""
        limits = self._limits
        if now >= self._cut_at:
            return Step.CUT, float("inf")
        if now >= self._leave_at:
            self._leave_at = float("inf")
            self._cut_at = now + limits.max_connection_age_grace_s
            return Step.LEAVE, self._cut_at
        step = Step.NOTHING
        if self._asked_at is not None and last_input > self._asked_at:
            self._asked_at = None
        if self._asked_at is None and now >= last_input + limits.keepalive_interval_s:
            self._asked_at = now
            step = Step.ASK
        if self._asked_at is None:
            next_at = last_input + limits.keepalive_interval_s
        else:
            next_at = self._asked_at + limits.keepalive_timeout_s
            if now >= next_at and step is Step.NOTHING:
                return Step.GIVE_UP, float("inf")
        return step, min(next_at, self._leave_at, self._cut_at)


class PingPolicy:
    """Which PINGs of a client are too many (gRPC proposal A8). A measurement after our data never is one."""

    __slots__ = ("_last", "_limits", "_seen", "_strikes")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._last = float("-inf")
        self._strikes = 0
        self._seen: object = None

    def allows(self, now: float, work: object, *, busy: bool) -> bool:
        """Judge one PING. ``work`` is anything that differs once something has been sent in between."""
        limits = self._limits
        if work != self._seen:
            self._seen = work
            self._strikes = 0
            self._last = now
            return True
        least = limits.min_ping_interval_s if busy else limits.min_ping_interval_idle_s
        if now >= self._last + least:
            self._last = now
            return True
        self._strikes += 1
        return not limits.max_ping_strikes or self._strikes <= limits.max_ping_strikes

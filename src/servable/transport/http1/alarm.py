"""The one timer of a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_NEVER = float("inf")
_TICK_S = 0.001  # loops count in milliseconds


def _nobody() -> None:
    """Stands in for a connection that is gone."""


class Alarm:
    """Calls ``on_due`` when ``deadline`` has passed.

    Moving the deadline later is an assignment; the loop hears of it only when the old one comes up. After ``on_due``
    the alarm is off unless it was set again.
    """

    __slots__ = ("_armed_for", "_clock", "_handle", "_loop", "_on_due", "deadline")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], on_due: Callable[[], None]) -> None:
        self._loop = loop
        self._clock = clock
        self._on_due = on_due
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = _NEVER
        self.deadline = _NEVER

    def set(self, when: float) -> None:
        """Move the deadline to ``when``, in seconds of the clock."""
        self.deadline = when
        if when < self._armed_for:
            self._arm(when)

    def stop(self) -> None:
        """Turn it off for good, and let go of whom it would have called."""
        self._cancel()
        self._on_due = _nobody

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _arm(self, when: float) -> None:
        self._cancel()
        self._armed_for = when
        self._handle = self._loop.call_later(max(when - self._clock(), _TICK_S), self._fire)

    def _fire(self) -> None:
        self._armed_for = _NEVER
        if self.deadline == _NEVER:
            return
        if self._clock() + _TICK_S < self.deadline:
            self._arm(self.deadline)
        else:
            self._on_due()

"""Waking at the right microsecond: a kernel timer, and the last stretch awake.

Event loops round their timers to milliseconds, which a server that answers in one would show as its own latency.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

from servable.core.errors import failed_precondition

SPIN_NS = 100_000
"""The loop stays awake for this long before a time that is due: longer than the kernel takes to wake it."""
_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_ABSOLUTE = 1


class _Times(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "at_s", "at_ns")]


class Alarm:
    """Calls back when ``time.monotonic_ns()`` has reached a time: not before, and hardly after."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[int], None]) -> None:
        """``ring`` gets the time at which it is called."""
        self._loop = loop
        self._ring = ring
        self._due = 0
        self._set = False
        libc = ctypes.CDLL(None, use_errno=True)
        self._settime = libc.timerfd_settime
        self._settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.POINTER(_Times), ctypes.c_void_p)
        self._timer: int = libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._timer < 0:
            raise failed_precondition(f"this system has no timers to measure with: {os.strerror(ctypes.get_errno())}")
        self._times = _Times()
        loop.add_reader(self._timer, self._woken)

    def set(self, due_ns: int) -> None:
        """Ring at a time; one that has passed rings in the loop's next turn."""
        self._due = due_ns
        self._set = True
        if due_ns - time.monotonic_ns() <= SPIN_NS:
            self._loop.call_soon(self._spin)
        else:
            self._times.at_s, self._times.at_ns = divmod(due_ns - SPIN_NS, 1_000_000_000)
            self._settime(self._timer, _ABSOLUTE, ctypes.byref(self._times), None)

    def close(self) -> None:
        """Ring no more."""
        self._set = False
        self._loop.remove_reader(self._timer)
        os.close(self._timer)

    def _woken(self) -> None:
        os.read(self._timer, 8)
        self._spin()

    def _spin(self) -> None:
        if not self._set:
            return
        now = time.monotonic_ns()
        if now >= self._due:
            self._set = False
            self._ring(now)
        else:
            self._loop.call_soon(self._spin)

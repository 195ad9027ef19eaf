"""A test fails when it, or a server that it started, kept an event loop blocked for more than a second.

Loops of the test's own process are watched here, every one that ``asyncio.Runner`` runs, which ``asyncio.run`` does as
well. Servers watch theirs themselves, and log it: ``tests/e2e/server_process.py`` reads that line.

A machine that gives nobody its turn is no fault of a loop's. So a thread that only sleeps is the witness: by as much as
it was late itself, everybody else may have been, unless the loop was computing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")

BLOCKED_S = 1.0
_TICK_S = 0.1

found: list[str] = []
"""What was seen since ``begin``."""


class _Witness(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="witness", daemon=True)
        self.late_s = 0.0

    def run(self) -> None:
        while True:
            due = time.monotonic() + _TICK_S
            time.sleep(_TICK_S)
            self.late_s = max(self.late_s, time.monotonic() - due)


_witness = _Witness()


def begin() -> None:
    """Forget what was; a test begins."""
    found.clear()
    _witness.late_s = 0.0


def is_blocked(late_s: float, computing_s: float, starved_s: float = 0.0) -> bool:
    """Tell whether a loop that was late, and computed so much of that time, is to blame for it.

    ``starved_s`` is forgiven besides to a loop that did not compute.
    """
    return computing_s > BLOCKED_S or late_s - _witness.late_s > BLOCKED_S + starved_s


class Watch:
    """Ticks on a loop, and measures how late."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due = time.monotonic() + _TICK_S
        self._computed_s = time.thread_time()
        self._handle = loop.call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        self._judge()
        self._due = time.monotonic() + _TICK_S
        self._computed_s = time.thread_time()
        self._handle = self._loop.call_later(_TICK_S, self._tick)

    def _judge(self) -> None:
        late_s = time.monotonic() - self._due
        if late_s > BLOCKED_S and is_blocked(late_s, time.thread_time() - self._computed_s):
            found.append(f"{self._loop!r} was blocked for {late_s:.1f} s")

    def end(self) -> None:
        """Judge the last stretch, which no tick has come after."""
        self._handle.cancel()
        self._judge()


_run = asyncio.Runner.run


def run(self: asyncio.Runner, coro: Coroutine[Any, Any, T], *, context: Context | None = None) -> T:
    """Run as ``asyncio.Runner`` does, watched."""
    watch = Watch(self.get_loop())
    try:
        return _run(self, coro, context=context)
    finally:
        watch.end()


def install() -> None:
    """Watch every loop that is run from now on."""
    _witness.start()
    asyncio.Runner.run = run  # type: ignore[method-assign]

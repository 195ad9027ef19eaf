"""A test fails when it, or a server that it started, kept an event loop blocked for more than a second.

Loops of the test's own process are watched here, every one that ``asyncio.Runner`` runs, which ``asyncio.run`` does as
well. Servers watch theirs themselves, and log it: ``tests/e2e/server_process.py`` reads that line.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")

BLOCKED_S = 1.0
_TICK_S = 0.1

found: list[str] = []
"""What was seen since somebody last looked."""


class Watch:
    """Ticks on a loop, and measures how late."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due = time.monotonic() + _TICK_S
        self._handle = loop.call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        self._judge()
        self._due = time.monotonic() + _TICK_S
        self._handle = self._loop.call_later(_TICK_S, self._tick)

    def _judge(self) -> None:
        late_s = time.monotonic() - self._due
        if late_s > BLOCKED_S:
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
    asyncio.Runner.run = run  # type: ignore[method-assign]

"""How late the event loop comes to what is due: time that every connection waits for whatever holds the loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from servable.observe.instruments import Distribution

log = logging.getLogger("servable.observe")

LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
INTERVAL_S = 0.1
BLOCKED_S = 1.0
"""From here on it is worth a line: nothing that a server does on its loop may take so long."""


class LoopLag:
    """Looks ten times a second how late it is called; begins with ``start`` and ends with ``stop``."""

    __slots__ = ("_clock", "_computed_s", "_due", "_handle", "_lags", "_loop")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, lags: Distribution, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._loop = loop
        self._lags = lags
        self._clock = clock
        self._due = self._computed_s = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look."""
        self._due = self._clock() + INTERVAL_S
        self._computed_s = time.thread_time()
        self._handle = self._loop.call_later(INTERVAL_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look(self) -> None:
        late_s = max(0.0, self._clock() - self._due)
        self._lags.observe(late_s)
        if late_s > BLOCKED_S:
            computed_s = time.thread_time() - self._computed_s
            log.warning(
                "the event loop was blocked for %.1f s, computing for %.1f s of it: nobody was answered",
                late_s,
                computed_s,
            )
        self.start()

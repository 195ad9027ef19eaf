"""How many batches may be computed at once, and who comes next when all slots are taken."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Slots:
    """A bound that several runners share. Belongs to the event loop; those who wait take turns."""

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        self.limit = limit
        self._loop = loop
        self._taken = 0
        self._waiting: deque[Callable[[], None]] = deque()

    def take(self) -> bool:
        """Take a slot if one is free."""
        if self._taken >= self.limit:
            return False
        self._taken += 1
        return True

    def wait(self, granted: Callable[[], None]) -> None:
        """Have ``granted`` called, once, with a slot taken. Only for those to whom ``take`` has just refused one."""
        self._waiting.append(granted)

    def release(self) -> None:
        """Give a slot back: to the one who waits longest, if anyone does."""
        if self._waiting:
            self._loop.call_soon(self._waiting.popleft())
        else:
            self._taken -= 1

"""A configuration that is read again and again: what it says is applied wholly, or the one before stays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from servable.core.errors import ServingError

log = logging.getLogger("servable.lifecycle")

Config = TypeVar("Config")


class Reload(Generic[Config]):
    """``read`` runs in a thread, ``apply`` on the loop; ``current`` is what is applied now, by whomever.

    Both raise ``ServingError`` for a configuration that cannot be taken, which changes nothing and is logged once. What
    is in ``file`` is read again only when that was written: reading a thousand models takes the interpreter half a
    second.
    """

    def __init__(
        self,
        file: Path,
        read: Callable[[], Config],
        apply: Callable[[Config], None],
        current: Callable[[], Config],
    ) -> None:
        self._file = file
        self._read = read
        self._apply = apply
        self._current = current
        self._known: tuple[tuple[int, ...], Config] | None = None
        self._problem = ""

    async def look(self) -> bool:
        """Read once; return whether something else is applied now."""
        try:
            wanted = await asyncio.to_thread(self._wanted)
            if wanted == self._current():
                self._problem = ""
                return False
            self._apply(wanted)
        except ServingError as error:
            if error.message != self._problem:
                log.error("the configuration of models stays what it was: %s", error.message)  # noqa: TRY400  # the text says all
            self._problem = error.message
            return False
        self._problem = ""
        log.info("the configuration of models was read again and applied")
        return True

    def _wanted(self) -> Config:
        mark = self._mark()
        if self._known is None or not mark or self._known[0] != mark:
            self._known = None
            self._known = (mark, self._read())
        return self._known[1]

    def _mark(self) -> tuple[int, ...]:
        """Return what changes when the file does; nothing if it cannot be looked at."""
        try:
            found = self._file.stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev

    async def watch(self, period_s: float) -> None:
        """Look every ``period_s``, for ever; cancel to end."""
        while True:
            await asyncio.sleep(period_s)
            await self.look()

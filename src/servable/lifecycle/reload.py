"""A configuration that is read again and again: what it says is applied wholly, or the one before stays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from servable.core.errors import ServingError

log = logging.getLogger("servable.lifecycle")

Config = TypeVar("Config")


class Reload(Generic[Config]):
    """``read`` runs in a thread, ``apply`` on the loop; ``current`` is what is applied now, by whomever.

    Both raise ``ServingError`` for a configuration that cannot be taken, which changes nothing and is logged once.
    """

    def __init__(
        self, read: Callable[[], Config], apply: Callable[[Config], None], current: Callable[[], Config]
    ) -> None:
        self._read = read
        self._apply = apply
        self._current = current
        self._problem = ""

    async def look(self) -> bool:
        """Read once; return whether something else is applied now."""
        try:
            wanted = await asyncio.to_thread(self._read)
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

    async def watch(self, period_s: float) -> None:
        """Look every ``period_s``, for ever; cancel to end."""
        while True:
            await asyncio.sleep(period_s)
            await self.look()

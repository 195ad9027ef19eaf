"""What the connections of one process share: the account of notable events, and one budget for unfinished bodies."""

from __future__ import annotations

import logging
from collections.abc import Callable

from servable.transport.limits import Limits

log = logging.getLogger("servable.transport")

_LOG_INTERVAL_S = 1.0


class Ledger:
    """Written on the event loop only. ``buffered`` counts the bytes of bodies in assembly, of all connections."""

    __slots__ = ("_log_at", "_report", "_report_stall", "_unlogged", "body_budget", "buffered")

    def __init__(
        self,
        report: Callable[[str], None] | None = None,
        body_budget: int | None = None,
        report_stall: Callable[[str, float], None] | None = None,
    ) -> None:
        """``report`` is called with the name of each event, ``report_stall`` with what waited and for how long.

        The names are fixed sets.
        """
        self._report = report
        self._report_stall = report_stall
        self.body_budget = Limits().process_body_budget if body_budget is None else body_budget
        self.buffered = 0
        self._log_at = float("-inf")
        self._unlogged = 0

    def count(self, event: str) -> None:
        """Count an event."""
        if self._report is not None:
            self._report(event)

    def stalled(self, what: str, seconds: float) -> None:
        """Count a wait for the peer: replies were ready, and its windows or its socket took no more."""
        if self._report_stall is not None:
            self._report_stall(what, seconds)

    def fault(self, event: str, peer: str, reason: str, now: float) -> None:
        """Count a connection that ended by its client's fault; log it, but at most one a second."""
        self.count(event)
        if now < self._log_at + _LOG_INTERVAL_S:
            self._unlogged += 1
            return
        more = f" ({self._unlogged} others since the last such line)" if self._unlogged else ""
        log.info("closed the connection of %s: %s%s", peer, reason, more)
        self._log_at = now
        self._unlogged = 0

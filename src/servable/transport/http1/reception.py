"""What HTTP/1.1 connections of a listener share: the application, the limits, the ledger, and the heads seen before."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from servable.transport.exchange import Route
from servable.transport.http1.exchange import INTERNAL_ERROR
from servable.transport.http1.heads import RequestFacts, parse_request
from servable.transport.ledger import Ledger

if TYPE_CHECKING:
    from servable.transport.exchange import Application, Exchange
    from servable.transport.limits import Limits

logger = logging.getLogger("servable.transport")

_MAX_KNOWN = 1024
_MAX_KNOWN_HEAD = 2048  # bytes


class _BrokenRoute(Route):
    """Stands in for the route that the application failed to choose."""

    __slots__ = ()

    wants_body = False

    def handle(self, exchange: Exchange, body: bytes) -> None:
        exchange.respond(INTERNAL_ERROR, b"internal error\n")


class Known:
    """A request head, understood and routed."""

    __slots__ = ("facts", "limit", "route", "wants_body")

    def __init__(self, facts: RequestFacts, route: Route, limit: int) -> None:
        self.facts = facts
        self.route = route
        self.limit = limit if route.max_body is None else route.max_body
        self.wants_body = route.wants_body


class Reception:
    """Understands request heads. A head that came before, byte for byte, costs one look into ``known``."""

    __slots__ = ("_application", "known", "ledger", "limits", "scheme")

    def __init__(
        self, application: Application, limits: Limits, scheme: bytes = b"http", ledger: Ledger | None = None
    ) -> None:
        self._application = application
        self.ledger = ledger or Ledger(body_budget=limits.process_body_budget)
        self.limits = limits
        self.scheme = scheme
        self.known: dict[bytes, Known] = {}

    def admit(self, head: bytes) -> Known:
        """Parse and route a head that is not in ``known``; raise ``ProtocolError`` if it breaks a rule."""
        facts = parse_request(head, self.limits, self.scheme)
        try:
            route = self._application.route(facts.head)
        except Exception:
            logger.exception("the application failed to route %r", facts.head)
            return Known(facts, _BrokenRoute(), self.limits.max_body)
        known = Known(facts, route, self.limits.max_body)
        if len(head) <= _MAX_KNOWN_HEAD:
            if len(self.known) >= _MAX_KNOWN:
                self.known.clear()
            self.known[head] = known
        return known

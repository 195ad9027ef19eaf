"""A request's body on its way in, from the moment it is known not to be here yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servable.transport.http1.bodies import Body, BodyTooLargeError, ChunkedBody, CountedBody, RestOfConnection
from servable.transport.http1.heads import CHUNKED, ProtocolError

if TYPE_CHECKING:
    from servable.transport.http1.exchange import Http1Exchange
    from servable.transport.ledger import Ledger
    from servable.transport.limits import Limits

_DRAINED = 64 * 1024  # an unwanted rest of a body up to this size is read, so that the connection can be kept
_GRACE_S = 10.0
_MIN_RATE = 500.0  # bytes a second, on average, after the grace period


class Upload:
    """Receives a body and hands it to the exchange, or discards what nobody wants.

    What is kept counts in the budget of the process until ``release``, which whoever drops an upload must call.
    """

    __slots__ = ("_asked", "_counted", "_ledger", "_since", "body", "exchange")

    def __init__(self, exchange: Http1Exchange, now: float, ledger: Ledger) -> None:
        known = exchange.known
        length = known.facts.length
        self.exchange = exchange
        self.body: Body = ChunkedBody(known.limit) if length == CHUNKED else CountedBody(length, known.limit)
        self._since = now
        self._asked = False
        self._ledger = ledger
        self._counted = 0

    @property
    def discarding(self) -> bool:
        """True when the exchange needs no more of the body."""
        return self.body.discarding

    def wanted(self) -> bool:
        """Tell whether the body is to be received; if not, the exchange is handled here and now."""
        exchange = self.exchange
        known = exchange.known
        if not known.wants_body:
            self.body.discard()
            exchange.handle(b"")
        elif known.facts.length > known.limit:
            self._too_large()
        return not self.body.discarding

    def take(self, data: bytes, pos: int) -> int:
        """Take bytes from ``pos`` on and return the position after them. Raise ``ProtocolError`` if malformed."""
        body = self.body
        try:
            pos = body.feed(data, pos)
        except BodyTooLargeError:
            self.body = RestOfConnection()
            self._too_large()
            return len(data)
        except ProtocolError:
            if not body.discarding:
                raise
            self.body = RestOfConnection()  # the exchange was handled: its reply will be the last
            return len(data)
        if not body.done and not body.discarding:
            prefix_size = self.exchange.known.route.prefix_size
            if not self._asked and 0 < prefix_size <= body.received:
                self._ask_size(prefix_size)
            self._count()
        return pos

    def _count(self) -> None:
        kept = len(self.body.data)
        self._ledger.buffered += kept - self._counted
        self._counted = kept
        if self._ledger.buffered > self._ledger.body_budget:
            self._ledger.count("body_budget")
            raise ProtocolError(503, "the server holds as many unfinished request bodies as it may; try again")

    def release(self) -> bytes:
        """Give back what was counted, and return the body."""
        self._ledger.buffered -= self._counted
        self._counted = 0
        return bytes(self.body.data)

    def _too_large(self) -> None:
        self.body.discard()
        self.release()
        self._ledger.count("http1_413")
        self.exchange.too_large()

    def _ask_size(self, prefix_size: int) -> None:
        self._asked = True
        size = self.exchange.body_size(bytes(self.body.data[:prefix_size]))
        if size < 0:
            self.body.discard()
        elif size > self.exchange.known.limit:
            self._too_large()

    def drainable(self) -> bool:
        """Tell whether so little is left that reading it is cheaper than a new connection."""
        remaining = self.body.remaining
        return remaining is not None and remaining <= _DRAINED and not self.exchange.known.facts.expects_continue

    def deadline(self, limits: Limits, now: float) -> float:
        """Return when the body is too slow: no byte for a while, or too few on average since it began."""
        return min(now + limits.body_progress_timeout_s, self._since + max(_GRACE_S, self.body.received / _MIN_RATE))

"""What can go wrong on a connection: faults that this side answers, and the error that a client's caller sees."""

from __future__ import annotations

from enum import Enum

from servable.transport.http2 import frames


class PeerError(Exception):
    """The peer broke a rule that ends the connection. ``reason`` goes into GOAWAY: short ASCII, no data of others."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def protocol_error(reason: str) -> PeerError:
    """Return the most common fault."""
    return PeerError(frames.PROTOCOL_ERROR, reason)


class MalformedError(ValueError):
    """A header list or body that breaks the rules of a message: its stream is reset, the connection lives."""


class Failure(Enum):
    """Why a request of ours got no reply."""

    NOT_STARTED = "not started"
    """The server has not begun it (refused, above its GOAWAY, never sent): safe to send again elsewhere."""
    RESET = "reset"
    """The server reset the stream; ``code`` says why."""
    LOST = "connection lost"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    MALFORMED = "malformed reply"
    """The reply broke the rules or the limits of this side."""


class TransportError(Exception):
    """A request ended without a reply. ``code`` is an HTTP/2 error code where the peer gave one, else ``None``."""

    def __init__(self, failure: Failure, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.failure = failure
        self.code = code

    @property
    def safe_to_retry(self) -> bool:
        """True if the server has certainly not begun the request."""
        return self.failure is Failure.NOT_STARTED

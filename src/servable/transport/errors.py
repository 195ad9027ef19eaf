"""The error that a client's caller sees, whatever protocol the request went over."""

from __future__ import annotations

from enum import Enum


class Failure(Enum):
    """Why a request of ours got no reply."""

    NOT_STARTED = "not started"
    """The server has not begun it (never sent, refused): safe to send again elsewhere."""
    RESET = "reset"
    """The server reset the stream; ``code`` says why."""
    LOST = "connection lost"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    MALFORMED = "malformed reply"
    """The reply broke the rules or the limits of this side."""


class TransportError(Exception):
    """A request ended without a reply. ``code`` is an HTTP/2 error code where the peer gave one, else ``None``."""

    def __init__(self, failure: Failure, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.failure = failure
        self.reason = reason
        self.code = code

    @property
    def retry_safe(self) -> bool:
        """True if the server has certainly not begun the request."""
        return self.failure is Failure.NOT_STARTED

"""What a peer can do wrong: to its connection, or to one message. Neither error leaves this package."""

from __future__ import annotations

from servable.transport.http2 import frames


class PeerError(Exception):
    """The peer broke a rule that ends the connection. ``reason`` goes into GOAWAY: short ASCII, no data of others.

    ``event`` is the name under which it is counted: by default that of the code.
    """

    def __init__(self, code: int, reason: str, event: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.event = event or f"goaway_{frames.code_name(code)}"


def protocol_error(reason: str) -> PeerError:
    """Return the most common fault."""
    return PeerError(frames.PROTOCOL_ERROR, reason)


class MalformedError(ValueError):
    """A header list or body that breaks the rules of a message: its stream is reset, the connection lives."""

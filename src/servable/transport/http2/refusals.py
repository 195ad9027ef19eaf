"""Replies that are the protocol's own business, and never the application's."""

from __future__ import annotations

from servable.transport.exchange import Exchange, ReplyHead, Route

_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)

CONTINUE = ReplyHead(100)


class Refusal(Route):
    """Answers at once, and reads no body."""

    __slots__ = ("_reply", "_text")
    wants_body = False

    def __init__(self, status: int, text: bytes) -> None:
        self._reply = ReplyHead(status, _TEXT)
        self._text = text

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Send the refusal."""
        exchange.respond(self._reply, self._text)


NO_TUNNELS = Refusal(501, b"this server opens no tunnels\n")
HEAD_TOO_LARGE = Refusal(431, b"the request's header fields are too large\n")

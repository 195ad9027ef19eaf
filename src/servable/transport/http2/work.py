"""Work slots: how much of the application one connection may keep busy.

A slot is taken when a request is handed over and freed when the work has really ended, not when the client resets
the stream: resetting streams buys nobody more work than waiting for replies does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from servable.transport.http2.sending import Sender
from servable.transport.http2.streams import ServerStream

log = logging.getLogger("servable.transport")


class Work:
    """Hands complete requests to their routes, as many at once as there are slots. The others wait in their order."""

    __slots__ = ("_broken", "_max_outbound", "_resuming", "_sender", "_slots", "active", "waiting")

    def __init__(self, slots: int, max_outbound: int, sender: Sender, broken: Callable[[ServerStream], None]) -> None:
        """``broken`` is told of a request whose route raised."""
        self.active = 0
        self.waiting: dict[int, tuple[ServerStream, bytes]] = {}
        self._slots = slots
        self._max_outbound = max_outbound
        self._sender = sender
        self._broken = broken
        self._resuming = False

    def start(self, stream: ServerStream, body: bytes) -> None:
        """Hand a request over, now or when there is room: a slot, and space for its reply."""
        if self.active >= self._slots or self._sender.queued > self._max_outbound:
            self.waiting[stream.stream_id] = (stream, body)
            return
        self.active += 1
        try:
            stream.template.route.handle(stream, body)
        except Exception:
            log.exception("a route failed")
            self._broken(stream)

    def ask(self, stream: ServerStream, question: Callable[[], int | None]) -> int:
        """Ask a route about a body. It may answer the request instead: then, or if it fails, the result is -1."""
        self.active += 1
        try:
            size = question()
        except Exception:
            log.exception("a route failed")
            self._broken(stream)
            return -1
        if size is None or size < 0 or stream.answered:
            return -1
        self.active -= 1
        return size

    def ended(self) -> None:
        """Free a slot."""
        self.active -= 1
        if self.waiting:
            self.resume()

    def resume(self) -> None:
        """Start what has been waiting, if it may."""
        if self._resuming:
            return  # a route that answers at once comes back here: the loop below goes on, the stack does not grow
        self._resuming = True
        try:
            while self.waiting and self.active < self._slots and self._sender.queued <= self._max_outbound:
                stream_id = next(iter(self.waiting))
                self.start(*self.waiting.pop(stream_id))
        finally:
            self._resuming = False

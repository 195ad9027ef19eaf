"""The client's streams: a request and the callback that waits for its outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from servable.transport.errors import TransportError
from servable.transport.exchange import Field, RequestHead
from servable.transport.reply import Reply

if TYPE_CHECKING:
    from servable.transport.http2.client import ClientConnection
    from servable.transport.http2.receiving import Incoming
    from servable.transport.http2.sending import Outgoing

log = logging.getLogger("servable.transport")

UNREAD_BYTES = 256 * 1024
"""What the reader of a reply in parts may leave unread before its server is held back."""

ReplyStart = tuple[int, tuple[Field, ...], int]
"""Status, fields, content length."""


Outcome = Reply | TransportError


class ClientStream:
    """A request on its way. After ``cancel`` its callback is not called any more."""

    __slots__ = (
        "_body",
        "connection",
        "credit",
        "deadline",
        "head",
        "incoming",
        "on_part",
        "on_reply",
        "outgoing",
        "sent",
        "start",
        "stream_id",
        "unread",
    )

    def __init__(
        self,
        connection: ClientConnection,
        head: RequestHead,
        body: bytes | memoryview,
        on_reply: Callable[[Outcome], None],
        deadline: float,
        on_part: Callable[[bytes], None] | None = None,
    ) -> None:
        self.connection = connection
        self.head = head
        self._body: bytes | memoryview = body
        self.on_reply: Callable[[Outcome], None] | None = on_reply
        self.on_part = on_part
        self.unread = 0
        """Bytes handed to ``on_part`` and not consumed."""
        self.deadline = deadline
        self.stream_id = 0
        self.credit = 0
        self.incoming: Incoming | None = None
        self.outgoing: Outgoing | None = None
        self.start: ReplyStart | None = None
        self.sent = False
        """All of the request is in the output."""

    def cancel(self) -> None:
        """Give the request up, and tell the server."""
        if self.on_reply is not None:
            self.on_reply = None
            self.connection.withdraw(self)

    def consume(self, size: int) -> None:
        """Say that ``size`` bytes which ``on_part`` got are done with: as many may be sent again."""
        self.unread -= size
        self.connection.go_on(self)

    def take_body(self) -> bytes | memoryview:
        """Hand the request's body over to be sent, and keep nothing of it."""
        body, self._body = self._body, b""
        return body

    def resolve(self, outcome: Outcome) -> None:
        """Call back, once."""
        on_reply, self.on_reply = self.on_reply, None
        if on_reply is not None:
            try:
                on_reply(outcome)
            except Exception:  # a caller's defect must not cost the other requests of the connection
                log.exception("a callback for a reply failed")

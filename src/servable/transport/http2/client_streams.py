"""The client's streams: a request, the callback that waits for it, and the reply it comes to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from servable.transport.exchange import Field, RequestHead
from servable.transport.http2.errors import TransportError

if TYPE_CHECKING:
    from servable.transport.http2.client import ClientConnection
    from servable.transport.http2.receiving import Incoming
    from servable.transport.http2.sending import Outgoing

log = logging.getLogger("servable.transport")

ReplyStart = tuple[int, tuple[Field, ...], int]
"""Status, fields, content length."""


class Reply:
    """What a request came to: a whole reply, or ``error`` and nothing else."""

    __slots__ = ("body", "error", "fields", "status", "trailers")

    def __init__(
        self,
        status: int = 0,
        fields: tuple[Field, ...] = (),
        body: bytes = b"",
        trailers: tuple[Field, ...] = (),
        error: TransportError | None = None,
    ) -> None:
        self.status = status
        self.fields = fields
        self.body = body
        self.trailers = trailers
        self.error = error


class ClientStream:
    """A request on its way. After ``cancel`` its callback is not called any more."""

    __slots__ = (
        "_body",
        "connection",
        "credit",
        "deadline",
        "head",
        "incoming",
        "on_reply",
        "outgoing",
        "sent",
        "start",
        "stream_id",
    )

    def __init__(
        self,
        connection: ClientConnection,
        head: RequestHead,
        body: bytes | memoryview,
        on_reply: Callable[[Reply], None],
        deadline: float,
    ) -> None:
        self.connection = connection
        self.head = head
        self._body: bytes | memoryview = body
        self.on_reply: Callable[[Reply], None] | None = on_reply
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

    def take_body(self) -> bytes | memoryview:
        """Hand the request's body over to be sent, and keep nothing of it."""
        body, self._body = self._body, b""
        return body

    def resolve(self, reply: Reply) -> None:
        """Call back, once."""
        on_reply, self.on_reply = self.on_reply, None
        if on_reply is not None:
            try:
                on_reply(reply)
            except Exception:  # a caller's defect must not cost the other requests of the connection
                log.exception("a callback for a reply failed")

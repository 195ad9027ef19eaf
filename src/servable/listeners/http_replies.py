"""How replies over HTTP leave: their heads, CORS, and gzip for clients that take it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from servable.core.errors import Code, ServingError
from servable.transport.exchange import Exchange, Field, ReplyHead
from servable.wire import tfserving_rest as tfserving

JSON_FIELDS: tuple[Field, ...] = ((b"content-type", tfserving.CONTENT_TYPE.encode()),)
CORS_FIELDS: tuple[Field, ...] = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
)
VARY = (b"vary", b"accept-encoding")
COMPRESSED_ON_LOOP = 16 * 1024
"""Bytes that are compressed at once, in a fraction of a millisecond; more than that in a thread."""
WORTHWHILE = 0.9
"""What is left of a body must be at most this part of it, else it goes as it is."""


@dataclass(frozen=True, slots=True)
class RestOptions:
    """``timeout_s`` ``None`` is unlimited. Bodies above ``offload_bytes`` are decoded in a thread, not on the loop.

    Replies of ``gzip_bytes`` and more are compressed for clients that accept gzip; 0 is none. ``cors`` lets scripts of
    other origins read replies. ``metrics_path`` is a second path of the metrics; "" is none.
    """

    timeout_s: float | None = 30.0
    offload_bytes: int = 256 * 1024
    cors: bool = False
    gzip_bytes: int = 4096
    metrics_path: str = ""


class Head:
    """What a kind of reply begins with, in the three forms that it can take."""

    __slots__ = ("plain", "varying", "zipped")

    def __init__(self, status: int, fields: tuple[Field, ...]) -> None:
        self.plain = ReplyHead(status, fields)
        self.varying = ReplyHead(status, (*fields, VARY))
        self.zipped = ReplyHead(status, (*fields, (b"content-encoding", b"gzip"), VARY))


class Replies:
    """Sends replies."""

    def __init__(self, options: RestOptions) -> None:
        fields = (*JSON_FIELDS, *CORS_FIELDS) if options.cors else JSON_FIELDS
        self.ok = Head(tfserving.http_status(Code.OK), fields)
        self._errors = {code: ReplyHead(tfserving.http_status(code), fields) for code in Code}
        self._too_large = ReplyHead(tfserving.HTTP_PAYLOAD_TOO_LARGE, fields)
        self._gzip_bytes = options.gzip_bytes

    def answer(self, exchange: Exchange, body: bytes, head: Head | None = None) -> None:
        """Send a body, by default one of JSON; compressed if it is large and the client takes that."""
        head = head or self.ok
        if self._gzip_bytes <= 0 or len(body) < self._gzip_bytes:
            exchange.respond(head.plain, body)
        elif not tfserving.accepts_gzip(exchange.head.get(b"accept-encoding")):
            exchange.respond(head.varying, body)
        elif len(body) <= COMPRESSED_ON_LOOP:
            _respond(exchange, head, body, tfserving.compress(body))
        else:
            task = asyncio.get_running_loop().run_in_executor(None, tfserving.compress, body)
            task.add_done_callback(lambda done: _respond(exchange, head, body, done.result()))

    def error(self, exchange: Exchange, error: ServingError) -> None:
        """Send an error as JSON."""
        exchange.respond(self._errors[error.code], tfserving.encode_error(error))

    def too_large(self, exchange: Exchange, error: ServingError) -> None:
        """Send an error with the status for bodies above a limit."""
        exchange.respond(self._too_large, tfserving.encode_error(error))

    def bare(self, exchange: Exchange, code: Code) -> None:
        """Send a status without a body."""
        exchange.respond(self.ok.plain if code is Code.OK else self._errors[code])


def _respond(exchange: Exchange, head: Head, body: bytes, zipped: bytes) -> None:
    if len(zipped) <= len(body) * WORTHWHILE:
        exchange.respond(head.zipped, zipped)
    else:
        exchange.respond(head.varying, body)

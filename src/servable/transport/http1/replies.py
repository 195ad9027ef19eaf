"""Replies to bytes. A reply head is encoded once and kept in it."""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from servable.transport.exchange import ReplyHead

if TYPE_CHECKING:
    import asyncio

    from servable.transport.exchange import Field
    from servable.transport.http1.heads import RequestFacts

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JOINED = 64 * 1024
"""Bodies up to this size are copied behind their head."""
BODYLESS = frozenset({204, 304})
CONNECTION_FIELDS = frozenset(
    {b"connection", b"content-length", b"date", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)
_TRY_AGAIN = (*_TEXT, (b"retry-after", b"1"))
_CUT = b"\r\n\0"
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class _Date:
    """The ``date`` field and the name of the one that follows it, made once a second."""

    __slots__ = ("field", "second")

    def __init__(self) -> None:
        self.second = -1
        self.field = b""

    def refresh(self, now: int) -> bytes:
        self.second = now
        self.field = b"date: %b\r\ncontent-length: " % formatdate(now, usegmt=True).encode()
        return self.field


_date = _Date()


def encode_head(head: ReplyHead) -> bytes:
    """Return status line and fields, each with its CR LF, without the fields that depend on the connection."""
    if not 200 <= head.status <= 999:
        raise ValueError(f"{head.status} is not the status of a final reply")
    status_line = b"HTTP/1.1 %d %b\r\n" % (head.status, _REASONS.get(head.status, b"Unknown"))
    head.encoded_h1 = status_line + encode_fields(head.fields)
    return head.encoded_h1


def encode_fields(fields: tuple[Field, ...], skip: frozenset[bytes] = CONNECTION_FIELDS) -> bytes:
    """Return the fields, each with its CR LF, without those in ``skip``.

    Bytes that could end a field are cut out: a value made from input can not begin another field or message.
    """
    return b"".join(
        b"%b: %b\r\n" % (name.translate(None, _CUT), value.translate(None, _CUT))
        for name, value in fields
        if name not in skip
    )


def encode_plain(head: ReplyHead, length: int) -> bytes:
    """Return the whole head of a reply with a body on a connection that stays open."""
    now = int(time.time())
    date = _date.field if now == _date.second else _date.refresh(now)
    return b"%b%b%d\r\n\r\n" % (head.encoded_h1 or encode_head(head), date, length)


def encode_any(
    head: ReplyHead, body: bytes | memoryview, version: bytes = b"1.1", *, keep_alive: bool, bodyless: bool = False
) -> list[bytes | memoryview]:
    """Return the whole of any reply, in pieces. ``bodyless``: head as it is, but no body (a reply to HEAD)."""
    encoded = encode_plain(head, memoryview(body).nbytes)
    if head.status in BODYLESS:
        encoded = encoded[: encoded.rindex(b"content-length: ")] + b"\r\n"
        bodyless = True
    if not keep_alive:
        encoded = encoded[:-2] + b"connection: close\r\n\r\n"
    elif version == b"1.0":
        encoded = encoded[:-2] + b"connection: keep-alive\r\n\r\n"
    return [encoded] if bodyless else [encoded, body]


def encode_refusal(status: int, text: str, *, bodyless: bool) -> list[bytes | memoryview]:
    """Return the transport's own last reply to a client, in pieces."""
    head = ReplyHead(status, _TRY_AGAIN if status == HTTPStatus.SERVICE_UNAVAILABLE else _TEXT)
    return encode_any(head, text.encode("ascii", "replace") + b"\n", keep_alive=False, bodyless=bodyless)


class Start:
    """How a reply in parts is framed."""

    __slots__ = ("bodyless", "chunked", "keep_alive")

    def __init__(self, facts: RequestFacts, status: int, *, keep_alive: bool) -> None:
        """``keep_alive``: whether the connection could be kept. Without chunks its end is the reply's."""
        self.bodyless = status in BODYLESS or facts.head.method == b"HEAD"
        self.chunked = facts.head.version != b"1.0" and status not in BODYLESS
        self.keep_alive = keep_alive and (self.chunked or self.bodyless)


def encode_start(head: ReplyHead, version: bytes, start: Start) -> bytes:
    """Return the head of a reply in parts."""
    encoded = encode_plain(head, 0)
    encoded = encoded[: encoded.rindex(b"content-length: ")]
    if start.chunked:
        encoded += b"transfer-encoding: chunked\r\n"
    if not start.keep_alive:
        encoded += b"connection: close\r\n"
    elif version == b"1.0":
        encoded += b"connection: keep-alive\r\n"
    return encoded + b"\r\n"


def send(transport: asyncio.WriteTransport, pieces: list[bytes | memoryview]) -> None:
    """Write all pieces in one call; small ones are joined, which is cheaper than a vector of them."""
    if len(pieces) == 1:
        transport.write(pieces[0])
    elif any(len(piece) > JOINED for piece in pieces):
        transport.writelines(pieces)
    else:
        transport.write(b"".join(pieces))

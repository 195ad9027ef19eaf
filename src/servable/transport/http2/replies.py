"""Replies as header blocks: made once for a head that is sent many times, with what plain HTTP adds to each."""

from __future__ import annotations

import time
from email.utils import formatdate

from servable.transport.exchange import Field, ReplyHead, Trailers
from servable.transport.http2.hpack import encode_block

BODYLESS = frozenset((204, 304))
_OURS = frozenset(
    (b"connection", b"content-length", b"date", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
_CUT = b"\r\n\0"
_CONTENT_LENGTH = b"\x0f\x0d"
"""A literal without indexing whose name is in the static table; what follows is a length and the text."""


def head_block(head: ReplyHead) -> bytes:
    """Return the encoded head, and keep it there."""
    head.encoded_h2 = block = encode_block(((b":status", b"%d" % head.status), *_sendable(head.fields)))
    return block


def trailers_block(trailers: Trailers) -> bytes:
    """Return the encoded trailers, and keep them there."""
    trailers.encoded_h2 = block = encode_block(_sendable(trailers.fields))
    return block


def _sendable(fields: tuple[Field, ...]) -> list[Field]:
    """Return the fields that a stream may carry; bytes that no value may hold are cut out, not left to the peer."""
    return [(name, value.translate(None, _CUT).strip(b" \t")) for name, value in fields if name not in _OURS]


class _Date:
    """The ``date`` field, encoded once a second."""

    __slots__ = ("block", "second")

    def __init__(self) -> None:
        self.second = -1
        self.block = b""

    def refresh(self, now: int) -> bytes:
        self.second = now
        self.block = encode_block(((b"date", formatdate(now, usegmt=True).encode()),))
        return self.block


_date = _Date()


def plain_block(block: bytes, status: int, size: int | None) -> bytes:
    """Return the block of a plain HTTP reply: with ``date``, and ``content-length`` where a body has a known one."""
    now = int(time.time())
    date = _date.block if now == _date.second else _date.refresh(now)
    if size is None or status in BODYLESS:
        return block + date
    length = b"%d" % size
    return b"%b%b%b%c%b" % (block, date, _CONTENT_LENGTH, len(length), length)

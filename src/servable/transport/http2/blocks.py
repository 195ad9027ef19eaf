"""Header blocks on their way in: put together from fragments, decoded in order, and remembered.

Decoding a block is a function of its bytes and of the compression table. A result may therefore be used again for
equal bytes if decoding them changes no table, and either nothing in them refers to the table or the table has not
changed since. Every other block is decoded, whatever becomes of its stream: skipping one would lose the table.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from servable.transport.exchange import Field
from servable.transport.http2 import frames
from servable.transport.http2.errors import PeerError, protocol_error
from servable.transport.http2.hpack import Decoder, HeaderListTooLongError, HpackError
from servable.transport.limits import Limits

T = TypeVar("T")

MAX_CACHED_BLOCK = 512
_MAX_SECRET_BLOCK = 256
_MAX_ENTRIES = 64


class BlockCache(Generic[T]):
    """What blocks seen before came to, for one role: a request must never be found as somebody's trailers."""

    __slots__ = ("_lasting", "seen")

    def __init__(self) -> None:
        self.seen: dict[bytes, T] = {}
        """Block -> product, right at this moment. The dictionary itself is never replaced."""
        self._lasting: dict[bytes, T] = {}

    def remember(self, block: bytes, product: T, decoder: Decoder) -> None:
        """Keep the product of the block that ``decoder`` decoded last, if equal bytes will mean it again."""
        if decoder.mutated or len(block) > (_MAX_SECRET_BLOCK if decoder.secret else MAX_CACHED_BLOCK):
            return
        if len(self.seen) >= _MAX_ENTRIES:
            self.seen.clear()
            self._lasting.clear()
        self.seen[block] = product
        if not decoder.dynamic:
            self._lasting[block] = product

    def table_changed(self) -> None:
        """Forget what depended on the table."""
        if len(self.seen) != len(self._lasting):
            self.seen.clear()
            self.seen.update(self._lasting)


class HeaderBlocks:
    """Assembles and decodes the header blocks of one connection, strictly in their order."""

    __slots__ = ("_caches", "_count", "_empty", "_flags", "_fragments", "_limits", "_size", "decoder", "stream_id")

    def __init__(self, limits: Limits, *caches: BlockCache[object]) -> None:
        self.decoder = Decoder(limits.max_header_list, limits.max_header_list_hard, limits.max_header_fields)
        self.stream_id = 0
        """The stream whose block is open; 0 if none is. Nothing but its CONTINUATION may follow then."""
        self._caches = caches
        self._limits = limits
        self._fragments: list[bytes] = []
        self._flags = self._size = self._count = self._empty = 0

    def begin(self, stream_id: int, flags: int, fragment: bytes) -> None:
        """Open a block that its HEADERS frame did not end."""
        self.stream_id = stream_id
        self._flags = flags
        self._fragments = [fragment]
        self._size = len(fragment)
        self._count = self._empty = 0

    def admit(self, size: int) -> None:
        """Raise if the open block, or a new one, may not grow by a frame of ``size`` bytes."""
        if size + (self._size if self.stream_id else 0) > self._limits.max_header_block:
            raise PeerError(frames.ENHANCE_YOUR_CALM, "header block too long", "continuation_flood")

    def add(self, fragment: bytes) -> None:
        """Add a CONTINUATION."""
        self._count += 1
        self._empty += not fragment
        if self._count > self._limits.max_continuations or self._empty > self._limits.max_empty_continuations:
            raise PeerError(frames.ENHANCE_YOUR_CALM, "too many CONTINUATION frames", "continuation_flood")
        self._fragments.append(fragment)
        self._size += len(fragment)

    def finish(self) -> tuple[int, bytes]:
        """Close the block; return the flags of its HEADERS frame and its bytes."""
        block = b"".join(self._fragments)
        self.stream_id = self._size = 0
        self._fragments = []
        return self._flags, block

    def decode(self, block: bytes) -> list[Field]:
        """Return the fields; raise ``PeerError`` if the table is lost."""
        try:
            fields = self.decoder.decode(block)
        except HeaderListTooLongError:
            raise PeerError(frames.ENHANCE_YOUR_CALM, "header list too long") from None
        except HpackError as error:
            raise PeerError(frames.COMPRESSION_ERROR, str(error)[:64]) from None
        if self.decoder.mutated:
            for cache in self._caches:
                cache.table_changed()
        return fields


def strip(payload: bytes, flags: int, stream_id: int) -> bytes:
    """Return a HEADERS payload without padding and priority."""
    start = 0
    end = len(payload)
    if flags & frames.PADDED:
        end -= payload[0]
        start = 1
    if flags & frames.PRIORITIZED:
        if int.from_bytes(payload[start : start + 4], "big") & frames.MAX_STREAM_ID == stream_id:
            raise protocol_error("stream depends on itself")
        start += 5
    if start > end:
        raise protocol_error("padding longer than the frame")
    return payload[start:end]

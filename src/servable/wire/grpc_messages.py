"""The messages of a gRPC stream: from bytes cut anywhere, and to bytes, compressed where that pays. Pure."""

from __future__ import annotations

from typing import Final

from servable.core.errors import internal
from servable.wire.grpc import PREFIX_SIZE, UNLIMITED, compress, message_size, wrap_message

LEAST_COMPRESSED: Final = 1024
"""Bytes of a message below which compressing it never pays."""
_PROBE = 32 * 1024
_WORTH = 0.9


class MessageBuffer:
    """Takes bytes as they arrive, gives whole messages. Nothing is cut before it is asked for."""

    __slots__ = ("_bytes", "_goal", "_limit")

    def __init__(self, limit: int = UNLIMITED) -> None:
        """``limit`` bounds the length of a message as it was sent."""
        self._bytes = bytearray()
        self._goal = 0
        """Length of the first message with its prefix, once the prefix is here."""
        self._limit = limit

    @property
    def empty(self) -> bool:
        """Whether nothing of a message is here."""
        return not self._bytes

    def add(self, part: bytes) -> None:
        """Append bytes."""
        self._bytes += part

    def missing(self) -> int:
        """Return how many bytes must come, as far as is known, before there is a message; 0 if there is one.

        RESOURCE_EXHAUSTED if it is to be longer than the limit, INTERNAL if it is no message.
        """
        have = len(self._bytes)
        if not self._goal:
            if have < PREFIX_SIZE:
                return PREFIX_SIZE - have
            self._goal = PREFIX_SIZE + message_size(bytes(self._bytes[:PREFIX_SIZE]), self._limit)
        return max(0, self._goal - have)

    def take(self) -> tuple[bytes, bool]:
        """Return the first message, without its prefix, and whether it is compressed. There must be one."""
        goal, self._goal = self._goal, 0
        compressed = self._bytes[0] == 1
        with memoryview(self._bytes) as view:
            message = view[PREFIX_SIZE:goal].tobytes()
        del self._bytes[:goal]
        return message, compressed

    def check_end(self) -> None:
        """Raise INTERNAL if the stream has ended inside a message."""
        have = len(self._bytes)
        if not have:
            return
        if have < PREFIX_SIZE:
            raise internal(f"the request ends inside a message: {have} bytes came of a 5-byte prefix")
        raise internal(
            f"the request ends inside a message: {have - PREFIX_SIZE} bytes came of {self._goal - PREFIX_SIZE}"
        )


def pack_message(message: bytes, encoding: bytes) -> bytes:
    """Return a message with its prefix, compressed if that makes it at least a tenth smaller.

    What the first bytes of a long message come to decides for all of it: floats of a network hardly ever pay.
    """
    if len(message) < LEAST_COMPRESSED:
        return wrap_message(message)
    if len(message) > 2 * _PROBE and len(compress(message[:_PROBE], encoding)) > _WORTH * _PROBE:
        return wrap_message(message)
    packed = compress(message, encoding)
    return packed if len(packed) <= _WORTH * len(message) else wrap_message(message)

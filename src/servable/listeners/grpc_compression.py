"""Compressed messages: small ones here and now, large ones in threads, so that nobody else waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from servable.transport.exchange import ReplyHead
from servable.wire import grpc as wire
from servable.wire.grpc_messages import LEAST_COMPRESSED, pack_message

MAX_MESSAGE = 256 * 1024 * 1024
"""Bytes of a message of a stream, and bytes that a compressed message may grow to."""
OFFLOAD_BYTES = 64 * 1024
"""A message above this size is compressed in a thread."""
OFFLOAD_COMPRESSED_BYTES = 4 * 1024
"""A message above this size is decompressed in a thread: it may be a thousand times as long as it looks."""
_THREADS = ThreadPoolExecutor(2, "grpc-compression")
"""Few: each may hold a message of the largest size."""

COMPRESSED_HEADS = {
    encoding: ReplyHead(wire.HTTP_STATUS, (*wire.REPLY_FIELDS, (b"grpc-encoding", encoding)))
    for encoding in (b"gzip", b"deflate")
}


def pays(message: bytes, encoding: bytes | None) -> bool:
    """Return whether to try: the client takes the encoding and the message is not small."""
    return encoding is not None and len(message) >= LEAST_COMPRESSED


def pack(message: bytes, encoding: bytes, then: Callable[[bytes], None]) -> None:
    """Call ``then`` with the framed message, compressed if that pays: at once for a short one, else later."""
    if len(message) <= OFFLOAD_BYTES:
        then(pack_message(message, encoding))
        return
    work = asyncio.get_running_loop().run_in_executor(_THREADS, pack_message, message, encoding)
    work.add_done_callback(lambda done: then(done.result()))


def unpack(body: bytes, encoding: bytes | None, then: Callable[[Callable[[], bytes]], None]) -> None:
    """Call ``then`` with a function that returns the only message of ``body``, or raises ``ServingError``."""
    unwrap = partial(wire.unwrap_message, body, encoding, MAX_MESSAGE)
    if len(body) <= OFFLOAD_COMPRESSED_BYTES:
        then(lambda: bytes(unwrap()))
        return
    asyncio.get_running_loop().run_in_executor(_THREADS, unwrap).add_done_callback(
        lambda done: then(lambda: bytes(done.result()))
    )


async def unpacked(message: bytes, encoding: bytes | None, limit: int) -> bytes:
    """Return the content of a compressed message of a stream; ``ServingError`` if it is damaged or above ``limit``."""
    if len(message) <= OFFLOAD_COMPRESSED_BYTES:
        return wire.decompress(message, encoding, limit)
    return await asyncio.get_running_loop().run_in_executor(_THREADS, wire.decompress, message, encoding, limit)


async def packed(message: bytes, encoding: bytes | None) -> bytes:
    """Return a message of a stream with its prefix, compressed if that pays."""
    if encoding is None or not pays(message, encoding):
        return wire.wrap_message(message)
    if len(message) <= OFFLOAD_BYTES:
        return pack_message(message, encoding)
    return await asyncio.get_running_loop().run_in_executor(_THREADS, pack_message, message, encoding)

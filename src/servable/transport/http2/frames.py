"""Frames (RFC 9113, sections 4 and 6): their numbers, and how to write them."""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)
ENABLE_CONNECT_PROTOCOL = 8
NO_RFC7540_PRIORITIES = 9

(
    NO_ERROR,
    PROTOCOL_ERROR,
    INTERNAL_ERROR,
    FLOW_CONTROL_ERROR,
    SETTINGS_TIMEOUT,
    STREAM_CLOSED,
    FRAME_SIZE_ERROR,
    REFUSED_STREAM,
    CANCEL,
    COMPRESSION_ERROR,
    CONNECT_ERROR,
    ENHANCE_YOUR_CALM,
    INADEQUATE_SECURITY,
    HTTP_1_1_REQUIRED,
) = range(14)

_CODE_NAMES = (
    "no_error",
    "protocol_error",
    "internal_error",
    "flow_control_error",
    "settings_timeout",
    "stream_closed",
    "frame_size_error",
    "refused_stream",
    "cancel",
    "compression_error",
    "connect_error",
    "enhance_your_calm",
    "inadequate_security",
    "http_1_1_required",
)

HEADER_SIZE = 9
MAX_STREAM_ID = 2**31 - 1
MAX_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65535
DEFAULT_MAX_FRAME = 16384
MAX_MAX_FRAME = 2**24 - 1

HEADER = Struct(">IBI")
"""Length and type in one number, flags, stream id; 9 bytes."""
SETTING = Struct(">HI")
_WORD = Struct(">IBII")
_TWO_WORDS = Struct(">IBIII")


def code_name(code: int) -> str:
    """Return the name of an error code, ``unknown`` for one that nobody has defined."""
    return _CODE_NAMES[code] if code < len(_CODE_NAMES) else "unknown"


def header(size: int, kind: int, flags: int, stream_id: int) -> bytes:
    """Return a frame header."""
    return HEADER.pack(size << 8 | kind, flags, stream_id)


def settings(entries: Iterable[tuple[int, int]]) -> bytes:
    """Return a SETTINGS frame."""
    payload = b"".join(SETTING.pack(key, value) for key, value in entries)
    return header(len(payload), SETTINGS, 0, 0) + payload


SETTINGS_ACK = header(0, SETTINGS, ACK, 0)


def ping(payload: bytes, flags: int = 0) -> bytes:
    """Return a PING frame; ``payload`` is 8 bytes."""
    return header(8, PING, flags, 0) + payload


def goaway(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    """Return a GOAWAY frame."""
    return _TWO_WORDS.pack(8 + len(debug) << 8 | GOAWAY, 0, 0, last_stream_id, code) + debug


def rst_stream(stream_id: int, code: int) -> bytes:
    """Return a RST_STREAM frame."""
    return _WORD.pack(4 << 8 | RST_STREAM, 0, stream_id, code)


def window_update(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame; stream 0 is the connection."""
    return _WORD.pack(4 << 8 | WINDOW_UPDATE, 0, stream_id, increment)


def headers(stream_id: int, block: bytes, max_frame: int, *, end_stream: bool) -> bytes:
    """Return a header block as HEADERS and as many CONTINUATION frames as the peer's frame size makes necessary."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_frame:
        return HEADER.pack(len(block) << 8 | HEADERS, flags | END_HEADERS, stream_id) + block
    pieces = [header(max_frame, HEADERS, flags, stream_id), block[:max_frame]]
    for start in range(max_frame, len(block), max_frame):
        part = block[start : start + max_frame]
        last = start + max_frame >= len(block)
        pieces += (header(len(part), CONTINUATION, END_HEADERS if last else 0, stream_id), part)
    return b"".join(pieces)

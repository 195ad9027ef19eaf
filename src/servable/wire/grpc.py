"""What gRPC puts around messages: prefixes, compression, timeouts, statuses and metadata. Pure functions on bytes.

Nothing here knows a service. Statuses are ``ServingError`` with the codes and, where clients show them, the texts
that other gRPC servers use.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from dataclasses import dataclass
from typing import Final, TypeAlias

from servable.core.errors import Code, ServingError, internal, unimplemented
from servable.core.messages import Metadata

PREFIX_SIZE: Final = 5
HTTP_STATUS: Final = 200
HTTP_METHOD_NOT_ALLOWED: Final = 405
HTTP_UNSUPPORTED_MEDIA_TYPE: Final = 415
Field: TypeAlias = tuple[bytes, bytes]
REPLY_FIELDS: Final[tuple[Field, ...]] = ((b"content-type", b"application/grpc"),)
"""What every reply begins with, beside its HTTP status."""

ACCEPT_ENCODING: Final = b"identity,deflate,gzip"
"""The value of ``grpc-accept-encoding``: what ``decompress`` takes."""

UNLIMITED: Final = 2**31 - 1
_MAX_MESSAGE_BYTES = 1024
_MAX_TIMEOUT_S = 10 * 365 * 86400.0
_MAX_GZIP_MEMBERS = 16
_STEP_IN, _STEP_OUT = 64 * 1024, 1024 * 1024
"""Bytes that are decompressed at once: the interpreter's lock is held while a step's output is put together."""
_WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_UNITS_NS = ((b"n", 1), (b"u", 10**3), (b"m", 10**6), (b"S", 10**9), (b"M", 60 * 10**9))
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNSAFE = re.compile(rb"[^ -$&-~]|^ | $")
_KEY = re.compile(rb"[0-9a-z_.-]+")
_VALUE = re.compile(rb"[ -~]*")
_RESERVED = (b"grpc-", b"content-", b":")
_HOP_BY_HOP = frozenset(
    (b"te", b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"host", b"user-agent")
)
_HTTP_STATUSES = {
    400: Code.INTERNAL,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    431: Code.INTERNAL,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.UNAVAILABLE,
}


def is_grpc(content_type: bytes | None) -> bool:
    """Return whether a request is gRPC with protobuf messages. ``application/grpc-web`` and ``+json`` are not."""
    if content_type is None:
        return False
    essence = content_type.split(b";", 1)[0].strip().lower()
    return essence in (b"application/grpc", b"application/grpc+proto")


@dataclass(frozen=True, slots=True)
class Call:
    """What the head of a call says. ``timeout_s`` is ``None`` without a deadline, 0 if it has passed already."""

    timeout_s: float | None = None
    encoding: bytes | None = None
    metadata: Metadata = ()
    reply_encoding: bytes | None = None
    """What large replies may be compressed with."""


def parse_call(fields: tuple[Field, ...], compression: bytes | None = None) -> Call:
    """Return what a request head says; ``ServingError`` for a timeout, encoding or metadata that gRPC has not.

    ``compression`` is what the server would compress replies with, ``gzip`` or ``deflate``, if the client takes it.
    """
    timeouts = [value for name, value in fields if name == b"grpc-timeout"]
    encodings = [value for name, value in fields if name == b"grpc-encoding"]
    if len(timeouts) > 1 or len(encodings) > 1:
        raise internal("grpc-timeout and grpc-encoding may be sent once each")
    encoding = encodings[0] if encodings else None
    check_encoding(encoding)
    reply_encoding = compression if compression and compression in accepted_encodings(fields) else None
    return Call(parse_timeout(timeouts[0]) if timeouts else None, encoding, decode_metadata(fields), reply_encoding)


def accepted_encodings(fields: tuple[Field, ...]) -> list[bytes]:
    """Return the entries of ``grpc-accept-encoding``."""
    values = [value for name, value in fields if name == b"grpc-accept-encoding"]
    return [entry.strip() for entry in b",".join(values).split(b",")]


def service_of(method: bytes) -> str:
    """Return the full name of a method's service: ``a.B`` of ``/a.B/C``."""
    return method[1:].partition(b"/")[0].decode("latin-1")


def wrap_message(message: bytes) -> bytes:
    """Return a message with its prefix: not compressed."""
    return b"\x00" + len(message).to_bytes(4, "big") + message


def message_size(prefix: bytes, limit: int = UNLIMITED) -> int:
    """Return the length of the message that a prefix of at least 5 bytes announces, before it has arrived.

    RESOURCE_EXHAUSTED above ``limit`` bytes, INTERNAL for a flag that gRPC does not know.
    """
    if prefix[0] > 1:
        raise internal(f"grpc: received unexpected payload format {prefix[0]}")
    size = int.from_bytes(prefix[1:PREFIX_SIZE], "big")
    if size > limit:
        raise ServingError(Code.RESOURCE_EXHAUSTED, f"SERVER: Received message larger than max ({size} vs. {limit})")
    return size


def unwrap_message(body: bytes, encoding: bytes | None = None, limit: int | None = None) -> bytes | memoryview:
    """Return the only message of a unary body, decompressed. ``limit`` bounds its length, compressed or not.

    A message that is not compressed is a view. Where speed matters, ask ``is_plain`` and decode in place.
    """
    limit = UNLIMITED if limit is None else limit
    if not body:
        raise unimplemented("Half-closed without a request")
    if len(body) < PREFIX_SIZE:
        raise internal(f"the request ends inside a message: {len(body)} bytes came of a 5-byte prefix")
    size = message_size(body, limit)
    if len(body) < PREFIX_SIZE + size:
        raise internal(f"the request ends inside a message: {len(body) - PREFIX_SIZE} bytes came of {size}")
    if len(body) > PREFIX_SIZE + size:
        raise unimplemented("Too many requests: a unary call takes one message")
    if body[0] == 0:
        return memoryview(body)[PREFIX_SIZE:]
    return decompress(body[PREFIX_SIZE:], encoding, limit)


def is_plain(body: bytes) -> bool:
    """Return whether a body is exactly one message that is not compressed: it then starts at byte 5."""
    return len(body) >= PREFIX_SIZE and body[0] == 0 and int.from_bytes(body[1:5], "big") == len(body) - PREFIX_SIZE


def check_encoding(encoding: bytes | None) -> None:
    """Refuse a ``grpc-encoding`` that is not known, UNIMPLEMENTED; the reply should carry ``grpc-accept-encoding``."""
    if encoding not in (None, b"identity", *_WINDOW_BITS):
        name = printable(encoding or b"", 32)
        raise unimplemented(f'grpc: Decompressor is not installed for grpc-encoding "{name}"')


def decompress(data: bytes | memoryview, encoding: bytes | None, limit: int = UNLIMITED) -> bytes:
    """Return the content of a compressed message of at most ``limit`` bytes; RESOURCE_EXHAUSTED above, and no more
    than that is ever made. INTERNAL for what is damaged, or was not to be compressed at all.
    """
    check_encoding(encoding)
    if encoding is None or encoding == b"identity":
        raise internal("Compressed flag set with identity or empty encoding")
    pieces: list[bytes] = []
    left, position = limit, 0
    for _ in range(_MAX_GZIP_MEMBERS if encoding == b"gzip" else 1):
        stream = zlib.decompressobj(_WINDOW_BITS[encoding])
        while not stream.eof:
            part = stream.unconsumed_tail or data[position : position + _STEP_IN]
            if part is not stream.unconsumed_tail:
                position += len(part)
            try:
                piece = stream.decompress(part, _STEP_OUT)
            except zlib.error as failure:
                raise internal(f"the message is not valid {encoding.decode()}: {failure}") from None
            if not (part or piece or stream.eof):
                raise internal(f"the message is not valid {encoding.decode()}: it ends too early")
            left -= len(piece)
            if left < 0:
                message = f"received message after decompression larger than max {limit}"
                raise ServingError(Code.RESOURCE_EXHAUSTED, message)
            pieces.append(piece)
        position -= len(stream.unused_data)
        if position == len(data):
            return b"".join(pieces)
    raise internal(f"the message is not valid {encoding.decode()}: {len(data) - position} bytes follow its end")


def compress(message: bytes, encoding: bytes) -> bytes:
    """Return a message compressed as ``gzip`` or ``deflate``, quickly rather than well, with its prefix."""
    stream = zlib.compressobj(zlib.Z_BEST_SPEED, wbits=_WINDOW_BITS[encoding])
    data = stream.compress(message) + stream.flush()
    return b"\x01" + len(data).to_bytes(4, "big") + data


def parse_timeout(value: bytes) -> float:
    """Return the seconds of a ``grpc-timeout``: one to eight digits and a unit. INTERNAL for anything else.

    At most ten years; 0 means that the deadline has passed.
    """
    unit = _UNITS_S.get(value[-1:])
    if unit is None or not 2 <= len(value) <= 9 or not value[:-1].isdigit():
        raise internal(f"malformed grpc-timeout: {printable(value, 32)}")
    return min(int(value[:-1]) * unit, _MAX_TIMEOUT_S)


def format_timeout(seconds: float) -> bytes:
    """Return a ``grpc-timeout`` in the finest unit that eight digits allow, rounded up; the past is ``0n``."""
    nanoseconds = max(0, round(seconds * 1e9)) if seconds < _MAX_TIMEOUT_S else round(_MAX_TIMEOUT_S * 1e9)
    counts = ((-(-nanoseconds // size), unit) for unit, size in _UNITS_NS)
    return next(b"%d%b" % (count, unit) for count, unit in counts if count < 10**8)


def encode_error(error: ServingError) -> tuple[int, str]:
    """Return grpc-status and message; a message above 1024 bytes is cut, as TensorFlow Serving cuts it."""
    encoded = error.message.encode(errors="replace")
    if len(encoded) <= _MAX_MESSAGE_BYTES:
        return int(error.code), error.message
    return int(error.code), encoded[:_MAX_MESSAGE_BYTES].decode(errors="ignore") + "...TRUNCATED"


def decode_error(status: int, message: str) -> ServingError:
    """Return the error that a client received. A number that is no status becomes UNKNOWN, as in gRPC."""
    try:
        return ServingError(Code(status), message)
    except ValueError:
        return ServingError(Code.UNKNOWN, message)


def trailer_fields(status: int, message: str) -> tuple[Field, ...]:
    """Return the fields that end a reply; a message that is empty is left out."""
    fields = ((b"grpc-status", b"%d" % status),)
    return (*fields, (b"grpc-message", encode_message(message))) if message else fields


def printable(value: bytes, limit: int = 256) -> str:
    """Return what a client sent (a path, a name) in a form that is safe inside a message, cut to ``limit`` bytes."""
    return value[:limit].decode("latin-1").encode("unicode_escape").decode()


def encode_message(message: str) -> bytes:
    """Return the value of ``grpc-message``: UTF-8, percent-encoded outside of printable ASCII, and outer spaces too."""
    return _UNSAFE.sub(lambda found: b"%%%02X" % ord(found[0]), message.encode(errors="replace"))


def decode_message(value: bytes) -> str:
    """Return the text of a ``grpc-message``. Never fails: bad escapes stay, bytes that are not UTF-8 are replaced."""
    return _ESCAPED.sub(lambda found: bytes((int(found[1], 16),)), value).decode(errors="replace")


def status_of_http(status: int) -> Code:
    """Return what a client makes of a reply that has no ``grpc-status``."""
    return _HTTP_STATUSES.get(status, Code.UNKNOWN)


def parse_status(value: bytes) -> Code:
    """Return the code of a ``grpc-status``; UNKNOWN for what is no status."""
    if not value.isdigit() or len(value) > 2 or int(value) > Code.UNAUTHENTICATED:
        return Code.UNKNOWN
    return Code(int(value))


def decode_metadata(fields: tuple[Field, ...]) -> Metadata:
    """Return what the client sent for the application: not what HTTP and gRPC keep to themselves.

    ``-bin`` values become ``bytes``, each of several joined by commas by itself. INTERNAL if one is not base64.
    """
    found: list[tuple[str, str | bytes]] = []
    for name, value in fields:
        if name.startswith(_RESERVED) or name in _HOP_BY_HOP:
            continue
        key = name.decode("latin-1")
        if name.endswith(b"-bin"):
            found += [(key, decode_binary(piece, key)) for piece in value.split(b",")]
        else:
            found.append((key, value.strip(b" ").decode("latin-1")))
    return tuple(found)


def encode_metadata(metadata: Metadata) -> tuple[Field, ...]:
    """Return header fields. Entries that gRPC would not carry (names, characters) are ``ServingError``: INTERNAL."""
    fields = []
    for key, value in metadata:
        name = key.lower().encode("latin-1", "replace")
        if not _KEY.fullmatch(name) or name.startswith(_RESERVED) or name in _HOP_BY_HOP:
            raise internal(f"{key!r} cannot be a metadata key: lower-case letters, digits, '_', '.' and '-' can")
        if name.endswith(b"-bin"):
            data = value.encode() if isinstance(value, str) else value
            fields.append((name, base64.b64encode(data).rstrip(b"=")))
            continue
        text = (value.encode("latin-1", "replace") if isinstance(value, str) else value).strip(b" ")
        if not _VALUE.fullmatch(text):
            raise internal(f"the value of metadata {key!r} is not printable ASCII; a key that ends in -bin takes bytes")
        fields.append((name, text))
    return tuple(fields)


def decode_binary(value: bytes, key: str = "") -> bytes:
    """Return the bytes of one ``-bin`` value, padded or not; INTERNAL if it is not base64."""
    piece = value.strip(b" ").rstrip(b"=")
    try:
        return base64.b64decode(piece + b"=" * (-len(piece) % 4), validate=True)
    except binascii.Error:
        raise internal(f"the value of metadata {key!r} is not base64") from None

"""``grpc.health.v1.Health`` as method paths and message bytes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from servable.core.errors import invalid_argument
from servable.wire.varints import read_varint, varint

SERVICE = "grpc.health.v1.Health"
CHECK = b"/grpc.health.v1.Health/Check"
WATCH = b"/grpc.health.v1.Health/Watch"
LIST = b"/grpc.health.v1.Health/List"

_FIRST_VARINT, _FIRST_BYTES, _SECOND_BYTES = b"\x08", b"\x0a", b"\x12"
_FIXED_SIZES = {1: 8, 5: 4}


class Health(IntEnum):
    """``HealthCheckResponse.ServingStatus``."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3
    """Only in answers to Watch."""


def decode_health_request(body: bytes, start: int = 0) -> str:
    """Return the service asked about, "" for the whole server; raise INVALID_ARGUMENT if it is no such message."""
    service = b""
    position = start
    try:
        while position < len(body):
            tag, position = read_varint(body, position)
            size = 0
            if tag & 7 == 2:
                size, position = read_varint(body, position)
            elif tag & 7 == 0:
                _, position = read_varint(body, position)
            else:
                size = _FIXED_SIZES[tag & 7]
            if tag == _FIRST_BYTES[0]:
                service = body[position : position + size]
            position += size
        name = service.decode()
    except (ValueError, KeyError) as error:
        raise invalid_argument(f"the request is not a HealthCheckRequest: {error}") from None
    if position > len(body):
        raise invalid_argument("the request is not a HealthCheckRequest: its last field is cut off")
    return name


def encode_health(status: Health) -> bytes:
    """Return a ``HealthCheckResponse``."""
    return _FIRST_VARINT + varint(status) if status else b""


def encode_health_list(statuses: Mapping[str, Health]) -> bytes:
    """Return a ``HealthListResponse``."""
    entries: list[bytes] = []
    for service, status in statuses.items():
        answer = encode_health(status)
        name = service.encode()
        entry = b"".join((_FIRST_BYTES, varint(len(name)), name, _SECOND_BYTES, varint(len(answer)), answer))
        entries += (_FIRST_BYTES, varint(len(entry)), entry)
    return b"".join(entries)

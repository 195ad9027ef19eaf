"""``--grpc_channel_arguments``: what gRPC's own servers are told by name, as limits of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from servable.core.errors import invalid_argument

_FOREVER = 2**31 - 1
_MS = 1e-3
CORRESPONDING = {
    "grpc.max_concurrent_streams": ("max_concurrent_streams", 1),
    "grpc.max_receive_message_length": ("max_body", 1),
    "grpc.max_connection_age_ms": ("max_connection_age_s", _MS),
    "grpc.max_connection_age_grace_ms": ("max_connection_age_grace_s", _MS),
    "grpc.keepalive_time_ms": ("keepalive_interval_s", _MS),
    "grpc.keepalive_timeout_ms": ("keepalive_timeout_s", _MS),
    "grpc.http2.min_recv_ping_interval_without_data_ms": ("min_ping_interval_s", _MS),
    "grpc.http2.min_ping_interval_without_data_ms": ("min_ping_interval_s", _MS),
}
"""gRPC's name -> the field of ``Limits``, and one of its units in one of ours."""


@dataclass(frozen=True, slots=True)
class ChannelArguments:
    """The limits that the arguments give, and those that have none."""

    limits: Mapping[str, Any] = field(default_factory=dict)
    idle: tuple[str, ...] = ()


def channel_arguments(text: str) -> ChannelArguments:
    """Read ``NAME=VALUE,NAME=VALUE``. INVALID_ARGUMENT for a word without ``=``, or a number that is none."""
    limits: dict[str, Any] = {}
    idle = []
    for name, value in _pairs(text):
        known = CORRESPONDING.get(name)
        if known is None:
            idle.append(f"--grpc_channel_arguments: {name}: accepted, no effect because nothing here corresponds to it")
            continue
        try:
            number = int(value)
        except ValueError:
            error = f"--grpc_channel_arguments: {name}: expected a whole number, not {value!r}"
            raise invalid_argument(error) from None
        target, unit = known
        if number == -1 and unit == 1:  # without limit: ours stay
            idle.append(f"--grpc_channel_arguments: {name}: accepted, no effect because this server has its own limit")
        elif number < 1:
            raise invalid_argument(f"--grpc_channel_arguments: {name}: expected at least 1, not {number}")
        elif number >= _FOREVER and target.startswith("max_connection_age"):
            limits[target] = float("inf")
        else:
            limits[target] = number * unit
    return ChannelArguments(limits, tuple(idle))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = word.partition("=")
        if not separator or not name:
            raise invalid_argument(f"--grpc_channel_arguments: expected NAME=VALUE, not {word!r}")
        yield name.strip(), value.strip()

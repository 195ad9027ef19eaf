"""What travels between the measuring process and its client processes: pickles with their length before them.

Both ends are this package, started by each other; nothing here is read from elsewhere.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from servable.lab.exchange import Prepared, Wire
from servable.lab.judge import Tolerance
from servable.lab.recorder import Recording, Slice
from servable.lab.schedule import Schedule
from servable.transport.address import Address
from servable.transport.tls import ClientTlsOptions

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Job:
    """What one client process needs to know once."""

    address: Address
    tls: ClientTlsOptions | None
    wire: Wire
    prepared: tuple[Prepared, ...]
    tolerance: Tolerance
    timeout_s: float
    core: int | None = None
    """The processor to run on."""


@dataclass(frozen=True, slots=True)
class Order:
    """One step of one client process. Its times count from the moment of ``Go``."""

    load: Literal["closed", "burst", "open"]
    concurrency: int
    """Closed loop: requests in flight. Open loop: the most that may be."""
    links: int
    """Connections of HTTP/2; of HTTP/1.1 in an open loop, those opened before the first request."""
    warmup_ns: int
    duration_ns: int
    count: int | None = None
    schedule: Schedule | None = None
    share: int = 0
    shares: int = 1


@dataclass(frozen=True, slots=True)
class Go:
    """Begin the step that was ordered, at a time of ``time.monotonic_ns()``, which all processes share."""

    start_ns: int


@dataclass(frozen=True, slots=True)
class Window:
    """The warm-up was long enough: measure between these times."""

    begin_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Stop:
    """End the step now, and say what was seen."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The connections of a step are open."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A step could not begin."""

    message: str


ToClient = Job | Order | Go | Window | Stop
FromClient = Ready | Failed | Slice | Recording


def pack(message: ToClient | FromClient) -> bytes:
    """Return a message as bytes."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


class Unpacker:
    """Puts messages together from pieces of a pipe."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yield the messages that are complete now."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + size
            if len(self._buffer) < end:
                return
            message = pickle.loads(memoryview(self._buffer)[_LENGTH.size : end])  # noqa: S301  # our own child's or parent's
            del self._buffer[:end]
            yield message

"""Which protocol a new connection speaks, decided on its first bytes."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any, Protocol

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_TLS_HANDSHAKE = 0x16


class Opening(Enum):
    """What the first bytes of a connection say."""

    UNDECIDED = 0
    H1 = 1
    H2 = 2
    TLS = 3


def recognize(first: bytes) -> Opening:
    """Decide by comparing with HTTP/2's preface; anything that differs is HTTP/1.1's to judge."""
    if first.startswith(PREFACE):
        return Opening.H2
    if PREFACE.startswith(first):
        return Opening.UNDECIDED
    return Opening.TLS if first[0] == _TLS_HANDSHAKE else Opening.H1


class Host(Protocol):
    """Who owns connections: told of each step of theirs."""

    def opened(self, sniffer: Sniffer) -> None:
        """A connection was made."""

    def decided(self, sniffer: Sniffer, opening: Opening) -> None:
        """It is known what it speaks; ``sniffer.first`` has the bytes to hand on."""

    def closed(self, connection: Any) -> None:
        """It is gone."""


class Sniffer(asyncio.Protocol):
    """Holds a connection until it is recognized; it says nothing itself. Undecided for ``timeout_s``, it is closed."""

    __slots__ = ("_host", "_loop", "_timeout_s", "_timer", "first", "transport")

    transport: asyncio.Transport
    _timer: asyncio.TimerHandle

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        self._host = host
        self._loop = loop
        self._timeout_s = timeout_s
        self.first = b""

    @property
    def active(self) -> int:
        """No request has begun."""
        return 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait. Under TLS the handshake is over, and may have said what the connection speaks."""
        self.transport = transport  # type: ignore[assignment]  # always a stream's
        self._timer = self._loop.call_later(self._timeout_s, self.drain)
        self._host.opened(self)

    def data_received(self, data: bytes) -> None:
        """Decide as soon as the bytes allow."""
        self.first += data
        opening = recognize(self.first)
        if opening is not Opening.UNDECIDED:
            self.decide(opening)

    def decide(self, opening: Opening) -> None:
        """End the wait."""
        self._timer.cancel()
        self._host.decided(self, opening)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end."""
        self._timer.cancel()
        self._host.closed(self)

    def drain(self) -> None:
        """Close without a word. Under TLS even a close would wait for the client's."""
        if self.transport.can_write_eof():
            self.transport.close()
        else:
            self.transport.abort()

    def abort(self) -> None:
        """Drop the connection."""
        self.transport.abort()

"""Connections that a load holds open, opened again when a server has closed them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Protocol

from servable.core.errors import Code
from servable.lab.exchange import Fault
from servable.transport.address import Address
from servable.transport.errors import Failure, TransportError
from servable.transport.exchange import RequestHead
from servable.transport.http1.client import Http1ClientConnection
from servable.transport.http2.client import ClientConnection
from servable.transport.limits import MIB, Limits
from servable.transport.reply import Reply
from servable.transport.tls import H1, H2, ClientTlsOptions, client_context

Outcome = Reply | TransportError
_RETRY_S = 0.1
_GENEROUS = Limits(max_body=2048 * MIB, body_budget=8192 * MIB)
"""A reply that is refused here would be counted against the server."""
_CODES = {
    Failure.NOT_STARTED: Code.UNAVAILABLE.name,
    Failure.TIMEOUT: Code.DEADLINE_EXCEEDED.name,
    Failure.CANCELLED: Code.CANCELLED.name,
    Failure.RESET: "RESET",
    Failure.LOST: "CONNECTION LOST",
    Failure.MALFORMED: "MALFORMED REPLY",
}


class Connection(Protocol):
    """What the connections of both HTTP versions have in common."""

    def request(self, head: RequestHead, body: bytes | memoryview, on_reply: Callable[[Outcome], None]) -> Any:
        """Send; raise ``TransportError`` if that is not possible now."""

    def close(self) -> None:
        """Close."""


class Waiting(Protocol):
    """Someone who wants to send as soon as a link is open."""

    def send(self) -> None:
        """The link is open."""

    def unsent(self, error: TransportError) -> None:
        """It could not be opened."""


class _NotOpen:
    """Stands in for a connection before there is one."""

    def request(self, _head: RequestHead, _body: bytes | memoryview, _on_reply: Callable[[Outcome], None]) -> Any:
        raise TransportError(Failure.NOT_STARTED, "the connection is not open")

    def close(self) -> None:
        pass


class Link:
    """One connection's place. ``connection`` is replaced when it breaks, when somebody next wants to send."""

    __slots__ = ("_connector", "_opening", "_waiting", "connection")

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._waiting: list[Waiting] = []
        self._opening: asyncio.Task[None] | None = None
        self.connection: Connection = _NotOpen()

    def open_for(self, waiting: Waiting) -> None:
        """Open the link again, then let the one who waits send; all who wait fail together if that fails."""
        self._waiting.append(waiting)
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open())

    async def open(self) -> None:
        """Open the link now; raise ``TransportError`` if that fails."""
        self.connection = await self._connector.connect()

    def close(self) -> None:
        """Close the connection and forget who waits."""
        self._waiting.clear()
        if self._opening is not None:
            self._opening.cancel()
        self.connection.close()

    async def _open(self) -> None:
        failure = None
        try:
            await self.open()
        except TransportError as error:
            failure = error
            await asyncio.sleep(_RETRY_S)  # a server that is down is not asked as fast as this machine can
        self._opening = None
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if failure is None:
                one.send()
            else:
                one.unsent(failure)


class Connector:
    """How to reach a server."""

    def __init__(self, address: Address, tls: ClientTlsOptions | None, *, multiplexed: bool, timeout_s: float) -> None:
        self._address = address
        self._multiplexed = multiplexed
        self._timeout_s = timeout_s
        self._tls: ssl.SSLContext | None = None
        if tls is not None:
            self._tls = client_context(tls, [H2] if multiplexed else [H1])

    async def connect(self, on_close: Callable[[Any], None] | None = None) -> ClientConnection | Http1ClientConnection:
        """Open a connection; raise ``TransportError`` if that fails. ``on_close`` gets it when it is gone."""
        given: dict[str, Any] = {"on_close": on_close, "timeout_s": self._timeout_s, "tls": self._tls}
        if self._multiplexed:
            return await ClientConnection.connect(self._address, _GENEROUS, **given)
        return await Http1ClientConnection.connect(self._address, **given)


def fault_of(error: TransportError) -> Fault:
    """Return how reports count a request that got no reply."""
    return Fault(_CODES[error.failure], error.reason)

"""Listeners: a bound address, the connections accepted on it, and their orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from servable.core.errors import failed_precondition
from servable.transport.address import Address
from servable.transport.exchange import Peer
from servable.transport.handshakes import Handshakes
from servable.transport.http1.reception import Reception
from servable.transport.http1.server import Http1Connection
from servable.transport.http2.connection import ServerConnection
from servable.transport.ledger import Ledger
from servable.transport.limits import KIB, Limits
from servable.transport.sniff import Opening, Sniffer
from servable.transport.sockets import UnixFile, bind, explain
from servable.transport.tls import H1, H2, client_certificate

if TYPE_CHECKING:
    import socket
    import ssl

    from servable.transport.exchange import Application
    from servable.transport.tls_files import ServerTls

__all__ = ["ALL_PROTOCOLS", "Address", "ListenOptions", "Listener"]

logger = logging.getLogger("servable.transport")

ALL_PROTOCOLS = frozenset({"h1", "h2"})
_HIGH_WATER = 256 * KIB
_LOW_WATER = 64 * KIB
_OPENINGS = {H1: Opening.H1, H2: Opening.H2}
_H1_ONLY = "this port speaks HTTP/1.1; HTTP/2 and gRPC have another port"
_H2_ONLY = "this port speaks gRPC over HTTP/2; HTTP/1.1 has another port"


@dataclass(frozen=True, slots=True)
class ListenOptions:
    """What a listener does with its socket. ``backlog`` counts connections that the kernel holds for us."""

    backlog: int = 4096
    max_connections: int = 10_000
    """More are closed as they come."""
    reuse_port: bool = False
    """Several processes share the port."""
    unix_mode: int = 0o660
    """Permissions of a Unix socket's file."""


class _Connection(Protocol):
    """What every protocol on a connection offers its listener."""

    @property
    def active(self) -> int: ...

    def drain(self) -> None: ...

    def abort(self) -> None: ...


class Listener:
    """Accepts connections on one address for one application. All methods belong to the event loop's thread.

    With ``tls`` every connection begins with a handshake, and ALPN says what it speaks; one that says nothing there
    is recognized by its first bytes, as without TLS.
    """

    def __init__(
        self,
        address: Address,
        application: Application,
        limits: Limits | None = None,
        protocols: frozenset[str] = ALL_PROTOCOLS,
        options: ListenOptions | None = None,
        tls: ServerTls | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        """``ledger`` is shared by the listeners of a process; without one the listener has its own."""
        if not protocols or not protocols <= ALL_PROTOCOLS:
            raise ValueError(f"{sorted(protocols)} is no choice among {sorted(ALL_PROTOCOLS)}")
        self._address = address
        self._application = application
        self._limits = limits or Limits()
        self._protocols = protocols
        self._options = options or ListenOptions()
        self._ledger = ledger or Ledger(body_budget=self._limits.process_body_budget)
        self._tls = tls
        self._reception = Reception(application, self._limits, b"http" if tls is None else b"https", self._ledger)
        self._connections: set[_Connection] = set()
        self._bound: list[socket.socket] = []
        """Sockets that do not accept yet."""
        self._servers: list[asyncio.Server | Handshakes] = []
        self._shaking: list[Handshakes] = []
        self._file: UnixFile | None = None
        self._draining = False
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._loop: asyncio.AbstractEventLoop
        self.refused = 0
        """Connections closed because there were too many."""
        self.failed_handshakes = 0
        """Connections that did not get through TLS: cleartext, no shared version, a certificate that is not right."""

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self._tls is not None

    @property
    def address(self) -> Address:
        """The bound address: its port is the real one once the listener has started."""
        return self._address

    @property
    def protocols(self) -> frozenset[str]:
        """What the port speaks: ``h1``, ``h2`` or both."""
        return self._protocols

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def active(self) -> int:
        """How many requests are begun and not answered."""
        return sum(connection.active for connection in self._connections)

    def bind(self) -> None:
        """Take the address without accepting: who connects is refused until ``start``. Raises as that does."""
        if self._bound or self._servers or self._draining:
            raise failed_precondition(f"the listener on {self._address} was started before")
        options = self._options
        self._bound = bind(self._address, reuse_port=options.reuse_port, unix_mode=options.unix_mode)
        if self._address.path is None:
            self._address = Address(self._address.host, self._bound[0].getsockname()[1])
        elif not self._address.path.startswith("@"):
            self._file = UnixFile(self._address.path)

    async def start(self) -> None:
        """Bind, unless that was done, and accept. Raises ``ServingError`` with the address if that is impossible."""
        if not self._bound:
            self.bind()
        self._loop = asyncio.get_running_loop()
        try:
            for one in self._bound:
                self._servers.append(await self._serve(one))
        except OSError as error:
            self.stop_accepting()
            raise explain(self._address, error) from error
        self._bound = []

    async def _serve(self, bound: socket.socket) -> asyncio.Server | Handshakes:
        backlog = self._options.backlog
        if self._tls is not None:
            accepting = Handshakes(
                bound, self._limits, self._context, self._accept, self._admit, self._handshake_failed
            )
            accepting.start(backlog)
            self._shaking.append(accepting)
            return accepting
        if self._address.path is not None:
            return await self._loop.create_unix_server(self._accept, sock=bound, backlog=backlog)
        return await self._loop.create_server(self._accept, sock=bound, backlog=backlog)

    def stop_accepting(self) -> None:
        """Close the listening socket; open connections go on."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for one in self._bound:
            one.close()
        self._bound.clear()
        if self._file is not None:
            self._file.remove()
            self._file = None

    async def drain(self, timeout_s: float) -> int:
        """Stop accepting, let what was begun be answered, and close. Return how many connections had to be cut."""
        self._draining = True
        self.stop_accepting()
        for accepting in self._shaking:
            await accepting.cancel()
        for connection in list(self._connections):
            connection.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_closed.wait(), timeout_s)
        cut = list(self._connections)
        for connection in cut:
            connection.abort()
        await self._all_closed.wait()
        return len(cut)

    # What connections report

    def _accept(self) -> Sniffer:
        return Sniffer(self, self._loop, self._limits.preface_timeout_s)

    def _context(self) -> ssl.SSLContext:
        assert self._tls is not None
        return self._tls.context(self._protocols)

    def _admit(self) -> bool:
        """Return whether there is room for one more connection, or handshake, and count it if not."""
        count = len(self._connections) + sum(accepting.under_way for accepting in self._shaking)
        if count < self._options.max_connections and not self._draining:
            return True
        self.refused += 1
        self._ledger.count("connection_refused")
        if _is_worth_a_line(self.refused):
            logger.warning("%s: refused %d connections above the limit", self._address, self.refused)
        return False

    def _handshake_failed(self, reason: str) -> None:
        self.failed_handshakes += 1
        self._ledger.count("tls_handshake_failed")
        if _is_worth_a_line(self.failed_handshakes):
            logger.warning(
                "%s: %d TLS handshakes have failed, the last one: %s", self._address, self.failed_handshakes, reason
            )

    def opened(self, sniffer: Sniffer) -> None:
        """Count a new connection, or close it if it is one too many. ALPN decides at once what it speaks."""
        if self._draining or (self._tls is None and not self._admit()):  # with TLS it was admitted to its handshake
            sniffer.abort()
            return
        sniffer.transport.set_write_buffer_limits(high=_HIGH_WATER, low=_LOW_WATER)
        self._connections.add(sniffer)
        self._all_closed.clear()
        if self._tls is not None:
            agreed = sniffer.transport.get_extra_info("ssl_object").selected_alpn_protocol()
            if agreed is not None:
                sniffer.decide(_OPENINGS[agreed])

    def decided(self, sniffer: Sniffer, opening: Opening) -> None:
        """Give the connection to the protocol that it speaks, or refuse a protocol that this port does not offer."""
        transport = sniffer.transport
        if opening is Opening.TLS:
            logger.debug("%s: closed a TLS handshake: this port has no TLS, or not within TLS", self._address)
            sniffer.drain()
            return
        peer = _peer(transport, self._address)
        connection: ServerConnection | Http1Connection
        if opening is Opening.H2 and "h2" in self._protocols:
            connection = ServerConnection(
                self._application, self._limits, peer, self._loop, self.closed, ledger=self._ledger
            )
        else:
            connection = Http1Connection(
                self._application, self._limits, peer, self._loop, self.closed, reception=self._reception
            )
        self._connections.discard(sniffer)
        self._connections.add(connection)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if isinstance(connection, Http1Connection) and (opening is Opening.H2 or "h1" not in self._protocols):
            connection.reject(400, _H1_ONLY if opening is Opening.H2 else _H2_ONLY)
        elif sniffer.first:
            connection.data_received(sniffer.first)

    def closed(self, connection: Any) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        if not self._connections:
            self._all_closed.set()


def _peer(transport: asyncio.Transport, address: Address) -> Peer:
    if address.path is not None:
        return Peer(str(address), local=True)
    name = transport.get_extra_info("peername")
    if not name:  # gone already
        return Peer("unknown", local=False)
    host = ipaddress.ip_address(name[0].partition("%")[0])
    mapped = getattr(host, "ipv4_mapped", None)
    return Peer(
        str(Address(str(mapped or host), name[1])),
        local=(mapped or host).is_loopback,
        tls=transport.get_extra_info("ssl_object") is not None,
        certificate=client_certificate(transport.get_extra_info("peercert")),
    )


def _is_worth_a_line(count: int) -> bool:
    """The 1st, 2nd, 4th, ...: a flood must not fill the log."""
    return count & (count - 1) == 0

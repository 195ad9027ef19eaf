"""A connection to a server, whatever is spoken over it: TCP, TLS, or a Unix socket."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from servable.transport.address import Address
from servable.transport.errors import Failure, TransportError
from servable.transport.tls import dialing, why_not_connected

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def dial(make: Callable[[], P], address: Address, timeout_s: float, tls: ssl.SSLContext | None = None) -> P:
    """Open a connection and return its protocol; raise ``TransportError`` if that fails or takes too long."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            if address.path is not None:
                _, made = await loop.create_unix_connection(make, sock=await _dial_unix(loop, address))
            else:
                _, made = await loop.create_connection(make, address.host, address.port, **dialing(tls))
    except TimeoutError:
        raise TransportError(Failure.NOT_STARTED, f"cannot connect to {address} in {timeout_s} s") from None
    except OSError as error:
        why = why_not_connected(error)
        raise TransportError(Failure.NOT_STARTED, f"cannot connect to {address}: {why}") from error
    return made


async def _dial_unix(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    """Connect by hand: the loops differ in what they make of a name without a file."""
    dialed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        dialed.setblocking(False)
        await loop.sock_connect(dialed, address.kernel_path)
    except BaseException:
        dialed.close()
        raise
    return dialed

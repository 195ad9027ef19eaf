"""Listening sockets: bound here, with every option set on the listener, because accepted sockets inherit it."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import stat
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

from servable.core.errors import Code, ServingError, failed_precondition, invalid_argument

if TYPE_CHECKING:
    from servable.transport.address import Address

_KEEPALIVE_IDLE_S = 60
_PROBE_TIMEOUT_S = 1.0


def bind(address: Address, *, reuse_port: bool = False, unix_mode: int = 0o660) -> list[socket.socket]:
    """Return bound sockets, not yet listening: one for each address that the host stands for, all on one port.

    Raises ``ServingError`` with the address in its text.
    """
    try:
        if address.path is not None:
            return [_bind_unix(address, unix_mode)]
        return _bind_tcp(address, reuse_port=reuse_port)
    except OSError as error:
        raise explain(address, error) from error


def explain(address: Address, error: OSError) -> ServingError:
    """Return the error for the person who chose the address."""
    if isinstance(error, socket.gaierror):
        return invalid_argument(f"cannot listen on {address}: the host is unknown ({error.strerror})")
    if error.errno == errno.EADDRINUSE:
        return failed_precondition(f"cannot listen on {address}: the address is already in use")
    if error.errno in (errno.EACCES, errno.EPERM):
        return ServingError(Code.PERMISSION_DENIED, f"cannot listen on {address}: permission denied")
    if error.errno == errno.EADDRNOTAVAIL:
        return failed_precondition(f"cannot listen on {address}: this machine does not have that address")
    return failed_precondition(f"cannot listen on {address}: {error.strerror or error}")


def _bind_tcp(address: Address, *, reuse_port: bool) -> list[socket.socket]:
    host = None if address.host in ("", "*") else address.host
    found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    if host is None:  # the IPv6 wildcard takes IPv4 as well
        found = [entry for entry in found if entry[0] == socket.AF_INET6] or found
    bound: list[socket.socket] = []
    missing: OSError | None = None
    port = address.port
    try:
        for family, kind, protocol, _, place in dict.fromkeys(found):
            try:
                made = _bind_one(family, kind, protocol, (place[0], port, *place[2:]), reuse_port=reuse_port)
            except OSError as error:
                # A name may stand for IPv6 addresses on a machine that has none.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error
            else:
                bound.append(made)
                port = made.getsockname()[1]
    except OSError:
        for made in bound:
            made.close()
        raise
    if not bound:
        raise missing or OSError(errno.EADDRNOTAVAIL, "no address to bind")
    return bound


def _bind_one(
    family: int, kind: int, protocol: int, place: tuple[str | int, ...], *, reuse_port: bool
) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
        if reuse_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(place[0] != "::"))
        made.bind(place)
    except OSError:
        made.close()
        raise
    return made


def _bind_unix(address: Address, mode: int) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        if not address.kernel_path.startswith("\0"):
            _remove_stale(Path(address.kernel_path))
        made.bind(address.kernel_path)
        if not address.kernel_path.startswith("\0"):
            Path(address.kernel_path).chmod(mode)  # before listening: nobody can connect yet
    except OSError:
        made.close()
        raise
    return made


def _remove_stale(path: Path) -> None:
    """Remove a socket file that nobody accepts on; raise ``OSError`` if the path is anything else."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise OSError(errno.EEXIST, "the path exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:  # a full backlog: somebody listens
            pass
    raise OSError(errno.EADDRINUSE, "somebody accepts connections on this socket")


def unsent_bytes(transport: asyncio.WriteTransport) -> int:
    """Return how much of what was written is still on this machine.

    What lies between TLS and the socket no loop tells; it would keep the kernel's queue from being empty.
    """
    size = transport.get_write_buffer_size()
    made = transport.get_extra_info("socket")
    if transport.can_write_eof() or made is None or made.fileno() < 0:
        return size
    return size + int.from_bytes(fcntl.ioctl(made.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)


class UnixFile:
    """The file of a Unix socket of ours, which ``remove`` removes unless another server has taken the path."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = self._look()

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.lstat(self._path)  # the path may be gone
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def remove(self) -> None:
        """Remove the file."""
        if self._identity is not None and self._look() == self._identity:
            Path(self._path).unlink(missing_ok=True)

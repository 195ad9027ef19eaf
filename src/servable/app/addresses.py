"""Where a server listens, and what each address speaks."""

from __future__ import annotations

from typing import NamedTuple

from servable.core.errors import invalid_argument
from servable.settings import DEFAULT_LISTEN, ServeSettings

EVERY_WIRE = frozenset({"h1", "h2"})


class Place(NamedTuple):
    """One address, the protocols it speaks, and whether it is the operator's own."""

    address: str
    wires: frozenset[str]
    is_operators: bool = False

    @property
    def is_socket(self) -> bool:
        """Return whether it is a Unix socket."""
        return self.address.startswith("unix:")


def listen_addresses(settings: ServeSettings) -> list[Place]:
    """Return where to listen (design: ports and trust); INVALID_ARGUMENT if that is nowhere, or twice the same."""
    named_ports = (settings.port, settings.rest_api_port)
    addresses: dict[str, frozenset[str]] = dict.fromkeys(settings.listen, EVERY_WIRE)
    if settings.grpc_socket_path:
        addresses[f"unix:{settings.grpc_socket_path}"] = frozenset({"h2"})
    for port, wires in zip(named_ports, (frozenset({"h2"}), frozenset({"h1"})), strict=True):
        if port is None or port == 0:
            continue
        address = f"{settings.host}:{port}"
        addresses[address] = addresses.get(address, frozenset()) | wires
    if not addresses:
        if named_ports != (None, None):
            raise invalid_argument("every port is off: give --port, --rest_api_port, --grpc_socket_path or --listen")
        addresses = dict.fromkeys(DEFAULT_LISTEN, EVERY_WIRE)
    for address in settings.admin_listen:
        if address in addresses and not address.endswith(":0"):
            raise invalid_argument(f"--admin_listen {address} is a port for everybody too: give it one of its own")
    public = [Place(address, wires) for address, wires in addresses.items()]
    return [*public, *(Place(address, EVERY_WIRE, is_operators=True) for address in settings.admin_listen)]

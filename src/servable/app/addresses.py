"""Where a server listens, and what each address speaks."""

from __future__ import annotations

from servable.core.errors import invalid_argument
from servable.settings import DEFAULT_LISTEN, ServeSettings

EVERY_WIRE = frozenset({"h1", "h2"})


def listen_addresses(settings: ServeSettings) -> list[tuple[str, frozenset[str]]]:
    """Return where to listen and which protocols each address speaks (design: ports and trust)."""
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
        return [(address, EVERY_WIRE) for address in DEFAULT_LISTEN]
    return list(addresses.items())

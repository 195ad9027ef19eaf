"""The composition root."""

from servable.app.addresses import EVERY_WIRE, listen_addresses
from servable.app.server import Server

__all__ = ["EVERY_WIRE", "Server", "listen_addresses"]

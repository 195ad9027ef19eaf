"""HTTP/1.1: the server's and the client's end of a connection."""

from servable.transport.http1.client import Http1ClientConnection, ReplyLimits
from servable.transport.http1.server import Http1Connection

__all__ = ["Http1ClientConnection", "Http1Connection", "ReplyLimits"]

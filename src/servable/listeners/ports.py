"""What one port offers: gRPC, HTTP, or both on the same connection."""

from __future__ import annotations

from servable.core.errors import Code, ServingError
from servable.listeners.grpc import GrpcApplication, Refusal
from servable.listeners.http import ErrorRoute, HttpApplication
from servable.transport.exchange import RequestHead, Route
from servable.wire.grpc import is_grpc


class PortApplication:
    """Gives a request to gRPC or to HTTP by its content type."""

    def __init__(self, grpc: GrpcApplication | None, http: HttpApplication | None) -> None:
        if grpc is None and http is None:
            raise ValueError("a port must offer something")
        self._grpc = grpc
        self._http = http

    def route(self, head: RequestHead) -> Route:
        """Choose the listener, then its route."""
        if self._http is None or (
            self._grpc is not None and head.version == b"2" and is_grpc(head.get(b"content-type"))
        ):
            assert self._grpc is not None
            return self._grpc.route(head)
        return self._http.route(head)

    def oversized(self, head: RequestHead, size: int, limit: int) -> Route:
        """Answer a head above the limit in the words of the wire it was meant for."""
        message = f"received metadata size exceeds limit ({size} vs. {limit})"
        error = ServingError(Code.RESOURCE_EXHAUSTED, message)
        if self._http is None or (self._grpc is not None and is_grpc(head.get(b"content-type"))):
            return Refusal.of(error)
        return ErrorRoute(error)

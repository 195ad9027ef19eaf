"""What one port offers: gRPC, HTTP, or both on the same connection."""

from __future__ import annotations

from servable.core.errors import Code, ServingError
from servable.listeners.grpc import GrpcApplication, Refusal
from servable.listeners.http import ErrorRoute, HttpApplication
from servable.transport.exchange import ReplyHead, RequestHead, Route
from servable.wire import grpc as wire
from servable.wire.grpc import is_grpc

NOT_GRPC = Refusal(ReplyHead(wire.HTTP_UNSUPPORTED_MEDIA_TYPE))
"""For what reaches a port that speaks gRPC alone and is none: an error of HTTP, as gRPC's protocol has it."""


class PortApplication:
    """Gives a request to gRPC or to HTTP by its content type."""

    def __init__(self, grpc: GrpcApplication | None, http: HttpApplication | None) -> None:
        if grpc is None and http is None:
            raise ValueError("a port must offer something")
        self._grpc = grpc
        self._http = http

    def route(self, head: RequestHead) -> Route:
        """Choose the listener, then its route."""
        if self._grpc is not None and head.version == b"2" and is_grpc(head.get(b"content-type")):
            return self._grpc.route(head)
        return NOT_GRPC if self._http is None else self._http.route(head)

    def oversized(self, head: RequestHead, size: int, limit: int) -> Route:
        """Answer a head above the limit in the words of the wire it was meant for."""
        message = f"received metadata size exceeds limit ({size} vs. {limit})"
        error = ServingError(Code.RESOURCE_EXHAUSTED, message)
        if self._http is None or (self._grpc is not None and is_grpc(head.get(b"content-type"))):
            return Refusal.of(error)
        return ErrorRoute(error)

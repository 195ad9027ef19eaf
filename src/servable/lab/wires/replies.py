"""Success and failure in the words of gRPC and of JSON over HTTP."""

from __future__ import annotations

from servable.core.errors import Code, ServingError
from servable.lab.exchange import Fault
from servable.transport.exchange import RequestHead
from servable.transport.reply import Reply
from servable.wire import grpc

HTTP_OK = 200
GRPC_FIELDS = (
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
    (b"grpc-accept-encoding", grpc.ACCEPT_ENCODING),
    (b"user-agent", b"grpc-python-servable-lab/1"),
)


def grpc_head(method: bytes, authority: bytes, scheme: bytes) -> RequestHead:
    """Return the head of a call."""
    return RequestHead(b"POST", method, GRPC_FIELDS, authority=authority, scheme=scheme)


def grpc_fault(reply: Reply) -> Fault | None:
    """Return the error of a gRPC reply: its ``grpc-status``, wherever it is, not the HTTP status, decides."""
    status = _find(reply, b"grpc-status")
    if status is None:
        if reply.status == HTTP_OK:
            return Fault(Code.UNKNOWN.name, "HTTP 200 without a grpc-status: this is no gRPC server")
        return Fault(grpc.status_of_http(reply.status).name, f"HTTP {reply.status} without a grpc-status")
    if reply.status != HTTP_OK:
        return Fault(grpc.status_of_http(reply.status).name, f"HTTP {reply.status} with grpc-status {status!r}")
    code = grpc.parse_status(status)
    if code is Code.OK:
        return None
    return Fault(code.name, grpc.decode_message(_find(reply, b"grpc-message") or b""))


def grpc_message(reply: Reply) -> bytes:
    """Return the reply's message without its prefix, decompressed."""
    return bytes(grpc.unwrap_message(reply.body, _find(reply, b"grpc-encoding")))


def http_fault(reply: Reply, error: ServingError | None = None) -> Fault | None:
    """Return the error of a plain HTTP reply: everything but 2xx. ``error`` is what its body says."""
    if 200 <= reply.status < 300:
        return None
    text = error.message if error is not None else reply.body[:200].decode("utf-8", "replace")
    return Fault(f"HTTP {reply.status}", text)


def _find(reply: Reply, name: bytes) -> bytes | None:
    for key, value in reply.trailers:
        if key == name:
            return value
    for key, value in reply.fields:
        if key == name:
            return value
    return None

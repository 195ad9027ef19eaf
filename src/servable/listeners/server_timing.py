"""``Server-Timing``: how long a request waited for the engine and was computed, for a client that asks.

A client asks with the header field (over gRPC: the metadata entry) ``servable-timing: 1``. The answer is a header field
over REST and a trailer over gRPC: ``server-timing: queue;dur=0.021, compute;dur=1.187``, in milliseconds. An answer in
parts, and one that is an error, has none.
"""

from __future__ import annotations

from servable.core.messages import InferResponse, Metadata
from servable.listeners.http_replies import Head
from servable.transport.exchange import Field, Trailers

TIMING_ASKED = b"servable-timing"
_KEY = TIMING_ASKED.decode()
NAME = b"server-timing"
_NO = frozenset({b"", b"0", b"false", b"no", b"off"})
_MS = 1000.0


def is_asked(value: bytes) -> bool:
    """Return whether the value of ``servable-timing`` asks for times."""
    return value.strip().lower() not in _NO


def is_asked_in(metadata: Metadata) -> bool:
    """Return whether the metadata of a call ask for times."""
    return any(key == _KEY and isinstance(value, str) and is_asked(value.encode()) for key, value in metadata)


def timing_field(response: InferResponse) -> Field:
    """Return the field that says how long a request was queued and computed."""
    return NAME, b"queue;dur=%.3f, compute;dur=%.3f" % (response.queue_s * _MS, response.compute_s * _MS)


def timed_head(head: Head, response: InferResponse) -> Head:
    """Return the head of a REST reply with the times of its answer."""
    return Head(head.plain.status, (*head.plain.fields, timing_field(response)))


def timed_trailers(trailers: Trailers, response: InferResponse) -> Trailers:
    """Return the trailers of a gRPC reply with the times of its answer."""
    return Trailers((*trailers.fields, timing_field(response)))

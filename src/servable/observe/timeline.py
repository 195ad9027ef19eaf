"""What happened on the request path while somebody looks: the stages of each request, and the batches.

Nobody looks most of the time, and then a request pays for one attribute that is read. Times are in seconds of
``time.monotonic()``.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from servable.core.errors import Code
from servable.core.messages import InferResponse, ModelRef

MOST_EVENTS = 100_000
"""Requests and batches that are kept of one look; what comes then is only counted."""


class RequestEvent(NamedTuple):
    """One request that was answered. ``began`` is when its batch began; it was queued for ``queue_s`` before."""

    wire: str
    api: str
    model: ModelRef
    signature: str
    arrived: float
    began: float
    ended: float
    queue_s: float
    compute_s: float


class BatchEvent(NamedTuple):
    """One batch, filled up with padding to ``computed`` rows."""

    model: ModelRef
    signature: str
    requests: int
    rows: int
    computed: int
    began: float
    seconds: float


class FailureEvent(NamedTuple):
    """One request that failed."""

    wire: str
    api: str
    code: Code
    at: float


class Timeline:
    """The events of one look at a time. Belongs to the event loop."""

    __slots__ = ("batches", "began", "dropped", "failures", "is_open", "requests")

    def __init__(self) -> None:
        self.is_open = False
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.requests: list[RequestEvent] = []
        self.batches: list[BatchEvent] = []
        self.failures: list[FailureEvent] = []
        self.dropped = 0
        self.began = 0.0

    def open(self) -> None:
        """Begin to look."""
        self.clear()
        self.began = time.monotonic()
        self.is_open = True

    def close(self) -> None:
        """Look no more; what was seen stays until the next look."""
        self.is_open = False

    def _has_room(self) -> bool:
        if len(self.requests) + len(self.batches) + len(self.failures) < MOST_EVENTS:
            return True
        self.dropped += 1
        return False

    def request(self, wire: str, api: str, response: InferResponse, seconds: float) -> None:
        """Note a request that is answered now, and took so long."""
        if self._has_room():
            now = time.monotonic()
            times = (now - seconds, response.began, now, response.queue_s, response.compute_s)
            self.requests.append(RequestEvent(wire, api, response.model, response.signature, *times))

    def failure(self, wire: str, api: str, code: Code) -> None:
        """Note a request that fails now."""
        if self._has_room():
            self.failures.append(FailureEvent(wire, api, code, time.monotonic()))

    def batch(self, event: BatchEvent) -> None:
        """Note a batch."""
        if self._has_room():
            self.batches.append(event)

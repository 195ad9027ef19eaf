"""What was seen of the request path, as tracks for a tool that shows profiles."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence

from servable.core.messages import ModelRef
from servable.core.spans import Span
from servable.observe.timeline import BatchEvent, RequestEvent, Timeline
from servable.wire.profiler import Event, Track


def path_tracks(timeline: Timeline) -> list[Track]:
    """Return requests, batches and failures. Requests that were in work at the same time are on different tracks."""
    return [*_requests(timeline.requests), *_batches(timeline.batches), *_failures(timeline)]


def framework_tracks(ref: ModelRef, spans: Iterable[Span]) -> Iterator[Track]:
    """Return what a framework did for a version, by its threads."""
    threads: dict[str, list[Event]] = {}
    for span in spans:
        threads.setdefault(span.thread, []).append(Event(span.name, span.began, span.seconds))
    for thread, events in threads.items():
        yield Track(f"{_label(ref)} {thread}", sorted(events, key=lambda event: (event.began, -event.seconds)))


def _requests(requests: Sequence[RequestEvent]) -> Iterator[Track]:
    tracks: list[list[Event]] = []
    free: list[tuple[float, int]] = []
    for request in sorted(requests, key=lambda each: each.arrived):
        if free and free[0][0] <= request.arrived:
            number = heapq.heappop(free)[1]
        else:
            number = len(tracks)
            tracks.append([])
        tracks[number] += _stages(request)
        heapq.heappush(free, (request.ended, number))
    for number, events in enumerate(tracks, 1):
        yield Track(f"requests {number}", events)


def _stages(request: RequestEvent) -> Iterator[Event]:
    """Yield a request and its stages within it. The clocks of the stages are read one after the other."""
    facts: dict[str, int | str] = {"model": _label(request.model), "signature": request.signature, "wire": request.wire}
    yield Event(f"{request.api} {request.model.name}", request.arrived, request.ended - request.arrived, facts)
    queued = max(request.arrived, request.began - request.queue_s)
    computed = min(request.ended, request.began + request.compute_s)
    yield Event("receive and decode", request.arrived, queued - request.arrived)
    yield Event("queue", queued, max(0.0, request.began - queued))
    yield Event("compute", request.began, max(0.0, computed - request.began))
    yield Event("encode and write", computed, request.ended - computed)


def _batches(batches: Sequence[BatchEvent]) -> Iterator[Track]:
    by_model: dict[ModelRef, list[Event]] = {}
    for batch in sorted(batches, key=lambda each: each.began):
        facts: dict[str, int | str] = {"requests": batch.requests, "rows": batch.rows, "computed rows": batch.computed}
        event = Event(f"batch {batch.signature}", batch.began, batch.seconds, facts)
        by_model.setdefault(batch.model, []).append(event)
    for ref, events in by_model.items():
        yield Track(f"{_label(ref)} batches", events)


def _failures(timeline: Timeline) -> Iterator[Track]:
    if timeline.failures:
        yield Track(
            "failures",
            [Event(f"{each.api} {each.code.name}", each.at, 0.0, {"wire": each.wire}) for each in timeline.failures],
        )


def _label(ref: ModelRef) -> str:
    return f"{ref.name}/{ref.version}"

from __future__ import annotations

import time

from servable.core.errors import Code
from servable.core.messages import InferResponse, ModelRef
from servable.core.spans import Span
from servable.listeners.profile_tracks import framework_tracks, path_tracks
from servable.observe import timeline as timeline_module
from servable.observe.metrics import Metrics
from servable.observe.timeline import RequestEvent, Timeline

M = ModelRef("m", 1)


def request(arrived: float, ended: float) -> RequestEvent:
    return RequestEvent("grpc", "Predict", M, "s", arrived, arrived + 0.3, ended, 0.2, 0.4)


def test_requests_in_work_together_are_on_different_tracks() -> None:
    timeline = Timeline()
    timeline.requests = [request(2.0, 3.0), request(1.0, 2.0), request(1.5, 2.5)]
    first, second = path_tracks(timeline)
    assert [event.began for event in first.events if event.name == "Predict m"] == [1.0, 2.0]
    assert [event.began for event in second.events if event.name == "Predict m"] == [1.5]
    stages = {event.name: (round(event.began, 6), round(event.seconds, 6)) for event in second.events}
    assert stages == {
        "Predict m": (1.5, 1.0),
        "receive and decode": (1.5, 0.1),
        "queue": (1.6, 0.2),
        "compute": (1.8, 0.4),
        "encode and write": (2.2, 0.3),
    }


def test_what_is_counted_is_seen_while_somebody_looks_and_only_then() -> None:
    metrics = Metrics(list, {"m"}.__contains__)
    meter, timeline = metrics.meter("rest", "Classify"), metrics.path.timeline

    def happen() -> None:
        metrics.batch(M, "s", 2, 3, 4, time.monotonic(), 0.5)
        meter.answered(InferResponse(M, "s", {}, 0.1, 0.2, time.monotonic() - 0.3), 0.5)
        meter.failed(M, Code.NOT_FOUND)

    happen()
    timeline.open()
    happen()
    timeline.close()
    happen()
    tracks = {track.name: track.events for track in path_tracks(timeline)}
    assert {name: len(events) for name, events in tracks.items()} == {"requests 1": 5, "m/1 batches": 1, "failures": 1}
    assert tracks["m/1 batches"][0].facts == {"requests": 2, "rows": 3, "computed rows": 4}
    assert tracks["failures"][0].name == "Classify NOT_FOUND"
    assert tracks["requests 1"][0].facts == {"model": "m/1", "signature": "s", "wire": "rest"}


def test_a_look_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(timeline_module, "MOST_EVENTS", 2)
    timeline = Timeline()
    timeline.open()
    for _ in range(5):
        timeline.failure("grpc", "Predict", Code.INTERNAL)
    assert (len(timeline.failures), timeline.dropped) == (2, 3)
    timeline.open()
    assert (timeline.failures, timeline.dropped) == ([], 0)


def test_spans_of_a_framework_are_sorted_by_thread_and_time() -> None:
    spans = [Span("pool", "MatMul", 2.0, 0.5), Span("main", "Run", 1.0, 3.0), Span("pool", "Add", 1.0, 0.5)]
    found = {track.name: [event.name for event in track.events] for track in framework_tracks(M, spans)}
    assert found == {"m/1 pool": ["Add", "MatMul"], "m/1 main": ["Run"]}

from __future__ import annotations

import gzip
import json

import pytest

from servable import protos
from servable.core.errors import ServingError
from servable.wire import profiler
from servable.wire.profiler import Event, ProfileCall, Track

TRACKS = [
    Track("requests 1", [Event("Predict m", 10.0, 0.002, {"model": "m/1", "rows": 3}), Event("queue", 10.0005, 0.001)]),
    Track("m/1 batches", [Event("batch s", 9.9, 0.5)]),
]


def call(**fields: object) -> ProfileCall:
    return profiler.decode_profile(protos.tensorflow.ProfileRequest(**fields).SerializeToString())


def test_requests_are_read() -> None:
    options = protos.tensorflow.ProfileOptions(duration_ms=70)
    assert call(duration_ms=250, opts=options).seconds == 0.25
    assert call(opts=options).seconds == 0.07
    assert call().seconds == 1
    assert call(session_id="s", host_name="h") == ProfileCall(1, "s", "h", wants_chrome=False, wants_xspace=True)
    assert call(tools=["trace_viewer"]).wants_chrome
    assert not call(tools=["trace_viewer"]).wants_xspace
    assert call(tools=["trace_viewer"], emit_xspace=True).wants_xspace
    assert profiler.decode_monitor(
        protos.tensorflow.MonitorRequest(duration_ms=5, timestamp=True).SerializeToString()
    ) == (
        0.005,
        True,
    )
    assert (
        profiler.decode_terminate(b"pre" + protos.tensorflow.TerminateRequest(session_id="x").SerializeToString(), 3)
        == "x"
    )
    with pytest.raises(ServingError, match=r"not a tensorflow\.ProfileRequest"):
        profiler.decode_profile(b"\xff")


def test_a_profile_is_planes_lines_and_events_since_its_beginning() -> None:
    body = profiler.encode_profile(call(host_name="h"), TRACKS, 10.0, ["some lost"])
    response = protos.tensorflow.ProfileResponse.FromString(body)
    assert not response.empty_trace
    assert not response.tool_data
    space = response.xspace
    assert (list(space.hostnames), list(space.warnings)) == (["h"], ["some lost"])
    (plane,) = space.planes
    assert plane.name == "/host:CPU"
    requests, batches = plane.lines
    assert (requests.name, batches.name) == ("requests 1", "m/1 batches")
    names = {number: entry.name for number, entry in plane.event_metadata.items()}
    facts = {number: entry.name for number, entry in plane.stat_metadata.items()}
    first, second = requests.events
    assert (names[first.metadata_id], first.offset_ps, first.duration_ps) == ("Predict m", 0, 2_000_000_000)
    assert (names[second.metadata_id], second.offset_ps) == ("queue", 500_000_000)
    assert {facts[stat.metadata_id]: stat.str_value or stat.int64_value for stat in first.stats} == {
        "model": "m/1",
        "rows": 3,
    }
    assert batches.events[0].offset_ps == 0, "what began before is cut off, for times are not negative"


def test_tools_get_files() -> None:
    body = profiler.encode_profile(call(tools=["trace_viewer"]), TRACKS, 9.0, [])
    files = {item.name: item.data for item in protos.tensorflow.ProfileResponse.FromString(body).tool_data}
    assert protos.profiler.XSpace.FromString(files["xplane.pb"]).planes[0].lines[0].name == "requests 1"
    events = json.loads(gzip.decompress(files["trace.json.gz"]))["traceEvents"]
    assert [event["args"]["name"] for event in events if event["ph"] == "M"] == [
        "/host:CPU",
        "requests 1",
        "m/1 batches",
    ]
    slow = next(event for event in events if event["name"] == "Predict m")
    assert (slow["ph"], slow["ts"], slow["args"]) == ("X", 1_000_000, {"model": "m/1", "rows": 3})


def test_nothing_seen_is_an_empty_trace() -> None:
    body = profiler.encode_profile(call(), [Track("m/1 batches", [])], 1.0, [])
    assert protos.tensorflow.ProfileResponse.FromString(body).empty_trace

"""``tensorflow.ProfilerService`` as method paths and message bytes, and a profile in the two forms that tools read."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from servable import protos
from servable.wire.tfserving_model_spec import parse

SERVICE: Final = "tensorflow.ProfilerService"
PROFILE: Final = b"/tensorflow.ProfilerService/Profile"
TERMINATE: Final = b"/tensorflow.ProfilerService/Terminate"
MONITOR: Final = b"/tensorflow.ProfilerService/Monitor"

HOST_PLANE: Final = "/host:CPU"
"""The plane whose lines TensorFlow's tools show as the threads of a host."""
TRACE_VIEWER: Final = "trace_viewer"
TRACE_FILE: Final = "trace.json.gz"
XPLANE_FILE: Final = "xplane.pb"
_DEFAULT_MS = 1000
_PS, _NS, _US = 1e12, 1e9, 1e6


class Event(NamedTuple):
    """Something that took so many seconds from ``began`` on; ``facts`` are for people."""

    name: str
    began: float
    seconds: float
    facts: Mapping[str, int | str] = {}


class Track(NamedTuple):
    """Events that follow each other, or lie within each other."""

    name: str
    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class ProfileCall:
    """What a client wants to see."""

    seconds: float
    session: str
    host: str
    wants_chrome: bool
    wants_xspace: bool


def decode_profile(body: bytes | memoryview) -> ProfileCall:
    """Read a ProfileRequest. Where it wants the profile written is not looked at: it comes with the reply."""
    message = parse(protos.tensorflow.ProfileRequest, body)
    milliseconds = message.duration_ms or message.opts.duration_ms or _DEFAULT_MS
    return ProfileCall(
        milliseconds / 1000,
        message.session_id,
        message.host_name,
        wants_chrome=TRACE_VIEWER in message.tools,
        wants_xspace=message.emit_xspace or not message.tools,
    )


def decode_terminate(body: bytes | memoryview, start: int = 0) -> str:
    """Return the session that a TerminateRequest is about."""
    session: str = parse(protos.tensorflow.TerminateRequest, body, start).session_id
    return session


def decode_monitor(body: bytes | memoryview) -> tuple[float, bool]:
    """Return for how many seconds to look, and whether the answer says when that was."""
    message = parse(protos.tensorflow.MonitorRequest, body)
    return (message.duration_ms or _DEFAULT_MS) / 1000, message.timestamp


def encode_terminate() -> bytes:
    """Return a TerminateResponse."""
    return b""


def encode_monitor(text: str) -> bytes:
    """Return a MonitorResponse."""
    message: bytes = protos.tensorflow.MonitorResponse(data=text).SerializeToString()
    return message


def encode_profile(call: ProfileCall, tracks: Sequence[Track], began: float, warnings: Sequence[str]) -> bytes:
    """Return a ProfileResponse. Times in it are since ``began``, as in TensorFlow's own.

    The profile is in ``xspace`` if that was asked for, or no tool; else in a file of ``tool_data``. The tool
    trace_viewer has a file of its own, for Chrome's viewer and Perfetto.
    """
    response = protos.tensorflow.ProfileResponse(empty_trace=not any(track.events for track in tracks))
    space = _space(call.host, tracks, began, warnings)
    if call.wants_xspace:
        response.xspace.CopyFrom(space)
    else:
        response.tool_data.add(name=XPLANE_FILE, data=space.SerializeToString())
    if call.wants_chrome:
        response.tool_data.add(name=TRACE_FILE, data=gzip.compress(encode_chrome(tracks, began), 1))
    message: bytes = response.SerializeToString()
    return message


def encode_chrome(tracks: Sequence[Track], began: float) -> bytes:
    """Return Chrome's trace events as JSON."""
    events: list[dict[str, Any]] = [{"ph": "M", "pid": 1, "name": "process_name", "args": {"name": HOST_PLANE}}]
    for number, track in enumerate(tracks, 1):
        events.append({"ph": "M", "pid": 1, "tid": number, "name": "thread_name", "args": {"name": track.name}})
        for event in track.events:
            ts, dur = (event.began - began) * _US, event.seconds * _US
            facts = dict(event.facts)
            events.append({"ph": "X", "pid": 1, "tid": number, "ts": ts, "dur": dur, "name": event.name, "args": facts})
    return orjson.dumps({"displayTimeUnit": "ns", "traceEvents": events})


def _space(host: str, tracks: Sequence[Track], began: float, warnings: Sequence[str]) -> Any:
    space = protos.profiler.XSpace(hostnames=[host] if host else [], warnings=warnings)
    plane = space.planes.add(name=HOST_PLANE)
    names: dict[str, int] = {}
    facts: dict[str, int] = {}
    for number, track in enumerate(tracks, 1):
        line = plane.lines.add(id=number, display_id=number, name=track.name, display_name=track.name)
        for event in track.events:
            made = line.events.add(
                metadata_id=names.setdefault(event.name, len(names) + 1),
                offset_ps=max(0, round((event.began - began) * _PS)),
                duration_ps=max(0, round(event.seconds * _PS)),
            )
            for fact, value in event.facts.items():
                stat = made.stats.add(metadata_id=facts.setdefault(fact, len(facts) + 1))
                if isinstance(value, str):
                    stat.str_value = value
                else:
                    stat.int64_value = value
    for name, number in names.items():
        plane.event_metadata[number].id = number
        plane.event_metadata[number].name = name
    for name, number in facts.items():
        plane.stat_metadata[number].id = number
        plane.stat_metadata[number].name = name
    return space

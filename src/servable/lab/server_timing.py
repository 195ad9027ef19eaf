"""What a server says of its own time: ``Server-Timing: queue;dur=0.2, compute;dur=1.5`` in a field or a trailer."""

from __future__ import annotations

import math
import re

from servable.lab.exchange import Told
from servable.transport.exchange import Field

NAME = b"server-timing"
_METRIC = re.compile(rb"\s*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)\s*((?:;[^,\"]*(?:\"[^\"]*\"[^,\"]*)*)?)(?:,|$)")
_PARAMETER = re.compile(rb";\s*([^=;\s]+)\s*=\s*(?:\"([^\"]*)\"|([^;\s]*))")


def told_in(fields: tuple[Field, ...]) -> Told | None:
    """Return the ``queue`` and ``compute`` durations among header fields or trailers; ``None`` without either."""
    found = [value for name, value in fields if name == NAME]
    return parse(b", ".join(found)) if found else None


def parse(value: bytes) -> Told | None:
    """Read the value of a ``Server-Timing`` field; durations are in ms there. Other metrics are passed over."""
    durations: dict[bytes, int] = {}
    for name, parameters in _METRIC.findall(value):
        for key, quoted, plain in _PARAMETER.findall(parameters):
            nanoseconds = _nanoseconds(quoted or plain) if key.lower() == b"dur" else None
            if nanoseconds is not None:
                durations.setdefault(name, nanoseconds)
    told = Told(durations.get(b"queue", -1), durations.get(b"compute", -1))
    return None if told == (-1, -1) else told


def _nanoseconds(milliseconds: bytes) -> int | None:
    try:
        value = float(milliseconds)
    except ValueError:
        return None
    return round(value * 1e6) if math.isfinite(value) and value >= 0 else None

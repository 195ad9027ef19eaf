"""What a framework tells of its own work, for profiles."""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """Something that was done: in which thread, what, when (of ``time.monotonic()``), for how many seconds."""

    thread: str
    name: str
    began: float
    seconds: float

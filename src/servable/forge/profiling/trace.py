"""A profile in the Trace Event format, which Perfetto and chrome://tracing open. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from servable.core.spans import Span
from servable.forge.profiling.operations import is_operation
from servable.forge.profiling.resources import Phase, Usage

PROCESS: Final = 1
CALLS: Final = "calls"
PHASES: Final = "phases"


def trace(title: str, spans: Sequence[Span], phases: Sequence[Phase], samples: Sequence[Usage]) -> dict[str, Any]:
    """Return the document: a thread for each of the framework's, one for calls, one for phases, counters beside them.

    Times are in µs since the first of all; a thread's events are in order, those that contain others first.
    """
    every = [*spans, *(Span(PHASES, phase.name, phase.began, phase.ended - phase.began) for phase in phases)]
    begins = [*(span.began for span in every), *(sample.at for sample in samples)]
    start = min(begins, default=0.0)
    names = sorted({span.thread for span in every}, key=lambda name: (name != PHASES, name != CALLS, name))
    threads = {name: number for number, name in enumerate(names, 1)}
    events: list[dict[str, Any]] = [_named("process_name", 0, title)]
    for name, number in threads.items():
        events.append(_named("thread_name", number, name))
        events.append({**_named("thread_sort_index", number, ""), "args": {"sort_index": number}})
    ordered = sorted(every, key=lambda one: (threads[one.thread], one.began, -one.seconds))
    events += [_complete(span, threads[span.thread], start) for span in ordered]
    events += [event for sample in samples for event in _counters(sample, start)]
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _complete(span: Span, thread: int, start: float) -> dict[str, Any]:
    return {
        "ph": "X",
        "cat": "operation" if is_operation(span) else "frame",
        "name": span.name,
        "pid": PROCESS,
        "tid": thread,
        "ts": _us(span.began - start),
        "dur": _us(span.seconds),
    }


def _counters(sample: Usage, start: float) -> Iterable[dict[str, Any]]:
    values = {"CPU (cores)": sample.cores, "memory (MiB)": sample.rss_bytes / 2**20}
    if sample.gpu is not None:
        values |= {"GPU (%)": 100 * sample.gpu.busy, "GPU memory (MiB)": sample.gpu.memory_bytes / 2**20}
    for name, value in values.items():
        yield {
            "ph": "C",
            "name": name,
            "pid": PROCESS,
            "tid": 0,
            "ts": _us(sample.at - start),
            "args": {"value": round(value, 3)},
        }


def _named(kind: str, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": PROCESS, "tid": thread, "ts": 0, "args": {"name": name}}


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3) if math.isfinite(seconds) else 0.0

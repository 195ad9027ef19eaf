"""What OpenVINO tells of its operations: how long each took in a run, of graphs that were compiled to count that."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from servable.core.spans import Span

THREAD: Final = "openvino"
MOST_SPANS: Final = 200_000


class Watch:
    """Whether somebody looks on, and what was seen. Shared by all programs of a model."""

    def __init__(self) -> None:
        self._spans: list[Span] | None = None

    def begin(self) -> bool:
        """Begin to note; False if somebody looks already."""
        if self._spans is not None:
            return False
        self._spans = []
        return True

    def end(self) -> list[Span]:
        """Return what was seen."""
        spans, self._spans = self._spans or [], None
        return spans

    def note(self, began: float, request: Any) -> None:
        """Note the run that a request has just ended."""
        if self._spans is not None and len(self._spans) < MOST_SPANS:
            self._spans += spans_of(request.get_profiling_info(), began)


class WatchedCore:
    """OpenVINO's ``Core`` as far as programs use it, for models that may be profiled: counting costs a little."""

    def __init__(self, core: Any, watch: Watch) -> None:
        self._core = core
        self._watch = watch

    def compile_model(self, graph: Any, device: str, config: Mapping[str, Any]) -> Any:
        """Compile it so that it counts."""
        return _Graph(self._core.compile_model(graph, device, {**config, "PERF_COUNT": True}), self._watch)


class _Graph:
    def __init__(self, compiled: Any, watch: Watch) -> None:
        self._compiled = compiled
        self._watch = watch

    def create_infer_request(self) -> Any:
        return _Request(self._compiled.create_infer_request(), self._watch)


class _Request:
    """One request; what it does is noted, everything else is the framework's own."""

    def __init__(self, request: Any, watch: Watch) -> None:
        self._request = request
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)

    def infer(self) -> None:
        began = time.monotonic()
        self._request.infer()
        self._watch.note(began, self._request)


def spans_of(counters: Iterable[Any], began: float) -> Iterator[Span]:
    """Yield the operations that were executed, one after the other: OpenVINO tells how long, in order, but not when."""
    at = began
    for counter in counters:
        if counter.status.name == "EXECUTED":
            seconds = counter.real_time.total_seconds()
            yield Span(THREAD, f"{counter.node_name}:{counter.node_type}", at, seconds)
            at += seconds

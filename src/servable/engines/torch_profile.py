"""What PyTorch tells of its operations: ATen's, not named by module."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

from servable.core.spans import Span

MOST_SPANS: Final = 200_000
_NS: Final = 1e-9


class TorchProfile:
    """One look of PyTorch's profiler, which looks at the thread that began it."""

    def __init__(self, torch: Any) -> None:
        self._profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
        self._profiler.start()

    def end(self) -> list[Span]:
        """Return the operations since it began."""
        self._profiler.stop()
        # It counts with the clock that tells the time of day.
        ahead = time.time() - time.monotonic()
        return list(islice(spans_of(self._profiler.profiler.kineto_results.events(), ahead), MOST_SPANS))


def spans_of(events: Iterable[Any], ahead: float) -> Iterator[Span]:
    """Yield the operations, ``name:type`` as others name theirs: of ``aten::linear``, ``aten.linear:linear``."""
    for event in events:
        space, separator, operation = event.name().partition("::")
        name = f"{space}.{operation}:{operation}" if separator else event.name()
        yield Span(f"torch {event.start_thread_id()}", name, event.start_ns() * _NS - ahead, event.duration_ns() * _NS)

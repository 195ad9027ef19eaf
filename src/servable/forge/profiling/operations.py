"""From what a framework told of its work to a table of operations. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from servable.core.spans import Span

_OPERATION: Final = re.compile(r"(?P<node>.*[^:]):(?P<kind>_?[A-Za-z][\w.]*)")
"""How engines name an operation: of a node, and of which type."""


class Operation(NamedTuple):
    """One operation of a graph, over all runs. ``share`` is of the time of all operations."""

    name: str
    kind: str
    calls: int
    seconds: float
    share: float


class Profiled(NamedTuple):
    """All operations, the longest first, and what they add up to."""

    operations: tuple[Operation, ...]
    seconds: float


def is_operation(span: Span) -> bool:
    """Return whether a span is the work of one operation, and not a frame around several."""
    return _OPERATION.fullmatch(span.name) is not None


def operations(spans: Iterable[Span]) -> Profiled:
    """Add up the spans by operation.

    A time within which others of the same thread lie counts only once: with a loop, for what is not of its body.
    """
    own = own_times([span for span in spans if is_operation(span)])
    total = sum(seconds for _, seconds in own)
    sums: dict[str, tuple[int, float]] = {}
    for name, seconds in own:
        calls, so_far = sums.get(name, (0, 0.0))
        sums[name] = calls + 1, so_far + seconds
    found = [
        Operation(*_parts(name), calls, seconds, seconds / total if total else 0.0)
        for name, (calls, seconds) in sums.items()
    ]
    return Profiled(tuple(sorted(found, key=lambda one: -one.seconds)), total)


def by_kind(profiled: Profiled) -> Profiled:
    """Return one row for each type of operation; the name says how many nodes are of it."""
    sums: dict[str, list[Operation]] = {}
    for one in profiled.operations:
        sums.setdefault(one.kind, []).append(one)
    rows = [
        Operation(
            f"{len(group)} {'node' if len(group) == 1 else 'nodes'}",
            kind,
            sum(one.calls for one in group),
            sum(one.seconds for one in group),
            sum(one.share for one in group),
        )
        for kind, group in sums.items()
    ]
    return Profiled(tuple(sorted(rows, key=lambda one: -one.seconds)), profiled.seconds)


def own_times(spans: Sequence[Span]) -> list[tuple[str, float]]:
    """Return each span's name and seconds, without those of spans within it."""
    found: list[tuple[str, float]] = []
    for thread in {span.thread for span in spans}:
        mine = sorted((one for one in spans if one.thread == thread), key=lambda one: (one.began, -one.seconds))
        open_spans: list[tuple[float, int]] = []
        for span in mine:
            while open_spans and open_spans[-1][0] <= span.began:
                open_spans.pop()
            if open_spans and span.began + span.seconds <= open_spans[-1][0] + 1e-9:
                name, seconds = found[open_spans[-1][1]]
                found[open_spans[-1][1]] = name, max(0.0, seconds - span.seconds)
            found.append((span.name, span.seconds))
            open_spans.append((span.began + span.seconds, len(found) - 1))
    return found


def _parts(name: str) -> tuple[str, str]:
    match = _OPERATION.fullmatch(name)
    assert match is not None
    return match["node"], match["kind"]

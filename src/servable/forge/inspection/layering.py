"""Where the parts of a drawing go: in which row, and in which order there. Pure; how wide they are is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Edge: TypeAlias = tuple[int, int]
Rows: TypeAlias = list[list[int]]
"""Items by number; a lane that edge ``e`` takes through a row is ``-e - 1``."""

_FARTHEST = 24
"""Edges over more rows get no lanes: they would be most of the drawing."""
_SWEEPS = 6


def arrange(count: int, edges: Sequence[Edge], order: Sequence[float]) -> Rows:
    """Return rows of items, sources first, ordered so that few edges cross.

    Groups may take from each other in a circle: then ``order`` says which of them is the upper one, and the edges back
    are drawn upwards.
    """
    order = _sequence(count, edges, order)
    down = [edge if order[edge[0]] <= order[edge[1]] else (edge[1], edge[0]) for edge in edges]
    row_of = _rows(count, down, order)
    rows: Rows = [[] for _ in range(max(row_of, default=0) + 1)]
    for item in sorted(range(count), key=lambda item: order[item]):
        rows[row_of[item]].append(item)
    for number, (upper, lower) in enumerate(down):
        if row_of[lower] - row_of[upper] <= _FARTHEST:
            for row in range(row_of[upper] + 1, row_of[lower]):
                rows[row].append(-number - 1)
    return _ordered(rows, down, row_of)


def _sequence(count: int, edges: Sequence[Edge], preferred: Sequence[float]) -> list[int]:
    """Return the place of each item in a sequence where each follows what leads to it, as far as that can be."""
    below: list[list[int]] = [[] for _ in range(count)]
    waits = [0] * count
    for upper, lower in edges:
        if upper != lower:
            below[upper].append(lower)
            waits[lower] += 1
    waiting = sorted(range(count), key=lambda item: preferred[item])
    places = [0] * count
    for place in range(count):
        item = next((item for item in waiting if waits[item] <= 0), waiting[0])
        waiting.remove(item)
        places[item] = place
        for other in below[item]:
            waits[other] -= 1
    return places


def _rows(count: int, down: Sequence[Edge], order: Sequence[float]) -> list[int]:
    below: list[list[int]] = [[] for _ in range(count)]
    above: list[list[int]] = [[] for _ in range(count)]
    for upper, lower in down:
        if upper != lower:
            below[upper].append(lower)
            above[lower].append(upper)
    sequence = sorted(range(count), key=lambda item: order[item])
    row_of = [0] * count
    for item in sequence:
        row_of[item] = max((row_of[other] + 1 for other in above[item]), default=0)
    for item in reversed(sequence):
        if not above[item] and below[item]:  # what nothing leads to stands just above what it leads to
            row_of[item] = min(row_of[other] for other in below[item]) - 1
    return row_of


def _ordered(rows: Rows, down: Sequence[Edge], row_of: Sequence[int]) -> Rows:
    """Move each item to the middle of those that it is connected with, row by row, down and up."""
    for sweep in range(_SWEEPS):
        downwards = sweep % 2 == 0
        for number in range(1, len(rows)) if downwards else range(len(rows) - 2, -1, -1):
            other = rows[number - 1 if downwards else number + 1]
            places = {item: place for place, item in enumerate(other)}
            wanted = _wanted(rows[number], places, down, row_of, number, downwards=downwards)
            rows[number] = [item for _, _, item in sorted(wanted)]
    return rows


def _wanted(
    row: Sequence[int],
    places: Mapping[int, int],
    down: Sequence[Edge],
    row_of: Sequence[int],
    number: int,
    *,
    downwards: bool,
) -> list[tuple[float, int, int]]:
    sums: dict[int, list[int]] = {item: [] for item in row}
    for edge, (upper, lower) in enumerate(down):
        if not row_of[upper] <= number <= row_of[lower] or row_of[lower] - row_of[upper] > _FARTHEST:
            continue
        lane = -edge - 1
        here = upper if row_of[upper] == number else lower if row_of[lower] == number else lane
        row_there = number - 1 if downwards else number + 1
        if not row_of[upper] <= row_there <= row_of[lower]:
            continue
        there = upper if row_of[upper] == row_there else lower if row_of[lower] == row_there else lane
        if here in sums and there in places:
            sums[here].append(places[there])
    return [
        (sum(found) / len(found) if (found := sums[item]) else float(place), place, item)
        for place, item in enumerate(row)
    ]

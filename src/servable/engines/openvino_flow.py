"""What is known, before any request, about the integers that flow through a graph.

OpenVINO's CPU plugin computes integers of all widths in 32 bits, many operations on them in float32, and reads zeros
from beyond a table's end. Following each integer from where it enters to where it is used tells which of them stay
small, and which input is an index into which table. Floats need no following.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from servable.core.tensors import Array

KNOWN_SIZE = 16
"""Constants of at most so many elements are followed by value."""


@dataclass(frozen=True, slots=True)
class Flow:
    """One tensor. ``data``: its integers are as large as a client, or a float that became one, makes them.

    ``origin``: the input whose elements these are, each with ``offset`` added, those below zero with ``wrap`` added.
    ``negative_of``: this tells which elements of that input are below zero. ``rows``: the first dimension of a table.
    ``value``: a small constant.
    """

    data: bool = False
    origin: str | None = None
    offset: int = 0
    wrap: int = 0
    negative_of: str | None = None
    rows: int | None = None
    value: tuple[int, ...] | None = None

    def moved(self) -> Flow:
        """Return what is known after some of the elements went elsewhere."""
        return Flow(data=self.data)

    @property
    def number(self) -> int | None:
        """Return the value of a constant with one element."""
        return self.value[0] if self.value is not None and len(self.value) == 1 else None


DATA = Flow(data=True)
SMALL = Flow()


def constant(array: Array, rows: int | None) -> Flow:
    """Return what is known of a constant."""
    if array.dtype.kind in "iu" and array.size <= KNOWN_SIZE:
        return Flow(rows=rows, value=tuple(int(number) for number in array.reshape(-1)))
    return Flow(rows=rows)


def merged(flows: list[Flow]) -> Flow:
    """Return what holds for a tensor that is one of several, or made of all of them."""
    if not flows:
        return SMALL
    first = flows[0]
    if all(flow == first for flow in flows):
        return first
    rows = first.rows if all(flow.rows == first.rows for flow in flows) else None
    return Flow(data=any(flow.data for flow in flows), rows=rows)


def added(left: Flow, right: Flow) -> Flow:
    """Return what is known of a sum; the callers refuse a sum of two numbers that are both of unknown size."""
    for flow, other in ((left, right), (right, left)):
        if flow.origin is not None and flow.wrap == 0 and other.number is not None:
            return dataclasses.replace(flow, offset=flow.offset + other.number)
    return Flow(data=left.data or right.data)


def selected(condition: Flow, then: Flow, otherwise: Flow) -> Flow:
    """Return what is known of a choice. Knows one idiom: ``where(ids < 0, ids + rows, ids)``."""
    same = then.origin == otherwise.origin == condition.negative_of
    if same and then.origin is not None and otherwise.offset == 0 and then.wrap == otherwise.wrap == 0:
        return Flow(data=True, origin=then.origin, wrap=then.offset)
    return merged([then, otherwise]).moved()


def less(left: Flow, right: Flow) -> Flow:
    """Return what is known of a comparison."""
    if left.origin is not None and (left.offset, left.wrap) == (0, 0) and right.number == 0:
        return Flow(negative_of=left.origin)
    return SMALL


def element(vector: Flow, begin: Flow, *, shrinks: bool) -> Flow:
    """Return what is known of a slice: one element of a known vector, or some of its elements."""
    index = begin.number
    if shrinks and vector.value is not None and index is not None and -len(vector.value) <= index < len(vector.value):
        return Flow(value=(vector.value[index],))
    return vector.moved()


@dataclass(frozen=True, slots=True)
class Bounds:
    """Which integers an input may hold, both ends included, and why, for the error that names the element."""

    low: int
    high: int
    reason: str

    def within(self, other: Bounds | None) -> Bounds:
        """Return the bounds that satisfy both."""
        if other is None:
            return self
        tighter = self if self.high <= other.high else other
        return Bounds(max(self.low, other.low), tighter.high, tighter.reason)

    def violation(self, array: Array) -> int | None:
        """Return an integer of the array that lies outside, or ``None``."""
        if array.size == 0:
            return None
        if (high := int(array.max())) > self.high:
            return high
        if (low := int(array.min())) < self.low:
            return low
        return None


EXACT_INTEGER = 2**24
"""float32, in which OpenVINO computes many integer operations, holds every integer up to this one."""


def exact_bounds(dtype: np.dtype[Any]) -> Bounds | None:
    """Return the bounds for an integer input of that type; ``None`` where the type itself holds no more."""
    if dtype.kind not in "iu" or np.iinfo(dtype).max <= EXACT_INTEGER:
        return None
    low = 0 if dtype.kind == "u" else -EXACT_INTEGER
    return Bounds(low, EXACT_INTEGER, f"OpenVINO holds integers exactly up to {EXACT_INTEGER} only")


def index_bounds(index: Flow, rows: int) -> Bounds:
    """Return the bounds for the input that ``index`` comes from, when it picks rows of a table with so many."""
    return Bounds(-index.wrap if index.wrap else -index.offset, rows - 1 - index.offset, f"it is not in [0, {rows})")

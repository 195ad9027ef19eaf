"""Whether an answer counts: a success in its protocol's own words, readable, and what was expected."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from servable.core.errors import ServingError
from servable.core.tensors import ATOL, RTOL, close
from servable.lab.exchange import Fault, Prepared, Tensors, Wire
from servable.lab.links import Outcome, fault_of
from servable.lab.recorder import Recorder
from servable.lab.server_timing import told_in
from servable.transport.errors import TransportError
from servable.transport.exchange import Field

WRONG: Final = Fault("WRONG", "")
_SMALL = 4096
_ONE_IN = 16
_MOST_KNOWN = 64


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What counts as equal: ``|answer - expected| <= atol + rtol * |expected|``; strings must be the same."""

    rtol: float = RTOL
    atol: float = ATOL


class Judge:
    """Judges the replies of one step. Bodies found right are known again by their bytes."""

    def __init__(self, wire: Wire, prepared: Sequence[Prepared], tolerance: Tolerance, recorder: Recorder) -> None:
        self._wire = wire
        self._prepared = prepared
        self._tolerance = tolerance
        self._recorder = recorder
        self._good: tuple[int, tuple[Field, ...], tuple[Field, ...]] | None = None
        self._last: list[bytes | None] = [None] * len(prepared)
        self._known: list[set[bytes]] = [set() for _ in prepared]
        self._unread = 0
        self._verifies = [one.expected is not None for one in prepared]

    def judge(self, index: int, outcome: Outcome) -> Fault | None:
        """Return what is wrong with the answer to a sample: a fault, ``WRONG``, or ``None``."""
        if isinstance(outcome, TransportError):
            return fault_of(outcome)
        good = self._good
        if good is None or good[2] != outcome.trailers or good[1] != outcome.fields or good[0] != outcome.status:
            fault = self._wire.fault(outcome)
            if fault is not None:
                return fault
            told = told_in(outcome.fields) or told_in(outcome.trailers)
            if told is None:
                self._good = outcome.status, outcome.fields, outcome.trailers
            else:
                self._recorder.told(told)
        body = outcome.body
        if body == self._last[index]:
            return None
        small = len(body) <= _SMALL
        if small and body in self._known[index]:
            return None
        return self._read(index, outcome, small=small)

    def _read(self, index: int, outcome: Outcome, *, small: bool) -> Fault | None:
        assert not isinstance(outcome, TransportError)
        if not small and not self._verifies[index]:
            # Reading large answers that nobody wants compared would be the load's own bottleneck.
            self._unread += 1
            if self._unread % _ONE_IN != 1:
                return None
        begin = time.monotonic_ns()
        try:
            outputs = self._wire.outputs(outcome)
        except ServingError as error:
            return Fault("UNREADABLE", error.message)
        expected = self._prepared[index].expected
        right = expected is None or agrees(outputs, expected, self._tolerance)
        self._recorder.decoded(time.monotonic_ns() - begin)
        if not right:
            return WRONG
        self._last[index] = outcome.body
        known = self._known[index]
        if small and len(known) < _MOST_KNOWN:
            known.add(outcome.body)
        return None


def agrees(outputs: Tensors | bytes, expected: Tensors | bytes, tolerance: Tolerance) -> bool:
    """Return whether an answer is the expected one. Outputs that nobody expects may be there."""
    if isinstance(expected, bytes) or isinstance(outputs, bytes):
        return outputs == expected
    return all(
        name in outputs and close(outputs[name], array, tolerance.rtol, tolerance.atol)
        for name, array in expected.items()
    )

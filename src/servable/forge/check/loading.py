"""Is it the same model when it is loaded again, and when its files lie elsewhere?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from servable.forge.check.examination import Examination, Subject, same_bits
from servable.forge.check.findings import Check, Found, State

SUITE = "save-load"


def checks(examination: Examination) -> Iterator[Check]:
    """Yield one check for each way to load it again."""
    subject = examination.subject
    yield Check(SUITE, "loaded again", lambda: _same(examination, subject.reopened))
    yield Check(SUITE, "loaded from a copy", lambda: _same(examination, subject.copied))


def _same(examination: Examination, opening: Callable[[], AbstractContextManager[Subject] | None]) -> Found:
    opened = opening()
    if opened is None:
        return Found(State.NONE, "only its server loads it")
    began = time.monotonic()
    with opened as again:
        took = time.monotonic() - began
        if {name: str(one) for name, one in again.signatures.items()} != {
            name: str(one) for name, one in examination.subject.signatures.items()
        }:
            return Found(State.FAIL, f"its signatures are others: {', '.join(map(str, again.signatures.values()))}")
        largest, equal = 0.0, True
        for signature in examination.signatures():
            asked = examination.inputs(signature).batch()
            first, second = examination.ask(signature, asked), again.ask(signature.name, asked)
            equal = equal and same_bits(first, second)
            verdict = examination.difference(signature, first, second)
            largest = max(largest, verdict.max_abs)
            if not verdict.ok:
                return Found(State.FAIL, f"it answers otherwise: {verdict.faults[0]}")
    same = "bit for bit the same answers" if equal else f"the same answers within {largest:.2g}"
    return Found(State.PASS if equal else State.NOTE, f"{same}; loaded in {took:.2f} s")

"""Is the same question answered alike, in any company?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from servable.core.signatures import Signature
from servable.forge.check.examination import BATCH, Examination, Outputs, same_bits
from servable.forge.check.findings import Check, Found, State

SUITE = "determinism"
SIZES = (1, 2, 7)


def checks(examination: Examination) -> Iterator[Check]:
    """Yield for each signature: again, elsewhere, at other places of the batch, in batches of other sizes."""
    for signature in examination.signatures():

        def again(signature: Signature = signature) -> Found:
            return _again(examination, signature)

        def elsewhere(signature: Signature = signature) -> Found:
            return _elsewhere(examination, signature)

        def moved(signature: Signature = signature) -> Found:
            return _moved(examination, signature)

        def resized(signature: Signature = signature) -> Found:
            return _resized(examination, signature)

        runs = examination.options.runs
        yield Check(SUITE, examination.named(signature, f"the same batch, {runs} times"), again)
        yield Check(SUITE, examination.named(signature, "elsewhere"), elsewhere)
        yield Check(SUITE, examination.named(signature, "at other places of the batch"), moved)
        yield Check(SUITE, examination.named(signature, "in batches of other sizes"), resized)


def _again(examination: Examination, signature: Signature) -> Found:
    asked = examination.inputs(signature).batch()
    first = examination.ask(signature, asked)
    for run in range(2, examination.options.runs + 1):
        found = examination.ask(signature, asked)
        if not same_bits(first, found):
            largest = examination.difference(signature, first, found).max_abs
            return Found(State.FAIL, f"run {run} differs from the first by up to {largest:.3g}")
    return Found(State.PASS, "bit for bit the same")


def _elsewhere(examination: Examination, signature: Signature) -> Found:
    asked = examination.inputs(signature).batch()
    first = examination.ask(signature, asked)
    times, where = examination.subject.place
    for _ in range(times):
        opened = examination.subject.elsewhere()
        if opened is None:
            return Found(State.NONE, "it is nowhere else")
        with opened as other:
            found = other.ask(signature.name, asked)
        if not same_bits(first, found):
            largest = examination.difference(signature, first, found).max_abs
            return Found(State.FAIL, f"differs by up to {largest:.3g} {where}")
    return Found(State.PASS, f"bit for bit the same {where}")


def _moved(examination: Examination, signature: Signature) -> Found:
    inputs = examination.inputs(signature)
    if not inputs.free:
        return Found(State.NONE, "the signature fixes the number of rows")
    asked = inputs.batch()
    places = np.arange(BATCH)[::-1]  # none stays where it was
    found = examination.ask(signature, {name: array[places] for name, array in asked.items()})
    expected = examination.ask(signature, asked)
    if not _has_rows(expected, BATCH):
        return Found(State.NONE, "its outputs are not one a row")
    return _judged(examination, signature, expected, {name: array[places] for name, array in found.items()})


def _resized(examination: Examination, signature: Signature) -> Found:
    inputs = examination.inputs(signature)
    if not inputs.free:
        return Found(State.NONE, "the signature fixes the number of rows")
    whole = examination.ask(signature, inputs.batch())
    if not _has_rows(whole, BATCH):
        return Found(State.NONE, "its outputs are not one a row")
    worst = Found(State.PASS, "")
    largest, equal = 0.0, True
    for size in SIZES:
        parts = [inputs.batch(min(size, BATCH - at), at) for at in range(0, BATCH, size)]
        answers = [examination.ask(signature, part) for part in parts]
        try:
            joined = {name: np.concatenate([answer[name] for answer in answers]) for name in whole}
        except ValueError:
            return Found(State.NONE, "its outputs depend on the size of the batch in their shape")
        verdict = examination.difference(signature, whole, joined)
        equal = equal and same_bits(whole, joined)
        largest = max(largest, verdict.max_abs)
        if not verdict.ok and worst.state is State.PASS:
            worst = Found(State.FAIL, f"in batches of {size}: {verdict.faults[0]}")
    return worst if worst.state is State.FAIL else _within(largest, equal=equal)


def _judged(examination: Examination, signature: Signature, expected: Outputs, found: Outputs) -> Found:
    verdict = examination.difference(signature, expected, found)
    if not verdict.ok:
        return Found(State.FAIL, f"an answer depends on the others of its batch: {verdict.faults[0]}")
    return _within(verdict.max_abs, equal=same_bits(expected, found))


def _within(largest: float, *, equal: bool) -> Found:
    return Found(State.PASS, "bit for bit the same" if equal else f"differs by at most {largest:.3g}")


def _has_rows(outputs: Outputs, rows: int) -> bool:
    return all(array.ndim and len(array) == rows for array in outputs.values())

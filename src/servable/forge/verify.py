"""Two models compared through their engines: a step is done when what it made answers as its source does.

Pure but for ``answers``, which runs a model. Every comparison is of the same inputs at several batch sizes, since
some engines go wrong at one alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Final

import numpy as np

from servable.core.errors import ServingError, failed_precondition
from servable.core.signatures import Signature
from servable.core.tensors import ATOL, RTOL, Array, close
from servable.engines.base import Model
from servable.forge.arrays import Tensors
from servable.forge.distance import Distance, total
from servable.forge.samples import Samples

BATCHES: Final = (1, 2, 7)
"""Batch sizes at which models are compared, unless the signature fixes one."""
LEAST_ROWS: Final = 8
"""How many rows each of these sizes sees at least: few rows say little of smaller numbers."""
ROWS_AT_ONCE: Final = 32
ONE_SIZE: Final = 3.0
"""So many times as far as all rows together the rows of one batch size may be off, of which there are few."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a candidate may be off. What is ``None`` is not judged.

    ``rtol`` and ``atol`` bound every element: ``|d| <= atol + rtol |reference|``; ``relative`` bounds the largest
    difference over the largest reference, ``cosine`` the least cosine, ``agreement`` the least share of rows with
    the same top class.
    """

    rtol: float | None = RTOL
    atol: float | None = ATOL
    relative: float | None = None
    cosine: float | None = None
    agreement: float | None = None

    def __str__(self) -> str:
        """Return it for people."""
        parts = []
        if self.rtol is not None:
            parts.append(f"|d| <= {self.atol or 0:g} + {self.rtol:g} |reference|")
        if self.relative is not None:
            parts.append(f"max |d| <= {self.relative:g} max |reference|")
        if self.cosine is not None:
            parts.append(f"cosine >= {self.cosine:g}")
        if self.agreement is not None:
            parts.append(f"the same top class for >= {100 * self.agreement:g} % of rows")
        return ", ".join(parts) or "anything"


EXACT: Final = Tolerance()
"""The same arithmetic in another order: f32 against f32."""
HALF: Final = Tolerance(rtol=None, atol=None, relative=2e-2, cosine=0.9999)
"""16-bit weights or arithmetic."""
INT8: Final = Tolerance(rtol=None, atol=None, cosine=0.98)
"""8-bit weights or arithmetic; callers with labels or scores ask for agreement too."""


@dataclass(frozen=True, slots=True)
class Question:
    """Inputs for one signature of the reference. ``probe`` ones are reported, not judged (NaN in, what comes out)."""

    signature: str
    rows: int
    inputs: Tensors
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """One output at one batch size: ``asked`` rows in batches of ``rows``."""

    signature: str
    output: str
    rows: int
    asked: int
    distance: Distance
    fault: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "signature": self.signature,
            "output": self.output,
            "rows": self.rows,
            "asked": self.asked,
            **self.distance.as_json(),
            "fault": self.fault,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison found. ``faults`` is empty if everything is within the tolerance; ``notes`` are for people."""

    tolerance: Tolerance
    differences: tuple[Difference, ...]
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Return whether the candidate may take the reference's place."""
        return not self.faults

    @property
    def outputs(self) -> Mapping[tuple[str, str], Distance]:
        """Return how far each output is off over all rows, by signature and name."""
        found: dict[tuple[str, str], list[Distance]] = {}
        for one in self.differences:
            found.setdefault((one.signature, one.output), []).append(one.distance)
        return {key: total(distances) for key, distances in found.items()}

    @property
    def max_abs(self) -> float:
        """Return the largest difference of any number."""
        return max((one.distance.max_abs for one in self.differences), default=0.0)

    @property
    def relative(self) -> float:
        """Return the largest difference over the largest number of the reference, of the worst output."""
        return max((one.relative for one in self.outputs.values()), default=0.0)

    @property
    def cosine(self) -> float | None:
        """Return the cosine over all rows of the worst output."""
        return min((one.cosine for one in self.outputs.values() if one.cosine is not None), default=None)

    @property
    def agreement(self) -> float | None:
        """Return the share of all rows with the same top class, over all outputs and batches."""
        return self.agreed[0] / self.agreed[1] if self.agreed[1] else None

    @property
    def agreed(self) -> tuple[int, int]:
        """Return how many rows have the same top class, and how many have one."""
        found = [one.distance for one in self.differences]
        return sum(one.agreed for one in found), sum(one.chosen for one in found)

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "ok": self.ok,
            "tolerance": str(self.tolerance),
            "max_abs": self.max_abs if math.isfinite(self.max_abs) else None,
            "relative": self.relative if math.isfinite(self.relative) else None,
            "cosine": self.cosine,
            "agreement": self.agreement,
            "faults": list(self.faults),
            "notes": list(self.notes),
            "differences": [one.as_json() for one in self.differences],
        }


def questions(
    signature: Signature, samples: Samples, batches: Sequence[int] = BATCHES, *, whole: bool = False, probe: bool = True
) -> list[Question]:
    """Return what to ask: the samples at several batch sizes, and rows with NaN in them where inputs are floats.

    Each batch begins where the one before ended, so that many batches see many rows; with ``whole`` they see all.
    """
    sizes = _sizes(batches, fixed_rows(signature), len(samples) if whole else 0)
    starts = accumulate(sizes, initial=0)
    asked = [
        Question(signature.name, size, samples.batch(size, start)) for size, start in zip(sizes, starts, strict=False)
    ]
    floats = [name for name, array in samples.rows.items() if array.dtype.kind == "f" and array.size]
    if probe and floats and len(samples):
        inputs = {name: array.copy() for name, array in samples.batch(sizes[0]).items()}
        for name in floats:
            inputs[name].reshape(-1)[:1] = np.nan
        asked.append(Question(signature.name, sizes[0], inputs, probe=True))
    return asked


def _sizes(batches: Sequence[int], fixed: int | None, rows: int) -> list[int]:
    """Return the sizes of the batches: each as often as sees ``LEAST_ROWS``, then what it takes to see all ``rows``."""
    sizes = [size for size in batches for _ in range(-(-LEAST_ROWS // max(1, size)))]
    if fixed:
        return [fixed] * max(1, max(sum(sizes), rows) // fixed)
    more, rest = divmod(max(0, rows - sum(sizes)), ROWS_AT_ONCE)
    return [*sizes, *[ROWS_AT_ONCE] * more, *([max(rest, LEAST_ROWS)] if rest else [])]


def fixed_rows(signature: Signature) -> int | None:
    """Return the batch size that a signature fixes, ``None`` if it is free."""
    for spec in signature.inputs.values():
        if spec.shape and spec.shape[0] is not None:
            return spec.shape[0]
    return None


def answers(model: Model, asked: Sequence[Question], renamed: Mapping[str, str] | None = None) -> list[Tensors]:
    """Return what a model answers to each question, in order. Inputs take the types that its signature states.

    Integers with a scale are what they stand for: numbers become integers, and those that come out become numbers.
    ``renamed`` maps the reference's signatures to the model's, where a format keeps no names. What goes wrong in a
    probe answers nothing.
    """
    found: list[Tensors] = []
    for question in asked:
        signature = _signature(model, question.signature, renamed or {})
        given = question.inputs
        inputs = {name: spec.taken(given[name]) for name, spec in signature.inputs.items() if name in given}
        try:
            answer = model.run(signature.name, inputs, list(signature.outputs))
            found.append({name: signature.outputs[name].meant(array) for name, array in answer.items()})
        except ServingError:
            if not question.probe:
                raise
            found.append({})
    return found


def compare(
    asked: Sequence[Question], expected: Sequence[Tensors], found: Sequence[Tensors], tolerance: Tolerance
) -> Verdict:
    """Judge a candidate's answers by the reference's.

    Shapes, NaN, integers and the bounds of every element are judged batch by batch. The cosine, the largest difference
    and the top class are judged over all rows of an output: of a few rows they are noise. An engine that goes wrong at
    one batch size is found by the cosine of that size alone, which may be ``ONE_SIZE`` times as far off.
    """
    batches: dict[tuple[str, str, int], list[_Batch]] = {}
    notes: list[str] = []
    for question, right, answer in zip(asked, expected, found, strict=True):
        if question.probe:
            notes.append(_probe(right, answer))
            continue
        for name, reference in right.items():
            batch = _batch(reference, answer, name, tolerance)
            batches.setdefault((question.signature, name, question.rows), []).append(batch)
            if name in answer and reference.dtype != answer[name].dtype:
                notes.append(f"output {name} is {answer[name].dtype}, was {reference.dtype}")
    differences = tuple(_difference(*key, of_size, tolerance) for key, of_size in batches.items())
    faults = [f"{one.signature}/{one.output} at batch {one.rows}: {one.fault}" for one in differences if one.fault]
    verdict = Verdict(tolerance, differences, notes=tuple(note for note in dict.fromkeys(notes) if note))
    return replace(verdict, faults=tuple(dict.fromkeys([*faults, *_faults(verdict, tolerance)])))


def _signature(model: Model, wanted: str, renamed: Mapping[str, str]) -> Signature:
    name = renamed.get(wanted, wanted)
    if name not in model.signatures and len(model.signatures) == 1 and wanted not in renamed:
        name = next(iter(model.signatures))
    found = model.signatures.get(name)
    if found is None:
        raise failed_precondition(f"the new model has no signature {name!r}; there are {', '.join(model.signatures)}")
    return found


@dataclass(frozen=True, slots=True)
class _Batch:
    """One output of one batch: how far it is off, and what is wrong with it by itself."""

    distance: Distance
    rows: int = 0
    fault: str = ""


_FAR: Final = Distance(math.inf, math.inf)


def _batch(right: Array, answers_: Tensors, name: str, tolerance: Tolerance) -> _Batch:
    if name not in answers_:
        return _Batch(_FAR, fault=f"the output is not there; there are {', '.join(answers_) or 'none'}")
    answer = answers_[name]
    if right.shape != answer.shape:
        return _Batch(_FAR, fault=f"shape {list(answer.shape)}, expected {list(right.shape)}")
    distance = Distance.between(right, answer)
    fault = ""
    if distance.nan == "differs":
        fault = "NaN where the source has none, or the other way about"
    elif tolerance.rtol is not None and distance.counted and distance.max_abs:
        fault = f"{distance.max_abs:.0f} of {right.size} elements are not the same"
    elif tolerance.rtol is not None and not distance.counted:
        left, other = right.astype(np.float64), answer.astype(np.float64)
        if not close(other, left, tolerance.rtol, tolerance.atol or 0.0):
            fault = f"differs by up to {distance.max_abs:.3g} (relative {distance.relative:.3g}); allowed: {tolerance}"
    return _Batch(distance, len(right) if right.ndim else 1, fault)


def _difference(signature: str, output: str, rows: int, batches: Sequence[_Batch], tolerance: Tolerance) -> Difference:
    distance = total(batch.distance for batch in batches)
    fault = next((batch.fault for batch in batches if batch.fault), "")
    if not fault and tolerance.cosine is not None and distance.cosine is not None:
        least = 1 - ONE_SIZE * (1 - tolerance.cosine)
        if distance.cosine < least:
            fault = f"cosine {distance.cosine:.5f} at this size; at least {least:g} is asked for"
    return Difference(signature, output, rows, sum(batch.rows for batch in batches), distance, fault)


def _faults(verdict: Verdict, tolerance: Tolerance) -> Iterator[str]:
    """Yield what is wrong with all rows of an output together."""
    told = {(one.signature, one.output) for one in verdict.differences if one.fault}
    for (signature, output), all_rows in verdict.outputs.items():
        where = f"{signature}/{output}"
        if (signature, output) in told or all_rows.counted:
            continue
        if tolerance.relative is not None and all_rows.relative > tolerance.relative:
            yield f"{where}: differs by {all_rows.relative:.3g} of the largest value; allowed: {tolerance.relative:g}"
        if tolerance.cosine is not None and all_rows.cosine is not None and all_rows.cosine < tolerance.cosine:
            yield f"{where}: cosine {all_rows.cosine:.5f}; at least {tolerance.cosine:g} is asked for"
    share = verdict.agreement
    if tolerance.agreement is not None and share is not None and share < tolerance.agreement:
        yield f"the top class is the same for {100 * share:.4g} % of rows, not {100 * tolerance.agreement:g} %"


def _probe(right: Tensors, answer: Tensors) -> str:
    if bool(right) != bool(answer):
        return f"NaN in an input: {'refused' if right else 'answered'} now, {'answered' if right else 'refused'} before"
    for name in right.keys() & answer.keys():
        if right[name].dtype.kind != "f" or answer[name].dtype.kind != "f" or right[name].shape != answer[name].shape:
            continue
        if not np.array_equal(np.isnan(right[name]), np.isnan(answer[name])):
            return f"NaN in an input: output {name} is NaN at other places than before"
    return ""

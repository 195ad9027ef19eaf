"""Two models compared through their engines: a step is done when what it made answers as its source does.

Pure but for ``answers``, which runs a model. Every comparison is of the same inputs at several batch sizes, since
some engines go wrong at one alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Any, Final

import numpy as np

from servable.core.errors import ServingError, failed_precondition
from servable.core.signatures import Signature
from servable.core.tensors import Array, close
from servable.engines.base import Model
from servable.forge.arrays import Tensors
from servable.forge.samples import Samples, agreement

BATCHES: Final = (1, 2, 7)
"""Batch sizes at which models are compared, unless the signature fixes one."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a candidate may be off. What is ``None`` is not judged.

    ``rtol`` and ``atol`` bound every element: ``|d| <= atol + rtol |reference|``; ``relative`` bounds the largest
    difference over the largest reference, ``cosine`` the least cosine, ``agreement`` the least share of rows with
    the same top class.
    """

    rtol: float | None = 1e-4
    atol: float | None = 1e-5
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
    """One output at one batch size. ``nan``: "none", "same" places in both, or "differs".

    ``relative`` is max |d| / max |reference|; ``agreement`` and ``cosine`` are ``None`` where they mean nothing.
    """

    signature: str
    output: str
    rows: int
    max_abs: float
    relative: float
    cosine: float | None
    agreement: float | None
    nan: str
    fault: str = ""


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
    def max_abs(self) -> float:
        """Return the largest difference of any number."""
        return max((one.max_abs for one in self.differences), default=0.0)

    @property
    def relative(self) -> float:
        """Return the largest difference over the largest number of the reference."""
        return max((one.relative for one in self.differences), default=0.0)

    @property
    def cosine(self) -> float | None:
        """Return the least cosine."""
        return min((one.cosine for one in self.differences if one.cosine is not None), default=None)

    @property
    def agreement(self) -> float | None:
        """Return the share of all rows with the same top class, over all outputs and batches."""
        found = [(one.agreement, one.rows) for one in self.differences if one.agreement is not None]
        total = sum(rows for _, rows in found)
        return sum(share * rows for share, rows in found) / total if total else None

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "ok": self.ok,
            "tolerance": str(self.tolerance),
            "max_abs": self.max_abs,
            "relative": self.relative,
            "cosine": self.cosine,
            "agreement": self.agreement,
            "faults": list(self.faults),
            "notes": list(self.notes),
            "differences": [asdict(one) for one in self.differences],
        }


def questions(
    signature: Signature, samples: Samples, batches: Sequence[int] = BATCHES, *, probe: bool = True
) -> list[Question]:
    """Return what to ask: the samples at several batch sizes, and rows with NaN in them where inputs are floats.

    Each batch begins where the one before ended, so that many batches see many rows.
    """
    fixed = fixed_rows(signature)
    sizes = (fixed,) * max(1, sum(batches) // fixed) if fixed else tuple(batches)
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


def fixed_rows(signature: Signature) -> int | None:
    """Return the batch size that a signature fixes, ``None`` if it is free."""
    for spec in signature.inputs.values():
        if spec.shape and spec.shape[0] is not None:
            return spec.shape[0]
    return None


def answers(model: Model, asked: Sequence[Question], renamed: Mapping[str, str] | None = None) -> list[Tensors]:
    """Return what a model answers to each question, in order. Inputs take the types that its signature states.

    ``renamed`` maps the reference's signatures to the model's, where a format keeps no names. What goes wrong in a
    probe answers nothing.
    """
    found: list[Tensors] = []
    for question in asked:
        signature = _signature(model, question.signature, renamed or {})
        inputs = {
            name: question.inputs[name].astype(spec.dtype.numpy, copy=False)
            for name, spec in signature.inputs.items()
            if name in question.inputs
        }
        try:
            found.append(model.run(signature.name, inputs, list(signature.outputs)))
        except ServingError:
            if not question.probe:
                raise
            found.append({})
    return found


def compare(
    asked: Sequence[Question], expected: Sequence[Tensors], found: Sequence[Tensors], tolerance: Tolerance
) -> Verdict:
    """Judge a candidate's answers by the reference's."""
    differences: list[Difference] = []
    notes: list[str] = []
    for question, right, answer in zip(asked, expected, found, strict=True):
        if question.probe:
            note = _probe(right, answer)
            if note and note not in notes:
                notes.append(note)
            continue
        for name, reference in right.items():
            if name not in answer:
                differences.append(_missing(question, name, answer))
                continue
            if reference.dtype != answer[name].dtype:
                note = f"output {name} is {answer[name].dtype}, was {reference.dtype}"
                notes += [note] if note not in notes else []
            differences.append(_difference(question, name, reference, answer[name], tolerance))
    verdict = Verdict(tolerance, tuple(differences), notes=tuple(notes))
    faults = [f"{one.signature}/{one.output} at batch {one.rows}: {one.fault}" for one in differences if one.fault]
    if tolerance.agreement is not None and (share := verdict.agreement) is not None and share < tolerance.agreement:
        faults.append(f"the top class is the same for {100 * share:.4g} % of rows, not {100 * tolerance.agreement:g} %")
    return replace(verdict, faults=tuple(dict.fromkeys(faults)))


def _signature(model: Model, wanted: str, renamed: Mapping[str, str]) -> Signature:
    name = renamed.get(wanted, wanted)
    if name not in model.signatures and len(model.signatures) == 1 and wanted not in renamed:
        name = next(iter(model.signatures))
    found = model.signatures.get(name)
    if found is None:
        raise failed_precondition(f"the new model has no signature {name!r}; there are {', '.join(model.signatures)}")
    return found


def _difference(question: Question, name: str, right: Array, answer: Array, tolerance: Tolerance) -> Difference:
    def result(max_abs: float, relative: float, cosine: float | None, nan: str, fault: str) -> Difference:
        share = agreement(right, answer) if right.shape == answer.shape else None
        return Difference(question.signature, name, question.rows, max_abs, relative, cosine, share, nan, fault)

    if right.shape != answer.shape:
        fault = f"shape {list(answer.shape)}, expected {list(right.shape)}"
        return result(math.inf, math.inf, None, "none", fault)
    if right.dtype.hasobject or answer.dtype.hasobject or (right.dtype.kind in "biu" and answer.dtype.kind in "biu"):
        same = right == answer
        wrong = int(same.size - np.count_nonzero(same))
        fault = f"{wrong} of {right.size} elements are not the same" if wrong and _judged(tolerance) else ""
        return result(float(wrong), wrong / max(1, right.size), None, "none", fault)
    left, other = right.astype(np.float64), answer.astype(np.float64)
    holes = np.isnan(left), np.isnan(other)
    nan = "none" if not (holes[0].any() or holes[1].any()) else "same" if np.array_equal(*holes) else "differs"
    both = ~(holes[0] | holes[1])
    max_abs, relative, cosine = _distance(left[both], other[both])
    fault = "NaN where the source has none, or the other way about" if nan == "differs" else ""
    return result(max_abs, relative, cosine, nan, fault or _fault(left, other, max_abs, relative, cosine, tolerance))


def _judged(tolerance: Tolerance) -> bool:
    """Return whether every element must be right: integers and strings have no other measure."""
    return tolerance.rtol is not None


def _distance(left: Array, right: Array) -> tuple[float, float, float | None]:
    if not left.size:
        return 0.0, 0.0, None
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(left - right)
    gap[left == right] = 0.0  # infinities of one sign
    max_abs = float(gap.max())
    largest = float(np.abs(left).max())
    relative = max_abs / largest if largest else (0.0 if not max_abs else math.inf)
    norms = float(np.linalg.norm(left) * np.linalg.norm(right))
    cosine = float(np.dot(left.reshape(-1), right.reshape(-1)) / norms) if norms and math.isfinite(norms) else None
    return max_abs, relative, cosine


def _fault(
    left: Array, right: Array, max_abs: float, relative: float, cosine: float | None, tolerance: Tolerance
) -> str:
    if tolerance.rtol is not None and not close(right, left, tolerance.rtol, tolerance.atol or 0.0):
        return f"differs by up to {max_abs:.3g} (relative {relative:.3g}); allowed: {tolerance}"
    if tolerance.relative is not None and relative > tolerance.relative:
        return f"differs by {relative:.3g} of the largest value; allowed: {tolerance.relative:g}"
    if tolerance.cosine is not None and cosine is not None and cosine < tolerance.cosine:
        return f"cosine {cosine:.5f}; at least {tolerance.cosine:g} is asked for"
    return ""


def _missing(question: Question, name: str, answer: Tensors) -> Difference:
    there = ", ".join(answer) or "none"
    fault = f"the output is not there; there are {there}"
    return Difference(question.signature, name, question.rows, math.inf, math.inf, None, None, "none", fault)


def _probe(right: Tensors, answer: Tensors) -> str:
    if bool(right) != bool(answer):
        return f"NaN in an input: {'refused' if right else 'answered'} now, {'answered' if right else 'refused'} before"
    for name in right.keys() & answer.keys():
        if right[name].dtype.kind != "f" or answer[name].dtype.kind != "f" or right[name].shape != answer[name].shape:
            continue
        if not np.array_equal(np.isnan(right[name]), np.isnan(answer[name])):
            return f"NaN in an input: output {name} is NaN at other places than before"
    return ""

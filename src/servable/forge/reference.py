"""The model that all others are judged by: what it answers to the data, and how near others come."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from servable.core.errors import failed_precondition
from servable.core.signatures import Signature, main_signature
from servable.core.tensors import Array
from servable.engines.base import Artifact, Model
from servable.forge.arrays import Tensors
from servable.forge.samples import Samples, accuracy, made_up_for
from servable.forge.verify import Question, Tolerance, answers, compare, fixed_rows
from servable.forge.workshop import open_model

ROWS: Final = 64
"""How many rows are made up where there is no data."""
_BATCH: Final = 16
_ANYTHING: Final = Tolerance(rtol=None, atol=None)


@dataclass(frozen=True, slots=True)
class Judged:
    """How near a model comes to the reference, over all rows of the data. ``None``: there is nothing to tell it by."""

    max_abs: float
    relative: float
    cosine: float | None
    agreement: float | None
    accuracy: float | None
    rows: int
    fault: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON, which has no infinity."""
        return {
            "max_abs": _finite(self.max_abs),
            "relative": _finite(self.relative),
            "cosine": self.cosine,
            "agreement": self.agreement,
            "accuracy": self.accuracy,
            "rows": self.rows,
            "fault": self.fault,
        }


def judged_from(document: Mapping[str, Any]) -> Judged:
    """Read what ``as_json`` wrote."""
    return Judged(**{**document, **{key: math.inf for key in ("max_abs", "relative") if document[key] is None}})


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Reference:
    """One signature of a model with rows of inputs and its own answers to them, row by row."""

    artifact: Artifact
    signature: Signature
    samples: Samples
    expected: Mapping[str, Array]

    @classmethod
    def of(cls, artifact: Artifact, data: Samples | None = None, engine: str | None = None) -> Reference:
        """Ask a model, in the engine that would serve it, or in that one; without data, rows are made up."""
        model = open_model(artifact, engine)
        try:
            signature = main_signature(model.signatures)
            samples = made_up_for(model, signature, fixed_rows(signature) or ROWS) if data is None else data
            answered = _ask(model, signature, samples)
            return cls(artifact, signature, samples, answered)
        finally:
            model.close()

    def judge(self, artifact: Artifact, engine: str | None = None) -> Judged:
        """Ask another model the same and compare."""
        model = open_model(artifact, engine)
        try:
            return self.judge_answers(_ask(model, self.signature, self.samples))
        finally:
            model.close()

    def judge_through(self, ask: Callable[[Sequence[Question]], Sequence[Tensors]]) -> Judged:
        """Ask a model that takes any number of rows through a function that answers questions."""
        asked = _questions(self.signature, self.samples, _BATCH)
        return self.judge_answers(_joined(asked, ask(asked), self.signature))

    def judge_answers(self, found: Mapping[str, Array]) -> Judged:
        """Compare answers, row by row; a model whose batch is fixed may have answered the first rows only."""
        count = min((len(array) for array in found.values() if array.ndim), default=0)
        expected = {name: array[:count] for name, array in self.expected.items()}
        verdict = compare([Question(self.signature.name, count, {})], [expected], [found], _ANYTHING)
        right = None
        if self.samples.labels is not None:
            labels = self.samples.labels[:count]
            shares = [accuracy([array], labels) for array in found.values()]
            right = next((share for share in shares if share is not None), None)
        return Judged(
            verdict.max_abs,
            verdict.relative,
            verdict.cosine,
            verdict.agreement,
            right,
            count,
            "; ".join(verdict.faults),
        )

    def judge_itself(self) -> Judged:
        """Return what the reference is beside itself: its accuracy."""
        return self.judge_answers(self.expected)


def _ask(model: Model, signature: Signature, samples: Samples) -> dict[str, Array]:
    own = model.signatures.get(signature.name) or next(iter(model.signatures.values()))
    size = fixed_rows(own) or min(_BATCH, max(1, len(samples)))
    batches = [batch for batch in samples.batches(size) if fixed_rows(own) is None or _length(batch) == size]
    if not batches:
        raise failed_precondition(f"the model takes {size} rows at once, and the data has {len(samples)}")
    asked = [Question(signature.name, _length(batch), batch) for batch in batches]
    return _joined(asked, answers(model, asked), signature)


def _questions(signature: Signature, samples: Samples, size: int) -> list[Question]:
    return [Question(signature.name, _length(batch), batch) for batch in samples.batches(size)]


def _joined(asked: Sequence[Question], found: Sequence[Tensors], signature: Signature) -> dict[str, Array]:
    """Return the answers row by row; outputs that have no rows are left out."""
    names = [name for name, array in found[0].items() if array.ndim and len(array) == asked[0].rows]
    if not names:
        raise failed_precondition(f"no output of {signature.name} has a row for each row of its inputs: {signature}")
    return {name: np.concatenate([one[name] for one in found]) for name in names}


def _length(batch: Mapping[str, Array]) -> int:
    return len(next(iter(batch.values())))

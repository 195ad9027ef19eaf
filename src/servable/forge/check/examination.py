"""A model under examination: how it is asked, with which inputs, and what the checks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from servable.core.errors import Code, ServingError
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.core.tensors import DTYPES_BY_NAME, Array
from servable.forge.arrays import Tensors
from servable.forge.check.findings import NoInputsError
from servable.forge.samples import Ranges, Samples, fitting, from_file, made_up, told_limits
from servable.forge.verify import Question, Tolerance, Verdict, compare

Outputs = dict[str, Array]

MADE_UP_ROWS: Final = 64
"""Rows that are made up where there is no data."""
BATCH: Final = 8
"""Rows of the batch that most checks ask."""


class Subject(Protocol):
    """A model that is asked as a client would: names and types are checked, then shapes, as the model does.

    What is wrong comes as ``ServingError``. ``reopened`` and ``copied`` give the same model loaded anew, from where it
    lies and from a copy elsewhere; ``None`` if only its server could do that. ``elsewhere`` gives the same model where
    other processes may compute: another process, or another connection, as ``place`` says, so many times.
    """

    place: tuple[int, str]

    @property
    def target(self) -> str:
        """What was named on the command line."""

    @property
    def engine(self) -> str:
        """What computes; "" if nobody says."""

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """The signatures by name."""

    def ask(self, signature: str, inputs: Tensors) -> Outputs:
        """Return all outputs."""

    def reopened(self) -> AbstractContextManager[Subject] | None:
        """Load it a second time, in another process."""

    def copied(self) -> AbstractContextManager[Subject] | None:
        """Copy it to another folder and load that."""

    def elsewhere(self) -> AbstractContextManager[Subject] | None:
        """Reach it elsewhere."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for. ``nan`` is the policy that a model must have for NaN and Inf, or "any"."""

    data: Path | None = None
    profile: Path | None = None
    known: Path | None = None
    signature: str = ""
    runs: int = 20
    rows: int = 0
    seed: int = 0
    nan: str = "any"
    tolerance: Tolerance = field(default_factory=Tolerance)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class Inputs:
    """Valid inputs of one signature, in batches of any size where its rows are free."""

    def __init__(self, signature: Signature, samples: Samples | None, whole: Tensors, origin: str) -> None:
        self.signature = signature
        self.samples = samples
        self.origin = origin
        self._whole = whole

    @property
    def free(self) -> bool:
        """Whether the model takes any number of rows."""
        return self.samples is not None

    def batch(self, size: int = BATCH, start: int = 0) -> dict[str, Array]:
        """Return so many rows, or, where they are not free, the one batch there is."""
        return dict(self._whole) if self.samples is None else self.samples.batch(size, start)

    def batches(self, size: int = 32) -> list[dict[str, Array]]:
        """Return all rows there are."""
        return [dict(self._whole)] if self.samples is None else self.samples.batches(size)


class Examination:
    """One model, and what was found out about how to ask it."""

    def __init__(self, subject: Subject, options: Options) -> None:
        self.subject = subject
        self.options = options
        self._inputs: dict[str, Inputs] = {}
        self._without: set[str] = set()

    def signatures(self) -> list[Signature]:
        """Return the signatures to examine: the one that was named, else all that can be called."""
        every = self.subject.signatures
        if self.options.signature:
            found = every.get(self.options.signature)
            if found is None:
                raise ServingError(
                    Code.NOT_FOUND, f"there is no signature {self.options.signature!r}; there are {', '.join(every)}"
                )
            return [found]
        return [one for one in every.values() if _can_be_asked(one)]

    def main(self) -> str:
        """Return the name of the signature that data without a name is for."""
        names = [one.name for one in self.signatures()]
        return DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in names or not names else names[0]

    def named(self, signature: Signature, name: str) -> str:
        """Return the name of a check, with that of the signature where there are several."""
        return f"{signature.name}: {name}" if len(self.signatures()) > 1 else name

    def ask(self, signature: Signature, inputs: Tensors) -> Outputs:
        """Ask the model."""
        return self.subject.ask(signature.name, inputs)

    def inputs(self, signature: Signature) -> Inputs:
        """Return inputs that the model answers to.

        Raises what it says of those that were made up, once; then ``NoInputsError``: one check that fails is enough.
        """
        found = self._inputs.get(signature.name)
        if found is None:
            if signature.name in self._without:
                raise NoInputsError
            try:
                found = self._inputs[signature.name] = self._find(signature)
            except ServingError:
                self._without.add(signature.name)
                raise
        return found

    def origins(self) -> Iterator[str]:
        """Say where the inputs came from."""
        for name, found in self._inputs.items():
            yield f"{name}: {found.origin}"

    def difference(self, signature: Signature, expected: Outputs, found: Outputs) -> Verdict:
        """Compare two answers within the tolerance that was asked for."""
        rows = next((len(array) for array in expected.values() if array.ndim), 1)
        return compare([Question(signature.name, rows, {})], [expected], [found], self.options.tolerance)

    def _find(self, signature: Signature) -> Inputs:
        options = self.options
        if options.data is not None:
            try:
                samples = from_file(options.data, signature, options.rows or 4096)
            except ServingError:
                if signature.name == self.main():
                    raise
            else:
                return Inputs(signature, samples, {}, samples.origin)
        free = bool(signature.inputs) and all(
            spec.shape is None or (spec.shape and spec.shape[0] is None) for spec in signature.inputs.values()
        )
        rows = options.rows or MADE_UP_ROWS
        refusal = self._refusal(signature)
        inputs = fitting(signature, self._made_up(signature, rows if free else 1, free=free), refusal)
        refused = refusal(inputs)
        if refused is not None:
            raise ServingError(
                refused.code, f"made-up inputs are refused ({refused.message}): give --data, --shape or --range"
            )
        return inputs

    def _made_up(self, signature: Signature, rows: int, *, free: bool) -> Callable[[Ranges], Inputs]:
        shapes = {name: shape for name, shape in self.options.shapes.items() if name in signature.inputs}
        given = {name: bounds for name, bounds in self.options.ranges.items() if name in signature.inputs}

        def make(ranges: Ranges) -> Inputs:
            bounds = {**ranges, **given}
            samples = made_up(signature, rows, seed=self.options.seed, shapes=shapes, ranges=bounds)
            return Inputs(signature, samples if free else None, samples.rows, samples.origin + told_limits(ranges))

        return make

    def _refusal(self, signature: Signature) -> Callable[[Inputs], ServingError | None]:
        def refusal(inputs: Inputs) -> ServingError | None:
            try:
                self.ask(signature, inputs.batch())
            except ServingError as error:
                return error
            return None

        return refusal


def _can_be_asked(signature: Signature) -> bool:
    """Return whether all that goes in and comes out are tensors: the operation that initializes a graph gives none."""
    specs = (*signature.inputs.values(), *signature.outputs.values())
    return bool(signature.outputs) and all(spec.dtype.name in DTYPES_BY_NAME for spec in specs)


def same_bits(left: Any, right: Any) -> bool:
    """Return whether two answers are the same, bit by bit; NaN as NaN."""
    if left.keys() != right.keys():
        return False
    for name, array in left.items():
        other = right[name]
        if array.dtype != other.dtype or array.shape != other.shape:
            return False
        if array.dtype.hasobject:
            if not np.array_equal(array, other):
                return False
        elif np.ascontiguousarray(array).tobytes() != np.ascontiguousarray(other).tobytes():
            return False
    return True

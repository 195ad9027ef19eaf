"""Requests made up from a signature: seeded, different from each other, of the types and shapes that a model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from servable.core.errors import invalid_argument
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import BOOL, STRING, Array, DType
from servable.lab.exchange import Sample

_WORDS = (b"a", b"service", b"takes", b"trained", b"models", b"and", b"answers", b"with", b"what", b"they", b"say")
_INTEGERS = (0, 100)
_FLOATS = (-1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What made-up inputs should be where the signature leaves it open.

    ``shapes`` are of one row, without the batch. ``ranges`` are (lowest, below), for numbers.
    """

    batch: int = 1
    samples: int = 16
    seed: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    string_bytes: int | None = None
    """Length of strings; by default a few words."""
    free_size: int = 1
    """Size of dimensions that neither signature nor ``shapes`` fix."""


def synthesise(signature: Signature, wanted: Wanted) -> list[Sample]:
    """Return requests with made-up inputs; INVALID_ARGUMENT names an input that cannot be made up."""
    unknown = (set(wanted.shapes) | set(wanted.ranges)) - set(signature.inputs)
    if unknown:
        raise invalid_argument(
            f"the signature has no input {', '.join(map(repr, sorted(unknown)))}; "
            f"there are {', '.join(map(repr, signature.inputs))}"
        )
    generator = np.random.default_rng(wanted.seed)
    needed = [spec for name, spec in signature.inputs.items() if name not in signature.defaults]
    return [
        Sample({spec.name: _array(spec, wanted, generator) for spec in needed}) for _ in range(max(1, wanted.samples))
    ]


def _array(spec: TensorSpec, wanted: Wanted, generator: np.random.Generator) -> Array:
    shape = _shape(spec, wanted)
    low, high = wanted.ranges.get(spec.name, (None, None))
    return _values(spec, spec.dtype, shape, generator, low, high, wanted.string_bytes)


def _shape(spec: TensorSpec, wanted: Wanted) -> tuple[int, ...]:
    given = wanted.shapes.get(spec.name)
    declared = spec.shape
    if declared is None:
        return (wanted.batch, *(given or ()))
    if not declared:
        return ()
    batched = declared[0] is None
    row: Sequence[int | None] = declared[1:] if batched else declared
    if given is not None:
        fits = len(given) == len(row) and all(size in {None, mine} for size, mine in zip(row, given, strict=True))
        if not fits:
            raise invalid_argument(f"input {spec.name!r} is {spec}: a row of shape {list(given)} does not fit")
        row = given
    filled = tuple(wanted.free_size if size is None else size for size in row)
    return (wanted.batch, *filled) if batched else filled


def _values(
    spec: TensorSpec,
    dtype: DType,
    shape: tuple[int, ...],
    generator: np.random.Generator,
    low: float | None,
    high: float | None,
    string_bytes: int | None,
) -> Array:
    if dtype is STRING:
        return _strings(shape, generator, string_bytes)
    if dtype is BOOL:
        return generator.random(shape) < 0.5
    kind = dtype.numpy.kind
    if kind in "iu" or dtype.name in {"int4", "uint4"}:
        lowest, below = _INTEGERS if low is None or high is None else (int(low), int(high))
        return generator.integers(lowest, max(below, lowest + 1), shape).astype(dtype.numpy)
    if kind == "c":
        return (generator.uniform(*_FLOATS, shape) + 1j * generator.uniform(*_FLOATS, shape)).astype(dtype.numpy)
    if dtype.itemsize:
        lower, upper = _FLOATS if low is None or high is None else (low, high)
        return generator.uniform(lower, upper, shape).astype(dtype.numpy)
    raise invalid_argument(f"input {spec.name!r} is of type {dtype}, which cannot be made up: give --data")


def _strings(shape: tuple[int, ...], generator: np.random.Generator, size: int | None) -> Array:
    found = np.empty(shape, object)
    flat = found.reshape(-1)
    for place in range(flat.size):
        words = b" ".join(_WORDS[word] for word in generator.integers(0, len(_WORDS), 8))
        flat[place] = words if size is None else (words * (size // max(len(words), 1) + 1))[:size]
    return found

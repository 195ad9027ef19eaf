"""What becomes of inputs that are broken: refused, passed on, or swallowed; and does anybody else suffer?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from servable.core.errors import Code, ServingError
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import BOOL, FLOAT64, INT32, STRING, Array
from servable.forge.arrays import Tensors
from servable.forge.check.examination import Examination, Outputs, same_bits
from servable.forge.check.findings import Check, Found, State

SUITE = "corrupted"
POLICIES = ("any", "reject", "propagate", "zero")
ROWS: Final = 3
_BAD_ROW: Final = 1
_CLIENTS_FAULT: Final = frozenset(
    {Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.OUT_OF_RANGE, Code.UNIMPLEMENTED, Code.RESOURCE_EXHAUSTED}
)
"""Codes that tell clients to send something else. What is none of these says that the server is at fault."""

Spoil = Callable[[dict[str, Array]], dict[str, Array]]


@dataclass(frozen=True, slots=True)
class Broken:
    """One way to break valid inputs of ``ROWS`` rows.

    ``kind``: "poison" puts a value that is no number into one row; "odd" is unusual and valid; "empty" has no rows;
    "wrong" is not what the signature says. ``mended`` is what a model answers that takes poison for zero.
    """

    name: str
    kind: str
    spoil: Spoil
    mended: Spoil | None = None


def checks(examination: Examination) -> Iterator[Check]:
    """Yield one check for each signature and way to break its inputs."""
    for signature in examination.signatures():
        for broken in ways(signature):

            def look(signature: Signature = signature, broken: Broken = broken) -> Found:
                return _look(examination, signature, broken)

            yield Check(SUITE, examination.named(signature, broken.name), look)


def ways(signature: Signature) -> Iterator[Broken]:
    """Yield the ways to break inputs of a signature."""
    for name, spec in signature.inputs.items():
        yield from _values(name, spec)
        yield from _types_and_shapes(name, spec)
    if signature.inputs:
        yield Broken("no rows", "empty", lambda inputs: {name: array[:0] for name, array in inputs.items()})
        first = next(iter(signature.inputs))
        if first not in signature.defaults:
            yield Broken(f"{first}: left out", "wrong", lambda inputs: _without(inputs, first))
        yield Broken(
            "an input too many", "wrong", lambda inputs: {**inputs, "no_such_input": next(iter(inputs.values()))}
        )


def _values(name: str, spec: TensorSpec) -> Iterator[Broken]:
    kind = spec.dtype.numpy.kind
    if spec.dtype is STRING:
        yield Broken(f"{name}: empty strings", "odd", _filled(name, b""))
        yield Broken(f"{name}: bytes that are no text", "odd", _filled(name, b"\xff\x00\xfe"))
        return
    if spec.dtype is BOOL:
        return
    floats = kind in "fV" and spec.dtype.itemsize > 1 and "int" not in spec.dtype.name
    if floats:
        for word, value in (("NaN", np.nan), ("Inf", np.inf), ("-Inf", -np.inf)):
            yield Broken(f"{name}: {word} in one row", "poison", _poisoned(name, value), _poisoned(name, 0.0))
    yield Broken(f"{name}: zeros", "odd", _filled(name, 0))
    if kind == "f":
        limits = np.finfo(spec.dtype.numpy)
        yield Broken(f"{name}: the largest number", "odd", _filled(name, limits.max))
        yield Broken(f"{name}: the lowest number", "odd", _filled(name, limits.min))
    elif kind in "iu":
        bounds = np.iinfo(spec.dtype.numpy)
        yield Broken(f"{name}: the largest number", "odd", _filled(name, bounds.max))
        if bounds.min:
            yield Broken(f"{name}: the lowest number", "odd", _filled(name, bounds.min))


def _types_and_shapes(name: str, spec: TensorSpec) -> Iterator[Broken]:
    other = INT32 if spec.dtype is not INT32 else FLOAT64
    if spec.dtype is STRING:
        yield Broken(f"{name}: numbers for strings", "wrong", lambda inputs: {
            **inputs, name: np.zeros(inputs[name].shape, np.int32)})  # fmt: skip
    else:
        yield Broken(f"{name}: of type {other}", "wrong", lambda inputs: {
            **inputs, name: np.zeros(inputs[name].shape, other.numpy)})  # fmt: skip
    if spec.shape is None:
        return
    yield Broken(f"{name}: a dimension too many", "wrong", lambda inputs: {**inputs, name: inputs[name][..., None]})
    if len(spec.shape) > 1:
        yield Broken(f"{name}: a dimension too few", "wrong", lambda inputs: {**inputs, name: inputs[name][..., 0]})
    if spec.shape and spec.shape[-1] is not None and len(spec.shape) > 1:
        yield Broken(f"{name}: rows too long", "wrong", lambda inputs: {
            **inputs, name: np.concatenate([inputs[name], inputs[name][..., :1]], axis=-1)})  # fmt: skip


def _filled(name: str, value: object) -> Spoil:
    def spoil(inputs: dict[str, Array]) -> dict[str, Array]:
        array = np.empty_like(inputs[name])
        array.fill(value)
        return {**inputs, name: array}

    return spoil


def _poisoned(name: str, value: float) -> Spoil:
    def spoil(inputs: dict[str, Array]) -> dict[str, Array]:
        array = inputs[name].copy()
        place = array[min(_BAD_ROW, len(array) - 1)] if array.ndim and len(array) else array
        np.reshape(place, -1)[:1] = value
        if array.ndim == 1 and len(array):
            array[min(_BAD_ROW, len(array) - 1)] = value
        return {**inputs, name: array}

    return spoil


def _without(inputs: Tensors, name: str) -> dict[str, Array]:
    return {key: array for key, array in inputs.items() if key != name}


def _look(examination: Examination, signature: Signature, broken: Broken) -> Found:
    inputs = examination.inputs(signature)
    if broken.kind == "empty" and not inputs.free:
        return Found(State.NONE, "the signature fixes the number of rows")
    clean = inputs.batch(ROWS)
    expected = examination.ask(signature, clean)
    answer = _answer(examination, signature, broken.spoil(clean))
    if broken.kind == "poison":
        assert broken.mended is not None
        mended = _answer(examination, signature, broken.mended(clean))
        found = judge_poison(examination, signature, expected, answer, mended, free=inputs.free)
    else:
        found = judge(broken.kind, answer)
    after = _answer(examination, signature, clean)
    if isinstance(after, ServingError):
        return Found(State.FAIL, f"{found.detail}; and valid inputs are refused since: {after.message}")
    if not same_bits(expected, after):
        return Found(State.FAIL, f"{found.detail}; and valid inputs are answered otherwise since")
    return found


def _answer(examination: Examination, signature: Signature, inputs: Tensors) -> Outputs | ServingError:
    try:
        return examination.ask(signature, inputs)
    except ServingError as error:
        return error


def judge(kind: str, answer: Outputs | ServingError) -> Found:
    """Judge what became of inputs that are odd, empty or wrong."""
    if isinstance(answer, ServingError):
        if answer.code not in _CLIENTS_FAULT:
            return Found(State.FAIL, f"fails as if it were the server's fault: {_short(answer)}")
        return Found(State.PASS, f"refused: {_short(answer)}")
    if kind == "wrong":
        return Found(State.NOTE, "answered, although it is not what the signature says")
    if kind == "empty":
        lengths = {len(array) for array in answer.values() if array.ndim}
        return Found(State.PASS, f"answered with {', '.join(map(str, sorted(lengths))) or 'no'} rows")
    odd = [name for name, array in answer.items() if _holes(array).any()]
    return Found(State.NOTE, f"answered; {', '.join(odd)} is not finite") if odd else Found(State.PASS, "answered")


def judge_poison(
    examination: Examination,
    signature: Signature,
    expected: Outputs,
    answer: Outputs | ServingError,
    mended: Outputs | ServingError,
    *,
    free: bool,
) -> Found:
    """Say which policy a model has for a value that is no number, and whether other rows felt it."""
    wanted = examination.options.nan
    if isinstance(answer, ServingError):
        if answer.code not in _CLIENTS_FAULT:
            return Found(State.FAIL, f"fails as if it were the server's fault: {_short(answer)}")
        return _policy("reject", wanted, f"refused: {_short(answer)}")
    if free:
        others = [row for row in range(ROWS) if row != _BAD_ROW]
        by_row = {name for name, array in expected.items() if array.ndim and len(array) == ROWS}
        alone = {name: answer[name][others] for name in by_row if len(answer[name]) == ROWS}
        verdict = examination.difference(signature, {name: expected[name][others] for name in alone}, alone)
        if not verdict.ok:
            return Found(State.FAIL, f"other rows are answered otherwise: {verdict.faults[0]}")
    if any(_holes(array).any() for array in answer.values()):
        return _policy("propagate", wanted, "passed on: that row's answer is not finite")
    if not isinstance(mended, ServingError) and examination.difference(signature, mended, answer).ok:
        return _policy("zero", wanted, "answered as if it were zero")
    return _policy("absorb", wanted, "absorbed: answered with numbers that say nothing of it")


def _policy(found: str, wanted: str, words: str) -> Found:
    if wanted not in ("any", found):
        return Found(State.FAIL, f"{words}; the policy asked for is {wanted}")
    return Found(State.NOTE if found == "absorb" else State.PASS, words)


def _holes(array: Array) -> Array:
    if array.dtype.kind not in "fV":
        return np.zeros(array.shape, np.bool_)
    return ~np.isfinite(array.astype(np.float64))


def _short(error: ServingError, most: int = 160) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[:most]}..."

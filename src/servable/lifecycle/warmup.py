"""What is learnt of a model before it is available: that it runs, if its rows are independent, what a batch costs.

The proof of independence is by experiment: the same rows computed alone, together and permuted give the same answers.
Without it requests are never merged, so a model that normalises over its batch keeps its meaning.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

from servable.core.errors import ServingError
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import BOOL, COMPLEX64, COMPLEX128, STRING, Array, close
from servable.engines.base import Model

log = logging.getLogger("servable.lifecycle")

PROOF_ROWS = 5
FREE_SIZES = (8, 1, 32)
"""Sizes tried for a free dimension that is not the batch."""
WORDS = (b"a", b"good", b"bad", b"film", b"the", b"not", b"1", b"23")
"""What invented texts are made of, for models that tell texts apart."""
NO_PROOF = "invented rows all give the same answer, which proves nothing"


@dataclass(frozen=True, slots=True)
class WarmupOptions:
    """``budget_s`` bounds the measuring, not the first run. ``batch_rows`` is the largest batch measured.

    Batches of ``sizes`` are run in any case, whatever they cost. ``iterations`` is how often each request is run that
    an artifact brings.
    """

    enabled: bool = True
    batch_rows: int = 32
    budget_s: float = 0.25
    sizes: tuple[int, ...] = ()
    iterations: int = 1


@dataclass(frozen=True, slots=True)
class SignatureProfile:
    """What warm-up found for one signature: ``costs`` are (rows, seconds a batch), in increasing order of rows."""

    rowwise: bool
    reason: str
    costs: tuple[tuple[int, float], ...] = ()

    def rows_within(self, limit_s: float) -> int:
        """Return the largest measured batch that takes at most ``limit_s``; 0 if none does or none was measured."""
        rows = 0
        for size, seconds in self.costs:
            if seconds > limit_s:
                break
            rows = size
        return rows


def warm_up(
    model: Model, options: WarmupOptions, clock: Callable[[], float] = time.perf_counter
) -> dict[str, SignatureProfile]:
    """Run every signature on invented rows and return a profile of each. Blocks; never raises for invented data."""
    share_s = options.budget_s / max(1, len(model.signatures))
    return {
        name: _profile(model, signature, options, share_s, clock)
        if options.enabled
        else SignatureProfile(rowwise=False, reason="warm-up is off")
        for name, signature in model.signatures.items()
    }


def _profile(
    model: Model, signature: Signature, options: WarmupOptions, budget_s: float, clock: Callable[[], float]
) -> SignatureProfile:
    outputs = tuple(signature.outputs)
    if signature.streamed:
        _run_first_part(model, signature)
        return SignatureProfile(rowwise=False, reason="it answers in parts")
    if not signature.inputs or not outputs:
        return SignatureProfile(rowwise=False, reason="it has no inputs or no outputs")
    batched = all(_has_free_rows(spec) for spec in (*signature.inputs.values(), *signature.outputs.values()))
    failure = "its inputs cannot be invented"
    for free_size in FREE_SIZES:
        rows = invent_inputs(signature, PROOF_ROWS if batched else 1, free_size)
        try:
            together = model.run(signature.name, rows, outputs)
        except ServingError as error:
            failure = f"it does not take invented data ({error.message.splitlines()[0][:120]})"
            log.debug("warm-up of %s with free dimensions of %d: %s", signature.name, free_size, error)
            continue
        if not batched:
            return SignatureProfile(rowwise=False, reason="its inputs or outputs do not begin with a free dimension")
        found = _difference(model, signature, rows, together)
        texts = found == NO_PROOF and any(spec.dtype is STRING for spec in signature.inputs.values())
        if texts:
            found = _difference_of_texts(model, signature, free_size)
        invent = partial(invent_inputs, signature, free_size=free_size, texts=texts)
        rowwise = found is None
        costs = _measure(model, signature, invent, options.batch_rows, budget_s, clock) if rowwise else ()
        _run_sizes(model, signature, invent, set(options.sizes) - {size for size, _ in costs})
        return SignatureProfile(rowwise, found or "rows computed alone, together and permuted agree", costs)
    return SignatureProfile(rowwise=False, reason=failure)


def _run_first_part(model: Model, signature: Signature) -> None:
    with (
        suppress(ServingError),
        closing(
            model.stream(signature.name, invent_inputs(signature, 1, FREE_SIZES[0]), tuple(signature.outputs))
        ) as parts,
    ):
        next(parts, None)


def _has_free_rows(spec: TensorSpec) -> bool:
    return spec.shape is not None and len(spec.shape) > 0 and spec.shape[0] is None


def invent_inputs(signature: Signature, rows: int, free_size: int, *, texts: bool = False) -> dict[str, Array]:
    """Return inputs of ``rows`` different rows. Integers are 0 or 1: any embedding has those rows.

    Strings are empty, or ``texts`` of a few words: whether a string is a text or a serialized message is not known.
    """
    generator = np.random.default_rng(0)
    return {name: _invent(spec, rows, free_size, generator, texts=texts) for name, spec in signature.inputs.items()}


def _invent(spec: TensorSpec, rows: int, free_size: int, generator: np.random.Generator, *, texts: bool) -> Array:
    sizes = spec.shape if spec.shape is not None else (None,)
    shape = tuple((rows if axis == 0 else free_size) if size is None else size for axis, size in enumerate(sizes))
    if spec.dtype is STRING:
        strings = np.empty(shape, dtype=object)
        strings.fill(b"")
        if texts:
            for index in np.ndindex(shape):
                strings[index] = b" ".join(generator.choice(WORDS, generator.integers(1, 5)).tolist())
        return strings
    if spec.dtype is BOOL:
        return generator.integers(0, 2, shape).astype(np.bool_)
    if spec.dtype in (COMPLEX64, COMPLEX128) or "float" in spec.dtype.name:
        return generator.standard_normal(shape).astype(spec.dtype.numpy)
    return generator.integers(0, 2, shape).astype(spec.dtype.numpy)


def _difference(
    model: Model, signature: Signature, rows: Mapping[str, Array], together: Mapping[str, Array]
) -> str | None:
    """Return in words how rows depend on each other, or ``None`` if they were shown not to."""
    outputs = tuple(signature.outputs)
    for name, values in together.items():
        if values.ndim == 0 or values.shape[0] != PROOF_ROWS:
            return f"output {name} has no row for each input row"
    order = np.arange(PROOF_ROWS)[::-1]
    try:
        permuted = model.run(signature.name, {name: array[order] for name, array in rows.items()}, outputs)
        alone = [
            model.run(signature.name, {name: array[i : i + 1] for name, array in rows.items()}, outputs)
            for i in range(PROOF_ROWS)
        ]
    except ServingError as error:
        return f"other batch sizes fail ({error.message.splitlines()[0][:120]})"
    for name, values in together.items():
        if any(other[name].shape[1:] != values.shape[1:] for other in (permuted, *alone)):
            return f"the shape of output {name} depends on the batch"
        if not close(permuted[name], values[order]):
            return f"output {name} depends on the order of rows"
        if not close(np.concatenate([row[name] for row in alone]), values):
            return f"output {name} of a row depends on its neighbours"
    if all(close(values, values[order]) for values in together.values()):
        return NO_PROOF
    return None


def _difference_of_texts(model: Model, signature: Signature, free_size: int) -> str | None:
    rows = invent_inputs(signature, PROOF_ROWS, free_size, texts=True)
    try:
        together = model.run(signature.name, rows, tuple(signature.outputs))
    except ServingError:
        return NO_PROOF  # its strings are no texts
    return _difference(model, signature, rows, together)


def _run_sizes(
    model: Model, signature: Signature, invent: Callable[[int], dict[str, Array]], sizes: Iterable[int]
) -> None:
    """Run a batch of each size once: what an engine prepares by shape, it has prepared then."""
    for size in sorted(sizes):
        with suppress(ServingError):
            model.run(signature.name, invent(size), tuple(signature.outputs))


def _measure(
    model: Model,
    signature: Signature,
    invent: Callable[[int], dict[str, Array]],
    batch_rows: int,
    budget_s: float,
    clock: Callable[[], float],
) -> tuple[tuple[int, float], ...]:
    outputs = tuple(signature.outputs)
    costs: list[tuple[int, float]] = []
    began, size = clock(), 1
    while size <= batch_rows:
        rows = invent(size)
        best = float("inf")
        for _ in range(4):
            start = clock()
            model.run(signature.name, rows, outputs)
            end = clock()
            best = min(best, end - start)
            if end - began > budget_s:
                break
        costs.append((size, best))
        # The next size takes about four runs of twice the time: stop where that would exceed the budget.
        if clock() - began + 8 * best > budget_s:
            break
        size *= 2
    return tuple(costs)

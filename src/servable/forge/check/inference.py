"""Does it answer, and is the answer what the signature says?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from servable.core.errors import ServingError, invalid_argument
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import Array
from servable.forge.arrays import Tensors
from servable.forge.check.examination import Examination, Inputs, Outputs
from servable.forge.check.findings import Check, Found, State
from servable.lab.sources import read_samples

SUITE = "inference"
SIZES = (1, 2, 7)
_MOST_LOGGED = 256


def checks(examination: Examination) -> Iterator[Check]:
    """Yield one check for each signature and size of batch, and one for answers that were logged."""
    for signature in examination.signatures():
        for size in SIZES:

            def answers(signature: Signature = signature, size: int = size) -> Found:
                return _answers(examination, signature, size)

            yield Check(SUITE, examination.named(signature, f"{size} {'row' if size == 1 else 'rows'}"), answers)
    if examination.options.data is not None:
        yield Check(SUITE, "logged answers", lambda: _as_logged(examination))


def _answers(examination: Examination, signature: Signature, size: int) -> Found:
    inputs = examination.inputs(signature)
    if not inputs.free and size != SIZES[0]:
        return Found(State.NONE, "the signature fixes the number of rows")
    asked = inputs.batch(size)
    outputs = examination.ask(signature, asked)
    wrong = misfits(signature, inputs, size, outputs)
    if wrong:
        return Found(State.FAIL, "; ".join(wrong))
    odd = [name for name, array in outputs.items() if _not_finite(array)]
    if odd:
        return Found(State.FAIL, f"output {', '.join(odd)} is not finite for valid inputs")
    shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in outputs.items())
    return Found(State.PASS, shapes.replace("object", "string"))


def misfits(signature: Signature, inputs: Inputs, size: int, outputs: Outputs) -> list[str]:
    """Return where an answer is not what the signature declares."""
    wrong = [f"output {name!r} is not there" for name in signature.outputs if name not in outputs]
    wrong += [f"output {name!r} is not in the signature" for name in outputs if name not in signature.outputs]
    for name, spec in signature.outputs.items():
        array = outputs.get(name)
        if array is None:
            continue
        if array.dtype != spec.dtype.numpy:
            wrong.append(f"output {name!r} is {array.dtype}, declared as {spec}")
        if not _fits(array, spec):
            wrong.append(f"output {name!r} has shape {list(array.shape)}, declared as {spec}")
        elif inputs.free and not signature.streamed and spec.shape and spec.shape[0] is None and len(array) != size:
            wrong.append(f"output {name!r} has {len(array)} rows for {size} that were asked")
    return wrong


def _fits(array: Array, spec: TensorSpec) -> bool:
    if spec.shape is None:
        return True
    return array.ndim == len(spec.shape) and all(
        wanted in (None, size) for wanted, size in zip(spec.shape, array.shape, strict=True)
    )


def _not_finite(array: Array) -> bool:
    if array.dtype.kind not in "fV":
        return False
    return not bool(np.isfinite(array.astype(np.float64)).all())


def _as_logged(examination: Examination) -> Found:
    """Compare with the answers that the data brings, if it brings any."""
    assert examination.options.data is not None
    signature = examination.subject.signatures.get(examination.main())
    if signature is None:
        raise invalid_argument(f"there is no signature {examination.main()!r}: name one")
    try:
        samples = read_samples(examination.options.data, signature, 1, _MOST_LOGGED)
    except ServingError:
        samples = []  # the other checks say what is wrong with the file
    logged = [(sample.inputs, sample.expected) for sample in samples if sample.expected]
    if not logged:
        return Found(State.NONE, "the data brings no answers")
    wrong = [text for asked, expected in logged if (text := _misses(examination, signature, asked, expected))]
    if wrong:
        return Found(State.FAIL, f"{len(wrong)} of {len(logged)} are answered otherwise than logged: {wrong[0]}")
    return Found(State.PASS, f"{len(logged)} requests are answered as they were when they were logged")


def _misses(examination: Examination, signature: Signature, asked: Tensors, expected: Tensors) -> str:
    verdict = examination.difference(signature, dict(expected), examination.ask(signature, asked))
    return verdict.faults[0] if verdict.faults else ""

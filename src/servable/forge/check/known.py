"""Questions that a model is known to answer wrongly: still so, or right by now?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from servable.core.errors import invalid_argument
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import Array, as_tensor, close
from servable.forge.check.examination import Examination, Outputs
from servable.forge.check.findings import Check, Found, State
from servable.lab.sources import read_json

SUITE = "known-fail"


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question. ``expected`` is the right answer, by output: a value, or ``{"argmax": class}`` for each row."""

    inputs: dict[str, Any]
    expected: dict[str, Any]
    name: str = ""
    reason: str = ""
    signature: str = ""


def checks(examination: Examination) -> Iterator[Check]:
    """Yield one check for each question of the file."""
    path = examination.options.known
    if path is None:
        yield Check(SUITE, "known questions", lambda: Found(State.NONE, "no file; see --known"))
        return
    for number, known in enumerate(read_known(path), 1):

        def look(known: Known = known) -> Found:
            return _look(examination, known)

        yield Check(SUITE, known.name or f"question {number}", look)


def read_known(path: Path) -> list[Known]:
    """Read the file: a list of questions as JSON; INVALID_ARGUMENT says what is wrong with which."""
    document = read_json(path)
    if not isinstance(document, list):
        raise invalid_argument(f"{path} must hold a list of questions, each with inputs and expected")
    found = []
    for number, one in enumerate(document, 1):
        try:
            found.append(msgspec.convert(one, Known))
        except msgspec.ValidationError as error:
            raise invalid_argument(f"{path}, question {number}: {error}") from None
    return found


def _look(examination: Examination, known: Known) -> Found:
    name = known.signature or examination.main()
    signature = examination.subject.signatures.get(name)
    if signature is None:
        raise invalid_argument(f"there is no signature {name!r}; there are {', '.join(examination.subject.signatures)}")
    inputs = {name: _value(f"input {name}", value, signature.inputs.get(name)) for name, value in known.inputs.items()}
    answer = examination.ask(signature, inputs)
    if is_right(known.expected, answer, signature, examination):
        return Found(State.NOTE, "right by now: take it off the list" + (f" ({known.reason})" if known.reason else ""))
    return Found(State.KNOWN, "still wrong" + (f": {known.reason}" if known.reason else ""))


def is_right(expected: Mapping[str, Any], answer: Outputs, signature: Signature, examination: Examination) -> bool:
    """Return whether every output that has an expected value has that value, within the tolerance."""
    tolerance = examination.options.tolerance
    for name, wanted in expected.items():
        if name not in answer:
            raise invalid_argument(f"there is no output {name!r}; there are {', '.join(signature.outputs)}")
        if isinstance(wanted, dict):
            if set(wanted) != {"argmax"}:
                raise invalid_argument(f"expected of {name!r}: a value or an object with argmax, not {sorted(wanted)}")
            right = np.array_equal(_classes(answer[name]), np.atleast_1d(wanted["argmax"]))
        else:
            value = _value(f"expected {name}", wanted, signature.outputs[name])
            right = close(answer[name], value, tolerance.rtol or 0.0, tolerance.atol or 0.0)
        if not right:
            return False
    return True


def _classes(scores: Array) -> Array:
    if not scores.ndim:
        raise invalid_argument("a single number has no largest place")
    return np.atleast_1d(np.argmax(scores.astype(np.float64), axis=-1)).reshape(-1)


def _value(what: str, value: Any, spec: TensorSpec | None) -> Array:
    try:
        return as_tensor(value, None if spec is None else spec.dtype)
    except (TypeError, ValueError) as error:
        raise invalid_argument(f"{what}: {error}") from None

"""Quantize an artifact: choose the step, check the data, do it through the workshop, count what labels say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from servable.core.errors import invalid_argument, not_found
from servable.core.progress import Progress, unheard
from servable.core.signatures import Signature, TensorSpec, main_signature
from servable.core.tensors import Array
from servable.engines.base import Artifact
from servable.forge.quantization.integers import FLOATS, integers_asked
from servable.forge.quantization.keep import classes
from servable.forge.quantization.rows import CALIBRATE, LEAST
from servable.forge.quantization.steps import ENGINES, TOOLCHAINS, step_for
from servable.forge.samples import Samples
from servable.forge.steps import Step, check_step
from servable.forge.verify import ROWS_AT_ONCE, fixed_rows
from servable.forge.workshop import Outcome, open_model, perform

AGREEMENT: Final = 0.99
"""The share of rows whose top class must stay, where rows were given."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What to make of an artifact. ``method`` is one of ``METHODS``; ``engine`` the one that is to run it.

    ``keep_float``: names and types of operations that stay as they are. ``max_drop``: of accuracy, where there are
    labels, else of agreement with the source; the layers that hurt most are kept in float to hold it.
    ``io`` is what goes into a TFLite file in int8 and comes out; ``input_stats`` the mean and the standard deviation of
    integers that go in.
    """

    method: str
    engine: str | None = None
    toolchain: str = TOOLCHAINS[0]
    keep_float: tuple[str, ...] = ()
    calibrate: int = CALIBRATE
    max_drop: float | None = None
    min_agreement: float | None = None
    output: str = ""
    signature: str = ""
    io: str = FLOATS
    input_stats: tuple[float, ...] | None = None

    def step(self, kind: str) -> Step:
        """Return the step that does it for an artifact of that kind."""
        return step_for(self.method, kind, self.engine, self.toolchain)


@dataclass(frozen=True, slots=True)
class Quantized:
    """What came of it. ``accuracy`` is before and after, if there were labels."""

    outcome: Outcome
    accuracy: tuple[float, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        found = self.outcome.as_json()
        if self.accuracy is not None:
            found["accuracy"] = {"before": self.accuracy[0], "after": self.accuracy[1]}
        return found


def quantize(
    source: Artifact,
    final: Path,
    wish: Wish,
    *,
    data: Samples | None = None,
    report: Progress = unheard,
) -> Quantized:
    """Quantize an artifact. Raises what the step raises, ``NotVerifiedError`` if the result answers differently."""
    step = wish.step(source.kind)
    check_step(step, source)
    if wish.max_drop is not None and wish.method != "int8":
        raise invalid_argument(f"--max-drop goes with --int8: {wish.method} quantizes no activations")
    io, _ = integers_asked(wish.io, wish.input_stats)
    if io != FLOATS and step.name != "int8-tflite":
        raise invalid_argument(f"--io {io} goes with --int8 --engine litert: what {step.name} makes takes what it took")
    if data is not None:
        _check_count(data, step)
    options: dict[str, Any] = {
        "keep_float": list(wish.keep_float),
        "calibrate": wish.calibrate,
        "max_drop": wish.max_drop,
        "output": wish.output,
        "signature": wish.signature,
        "io": io,
        "input_stats": wish.input_stats,
        "made_up": step.calibrated and data is None,
    }
    if data is not None and data.labels is not None:
        options["labels"] = [int(label) for label in data.labels]
    share = wish.min_agreement
    if share is None and data is not None and len(data) >= 1 / (1 - AGREEMENT):
        share = AGREEMENT
    engine = next(name for name, kind in ENGINES.items() if kind == step.writes)
    outcome = perform(
        step,
        source,
        final,
        data=data,
        options=options,
        tolerance=replace(step.tolerance, agreement=share),
        engine=engine,
        whole=data is not None,
        report=report,
    )
    return Quantized(outcome, _accuracy(source, outcome.artifact, engine, data, wish))


def check_rows(data: Samples, signature: Signature) -> None:
    """Refuse rows that the model does not take. INVALID_ARGUMENT names the input and both shapes or types."""
    for name, spec in signature.inputs.items():
        if name not in data.rows:
            if name in signature.defaults:
                continue
            raise invalid_argument(f"{data.origin} lacks the input {name!r} ({signature})")
        array = data.rows[name]
        if not _fits(array, spec):
            row = list(array.shape[1:])
            raise invalid_argument(f"{data.origin}: rows of {name!r} have the shape {row}; the model takes {spec}")
        if array.dtype.kind not in _kinds(spec):
            raise invalid_argument(f"{data.origin}: {name!r} is {array.dtype}; the model takes {spec}")


def read_labels(path: Path) -> Array:
    """Return the classes of a file, one a row: an ``.npy``, a JSON list, or a number a line.

    INVALID_ARGUMENT says what is wrong with it.
    """
    try:
        if path.suffix == ".npy":
            found = np.load(path, allow_pickle=False)
        elif path.suffix == ".json":
            found = np.asarray(json.loads(path.read_text()))
        else:
            found = np.array([int(line) for line in path.read_text().split()])
    except OSError as error:
        raise not_found(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise invalid_argument(f"{path} holds no labels (a class number a row): {error}") from None
    found = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
    if found.ndim != 1 or not len(found) or found.dtype.kind not in "iu":
        raise invalid_argument(f"{path}: labels are a class number a row, not {found.dtype} {list(found.shape)}")
    return np.asarray(found, np.int64)


def with_labels(data: Samples, labels: Array, *, whole: bool) -> Samples:
    """Return the rows with these labels. INVALID_ARGUMENT if there is not one for each row.

    There may be more labels than rows if these are not the ``whole`` file.
    """
    if len(labels) < len(data) or (whole and len(labels) != len(data)):
        raise invalid_argument(f"there are {len(labels)} labels for {len(data)} rows of {data.origin}")
    return replace(data, labels=labels[: len(data)])


def _check_count(data: Samples, step: Step) -> None:
    if step.calibrated and len(data) < LEAST:
        raise invalid_argument(
            f"{data.origin} has {len(data)} rows: too few to calibrate with; give at least {LEAST}, better {CALIBRATE}"
        )


def _fits(array: Array, spec: TensorSpec) -> bool:
    if spec.shape is None:
        return array.ndim > 0
    return array.ndim == len(spec.shape) and all(
        size in {None, mine} for size, mine in zip(spec.shape[1:], array.shape[1:], strict=True)
    )


def _kinds(spec: TensorSpec) -> str:
    kind = spec.dtype.numpy.kind
    return {"f": "f", "i": "iu", "u": "iu", "b": "b", "O": "OSU"}.get(kind, kind)


def _accuracy(
    source: Artifact, made: Artifact, engine: str, data: Samples | None, wish: Wish
) -> tuple[float, float] | None:
    """Return how many labels source and result are right about, each in its engine; ``None`` without labels."""
    if data is None or data.labels is None:
        return None
    found = [_right(source, None, data, data.labels, wish), _right(made, engine, data, data.labels, wish)]
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def _right(artifact: Artifact, engine: str | None, data: Samples, labels: Array, wish: Wish) -> float | None:
    model = open_model(artifact, engine)
    try:
        signature = main_signature(model.signatures, wish.signature)
        size = fixed_rows(signature) or ROWS_AT_ONCE
        parts = [batch for batch in data.batches(size) if fixed_rows(signature) in {None, _count(batch)}]
        for name in [wish.output] if wish.output else list(signature.outputs):
            answers = [model.run(signature.name, _inputs(batch, signature), [name])[name] for batch in parts]
            chosen = classes(signature.outputs[name].meant(np.concatenate(answers))) if answers else None
            if chosen is not None:
                return float(np.mean(chosen == labels[: len(chosen)]))
    finally:
        model.close()
    return None


def _inputs(batch: Mapping[str, Array], signature: Signature) -> dict[str, Array]:
    return {name: spec.taken(batch[name]) for name, spec in signature.inputs.items() if name in batch}


def _count(batch: Mapping[str, Array]) -> int:
    return len(next(iter(batch.values())))


def methods_asked(flags: Mapping[str, bool]) -> str:
    """Return the one method whose flag was given. INVALID_ARGUMENT if it is none, or several."""
    asked: Sequence[str] = [name for name, given in flags.items() if given]
    if len(asked) != 1:
        raise invalid_argument(f"say one of {', '.join(f'--{name}' for name in flags)}{' only' if asked else ''}")
    return asked[0]

"""``servable.forge.export``: a model in memory becomes a version on disk, verified against itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from servable.core.errors import ServingError, invalid_argument
from servable.core.progress import Progress, unheard
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.engines.plan import find_artifact
from servable.forge.artifacts import MAIN_FILES, destination
from servable.forge.conversion.live import LiveModel, Naming, Outputs, live_model
from servable.forge.samples import Samples, fitting, made_up
from servable.forge.step_verdict import QUESTION_ROWS
from servable.forge.steps import Task
from servable.forge.verify import EXACT, Tolerance, Verdict, answers, compare, questions
from servable.forge.workshop import NotVerifiedError, open_model, scratch_beside
from servable.lifecycle.intake import publish

__all__ = ["export"]

_DEFAULT_KIND: Final[Mapping[str, str]] = {"torch": "torch_export"}
"""Framework -> what its models become unless a format is named; all others become SavedModels."""


def export(
    model: Any,
    path: str | Path,
    *,
    signature: str = DEFAULT_SIGNATURE,
    inputs: Mapping[str, Any] | None = None,
    outputs: Outputs | None = None,
    format: str | None = None,  # noqa: A002  # the word that users know
    example: Any = None,
    batch: int | None = None,
    data: Mapping[str, Any] | None = None,
    tolerance: Tolerance = EXACT,
    report: Progress = unheard,
) -> Path:
    """Write a model as a version that can be served, and return its path: ``export(model, "exported/1")``.

    ``model`` is a Keras model, a ``tf.Module``, a ``tf.function`` or a ``torch.nn.Module``. ``path`` is a version's
    folder (its name is a number) or a model's, which gets its next version. ``signature`` names the signature, which is
    ``serving_default`` too. ``inputs`` maps names to types and shapes (``"float32[?,3]"``, an example array, a
    ``tf.TensorSpec``, a Keras tensor); without it the model's own are taken. ``outputs`` are names in the model's
    order, or a mapping to these from other names. ``format`` is ``saved_model`` (torch: ``torch_export``), ``onnx``,
    ``openvino``, ``tflite``, ``graph_def`` or ``torchscript``. ``example`` is what a torch module is traced with.

    The version appears complete, after what it answers was compared with the model itself on ``data`` (rows by input;
    made up without). Raises ``ServingError``: INVALID_ARGUMENT for a name or type that the model does not have,
    ALREADY_EXISTS, DATA_LOSS if the answers differ.
    """
    live = live_model(model, Naming(signature, inputs, outputs, batch), example)
    kind = format or _DEFAULT_KIND.get(live.framework, "saved_model")
    if kind not in MAIN_FILES or kind == "python":
        formats = ", ".join(name for name in MAIN_FILES if name != "python")
        raise invalid_argument(f"there is no format {kind!r}; there are {formats}")
    place = destination(Path(path), kind)
    if place.suffix:
        raise invalid_argument(f"{path}: give a folder: a version's, whose name is a number, or a model's")
    with scratch_beside(place) as scratch:
        target = scratch / "version"
        target.mkdir()
        report(f"writing {live.signature} as {kind}")
        facts = live.write(kind, target, Task(options={"signature": signature, "batch": batch}, report=report))
        report("comparing with the model")
        verdict = _compared(live, target, data, tolerance, facts.get("signatures", {}))
        if not verdict.ok:
            raise NotVerifiedError("export", verdict, facts)
        return publish(target, place.parent, int(place.name))


def _compared(
    live: LiveModel, target: Path, data: Mapping[str, Any] | None, tolerance: Tolerance, renamed: Mapping[str, str]
) -> Verdict:
    candidate = open_model(find_artifact(target))
    try:
        name = renamed.get(live.signature.name, live.signature.name)
        found = candidate.signatures[name]
        _check_kept(live.signature, found)
        asked = questions(live.signature, _rows(live, data), probe=False)
        expected = [live.answer(question.inputs) for question in asked]
        verdict = compare(asked, expected, answers(candidate, asked, renamed), tolerance)
        if DEFAULT_SIGNATURE in candidate.signatures or not verdict.ok:
            return verdict
        raise invalid_argument(f"the version has no {DEFAULT_SIGNATURE}; it has {', '.join(candidate.signatures)}")
    finally:
        candidate.close()


def _check_kept(wanted: Signature, found: Signature) -> None:
    """Refuse a version that lost a name or changed a type on the way."""
    for what, own, theirs in (("input", wanted.inputs, found.inputs), ("output", wanted.outputs, found.outputs)):
        for name, spec in own.items():
            if name not in theirs:
                raise invalid_argument(f"{what} {name} cannot be kept in this format; there are {', '.join(theirs)}")
            if theirs[name].dtype != spec.dtype:
                raise invalid_argument(f"{what} {name} is {theirs[name]} in this format, and {spec} in the model")


def _rows(live: LiveModel, data: Mapping[str, Any] | None) -> Samples:
    signature = live.signature
    if data is None:
        return fitting(signature, lambda ranges: made_up(signature, QUESTION_ROWS, ranges=ranges), _refusal(live))
    from servable.core.tensors import as_tensor

    missing = set(signature.inputs) - set(data)
    if missing:
        raise invalid_argument(f"data lacks {', '.join(sorted(missing))}")
    rows = {name: as_tensor(data[name], spec.dtype) for name, spec in signature.inputs.items()}
    return Samples(rows, "given")


def _refusal(live: LiveModel) -> Callable[[Samples], ServingError | None]:
    def refusal(samples: Samples) -> ServingError | None:
        try:
            live.answer(samples.rows)
        except Exception as error:  # noqa: BLE001  # frameworks raise what they like
            return invalid_argument(str(error))
        return None

    return refusal

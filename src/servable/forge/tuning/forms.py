"""The artifacts that may run in a model's place: itself, and what steps of the forge make of it, kept in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

from servable.core.cache import cache_dir
from servable.core.errors import Code, ServingError
from servable.core.progress import Progress, unheard
from servable.engines.artifact import find_artifact
from servable.engines.base import Artifact
from servable.engines.fingerprint import fingerprint
from servable.forge.conversion import steps as convert_steps
from servable.forge.quantization.steps import step_for
from servable.forge.samples import Samples
from servable.forge.steps import Step
from servable.forge.tuning.trials import Form, tolerance_of
from servable.forge.verify import Tolerance
from servable.forge.workshop import perform

OTHER_KINDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"saved_model": ("onnx",), "graph_def": ("onnx",), "tflite": ()}
)
"""Kind -> what is made of it because an engine that may be faster reads that alone. OpenVINO reads ONNX as it is."""
QUANTIZERS: Final = (("int8", "openvino"), ("int8", "onnxruntime"), ("int8-weights", "onnxruntime"))
"""Methods and engines that 8 bits are tried with: of weights alone for recurrent networks, whose arithmetic that is."""


def forms_of(
    artifact: Artifact,
    precisions: Collection[str],
    samples: Samples,
    report: Progress = unheard,
    engines: Collection[str] = (),
    most: float | None = None,
    cache: Path | None = None,
) -> tuple[list[Form], list[str]]:
    """Return the model itself and what could be made of it, and why other forms could not be.

    What was made before, of the same contents, is taken from the cache. Nothing is lossy unless ``precisions`` say so.
    """
    content = fingerprint(artifact)
    allowed = partial(tolerance_of, made_up=samples.made_up, most=most)
    folder = (cache or cache_dir() / "forms") / content.rpartition(":")[2][:16]
    forms, notes = [Form(artifact, fingerprint=content)], []

    def add(step: Step, source: Artifact, precision: str) -> None:
        try:
            made = _made(step, source, folder, samples, allowed(precision), report)
        except ServingError as error:
            notes.append(f"{step.name}: {error.message}")
        else:
            forms.append(Form(made, step.name, precision, fingerprint(made)))

    for step in _conversions(artifact.kind, engines):
        add(step, artifact, "f32")
    if "int8" in precisions:
        for step, source in list(_quantizations([form.artifact for form in forms])):
            add(step, source, "int8")
    return forms, notes


def _conversions(kind: str, engines: Collection[str]) -> Iterator[Step]:
    lite = ("tflite",) if "litert" in engines else ()  # seldom the fastest, and a slow conversion: if asked for
    for wanted in (*OTHER_KINDS.get(kind, ()), *lite):
        able = (step for step in convert_steps.STEPS if kind in step.reads and step.writes == wanted)
        step = next(able, None)
        if step is not None:
            yield step


def _quantizations(sources: list[Artifact]) -> Iterator[tuple[Step, Artifact]]:
    """Yield each step once, for the first source that it reads; converted ones are read better than SavedModels."""
    for method, engine in QUANTIZERS:
        for source in reversed(sources):
            try:
                yield step_for(method, source.kind, engine), source
            except ServingError:
                continue
            break


def _made(
    step: Step, source: Artifact, folder: Path, data: Samples, tolerance: Tolerance, report: Progress
) -> Artifact:
    name = f"{step.name}-{_digest(data)}" if step.calibrated else step.name
    final = folder / name / "1"
    if final.is_dir():
        report(f"{step.name}: taken from the cache")
        return find_artifact(final)
    try:
        return perform(step, source, final, data=data, tolerance=tolerance, report=report).artifact
    except ServingError as error:
        if error.code is Code.ALREADY_EXISTS:  # somebody else has just made it
            return find_artifact(final)
        raise


def _digest(samples: Samples) -> str:
    digest = hashlib.blake2b(digest_size=4)
    for name, array in sorted(samples.rows.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes())
    return digest.hexdigest()

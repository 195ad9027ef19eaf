"""The same convolution network in every framework, each in a process of its own: do they agree, and who is faster."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from servable.core.errors import ServingError, invalid_argument
from servable.core.progress import Progress, unheard
from servable.core.scratch import scratch
from servable.core.tensors import Array
from servable.engines.base import Artifact, engine_class
from servable.forge import arrays
from servable.forge.artifacts import find_source
from servable.forge.comparison.framework_forms import COMPARED, INPUT, MODEL, OUTPUT
from servable.forge.comparison.runs import BATCHES, COLD, RUNS, Runs
from servable.forge.steps import steps
from servable.forge.surroundings import surroundings
from servable.forge.worker import run_apart
from servable.forge.workshop import perform
from servable.zoo import catalog
from servable.zoo.weights import weights_of

PARITY: Final = 1e-4
"""What two frameworks with the same weights may differ by."""
_SEED = 7


@dataclass(frozen=True, slots=True)
class Form:
    """One way to have the model: in a framework's own code, or as an artifact of one ``kind`` in an ``engine``.

    ``package`` is what must be importable; an artifact is made from ``made_of``.
    """

    name: str
    label: str
    package: str
    kind: str = ""
    engine: str = ""
    made_of: str = ""


FORMS: Final = (
    Form("keras", "Keras", "keras"),
    Form("torch", "PyTorch (channels last)", "torch"),
    Form("tensorflow", "TensorFlow (tf.Module)", "tensorflow"),
    Form("onnx", "ONNX (ONNX Runtime)", "onnxruntime", "onnx", "onnxruntime"),
    Form("openvino", "OpenVINO (from ONNX)", "openvino", "openvino", "openvino", "onnx"),
    Form("litert", "LiteRT (from SavedModel)", "ai_edge_litert", "tflite", "litert", "saved_model"),
)


@dataclass(frozen=True, slots=True)
class FormResult:
    """What one form did. ``max_abs`` is the largest difference to numpy; ``reason`` says why there is nothing."""

    form: Form
    runs: tuple[Runs, ...] = ()
    load_s: float | None = None
    cold_s: float | None = None
    max_abs: float | None = None
    version: str = ""
    reason: str = ""

    @property
    def agrees(self) -> bool:
        """Whether it computes what the others do."""
        return self.max_abs is not None and self.max_abs <= PARITY

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "name": self.form.label,
            "version": self.version,
            "load_s": self.load_s,
            "cold_s": self.cold_s,
            "max_abs": self.max_abs,
            "agrees": self.agrees if self.max_abs is not None else None,
            "seconds": {str(one.batch): list(one.seconds) for one in self.runs},
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Frameworks:
    """All forms, measured in one run."""

    results: tuple[FormResult, ...]
    batches: tuple[int, ...]
    runs: int = RUNS
    cold: int = COLD
    machine: Mapping[str, Any] = field(default_factory=surroundings)

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "schema": "servable.frameworks/1",
            "model": MODEL,
            "parity": PARITY,
            "batches": list(self.batches),
            "runs": self.runs,
            "cold": self.cold,
            "machine": dict(self.machine),
            "forms": [one.as_json() for one in self.results],
        }


def compare_frameworks(
    batches: Sequence[int] = BATCHES,
    *,
    runs: int = RUNS,
    cold: int = COLD,
    forms: Sequence[Form] = FORMS,
    report: Progress = unheard,
) -> Frameworks:
    """Measure every form that is installed, one after the other. One that fails is a result with the reason."""
    if not batches or min(batches) < 1 or runs < 1 or cold < 0:
        raise invalid_argument("batch sizes and timed runs are 1 or more, cold runs 0 or more")
    inputs = catalog.sample_inputs(MODEL, max(COMPARED, *batches), _SEED)
    report("drawing weights, computing what is right")
    expected = catalog.reference(MODEL, {INPUT: inputs[INPUT][:COMPARED]})[OUTPUT]
    conditions = surroundings()
    with scratch() as folder:
        bench = _Bench(folder, tuple(batches), runs, cold, expected, report)
        arrays.save(bench.asked, [inputs])
        arrays.save(bench.weights, [weights_of(MODEL, catalog.DEFAULT_SEED)])
        return Frameworks(tuple(bench.measure(form) for form in forms), tuple(batches), runs, cold, conditions)


@dataclass(frozen=True)
class _Bench:
    folder: Path
    batches: tuple[int, ...]
    runs: int
    cold: int
    expected: Array
    report: Progress

    @property
    def asked(self) -> Path:
        return self.folder / "asked.npz"

    @property
    def weights(self) -> Path:
        return self.folder / "weights.npz"

    def measure(self, form: Form) -> FormResult:
        if importlib.util.find_spec(form.package) is None:
            return FormResult(form, reason=f"{form.package} is not installed: pip install 'servable[forge]'")
        try:
            return self._measured(form)
        except ServingError as error:
            self.report(f"{form.label}: {error.message}")
            return FormResult(form, reason=error.message)

    def _measured(self, form: Form) -> FormResult:
        artifact = self._artifact(form.kind, form.made_of) if form.kind else None
        if form.engine:
            engine_class(form.engine)
        answered = self.folder / f"{form.name}.npz"
        told = run_apart(
            "servable.forge.comparison.framework_forms:run_form",
            {
                "form": form.name,
                "weights": str(self.weights),
                "artifact": [] if artifact is None else [artifact.kind, str(artifact.path), form.engine],
                "asked": str(self.asked),
                "answered": str(answered),
                "batches": list(self.batches),
                "runs": self.runs,
                "cold": self.cold,
            },
            self.report,
        )
        (outputs,) = arrays.load(answered)
        difference = float(np.abs(outputs[OUTPUT].astype(np.float64) - self.expected[: len(outputs[OUTPUT])]).max())
        runs = tuple(Runs(form.label, int(batch), tuple(seconds)) for batch, seconds in told["seconds"].items())
        return FormResult(form, runs, told["load_s"], told["cold_s"], difference, told["version"])

    def _artifact(self, kind: str, made_of: str) -> Artifact:
        """Return the artifact of a kind, made now if need be: by the zoo, or by the step that converts to it."""
        final = self.folder / kind / MODEL
        if final.exists():
            return find_source(final)
        if not made_of:
            if kind == "saved_model":
                written = {"weights": str(self.weights), "folder": str(final / "1")}
                run_apart("servable.forge.comparison.framework_forms:write_saved_model", written, self.report)
            else:
                catalog.build(MODEL, final.parent, kind=kind)
            return find_source(final)
        source = self._artifact(made_of, "")
        for step in steps().values():
            if made_of in step.reads and step.writes == kind and step.tolerance.rtol is not None:
                return perform(step, source, final, report=self.report).artifact
        raise invalid_argument(f"there is no step that makes {kind} of {made_of}")

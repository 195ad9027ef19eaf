"""One model, profiled in a process of its own. ``profile`` runs in the worker; what it found goes through a file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from servable.core.errors import failed_precondition
from servable.core.progress import Progress
from servable.core.signatures import Signature
from servable.core.spans import Span
from servable.core.tensors import dtype_of
from servable.engines.base import Artifact, EngineOptions, Model, engine_class
from servable.forge.arrays import Tensors
from servable.forge.check.examination import Examination, Options, Outputs
from servable.forge.profiling import python_code
from servable.forge.profiling.order import Order, Wanted
from servable.forge.profiling.resources import Sampler
from servable.forge.profiling.trace import CALLS

WARM_UPS: Final = 2
MOST_SPANS: Final = 200_000
PROFILED: Final = "profiled runs"


class Direct:
    """A model of this process, as an ``Examination`` asks it; it notes what the first answer took."""

    place = (0, "")

    def __init__(self, model: Model) -> None:
        self.target = ""
        self.engine = model.engine
        self.signatures = model.signatures
        self.first_s: float | None = None
        self._model = model

    def ask(self, signature: str, inputs: Tensors) -> Outputs:
        """Compute all outputs."""
        began = time.monotonic()
        answer = self._model.run(signature, inputs, tuple(self.signatures[signature].outputs))
        if self.first_s is None:
            self.first_s = time.monotonic() - began
        return answer

    def reopened(self) -> AbstractContextManager[Any] | None:
        """It is loaded once."""
        return None

    def copied(self) -> AbstractContextManager[Any] | None:
        """It is not copied."""
        return None

    def elsewhere(self) -> AbstractContextManager[Any] | None:
        """It is nowhere else."""
        return None


def profile(order: Any, report: Progress) -> None:
    """Load, warm up, time the runs alone, then profile as many; write what was found. Called in the worker."""
    asked = Order.from_json(order)
    wanted = asked.wanted
    sampler = Sampler()
    sampler.start()
    report(f"loading with {asked.engine}")
    with sampler.phase("load"):
        model = open_here(asked, report)
    subject = Direct(model)
    examination = Examination(subject, _options(wanted))
    signature = _signature(examination, wanted)
    with sampler.phase("first run"):
        inputs = examination.inputs(signature)
    batch = inputs.batch(wanted.batch)
    call = _call(model, signature, batch)
    with sampler.phase("warm-up"):
        for _ in range(WARM_UPS):
            call()
    report(f"{wanted.runs} runs alone")
    with sampler.phase("runs"):
        alone = [_timed(call) for _ in range(wanted.runs)]
    found: dict[str, Any] = {}
    profiled: list[tuple[float, float]] = []
    if wanted.how != "resources":
        report(f"{wanted.runs} runs, profiled")
        with sampler.phase(PROFILED):
            found, profiled = _profiled(asked, model, call)
    if not profiled:
        sampler.phases = [phase for phase in sampler.phases if phase.name != PROFILED]
    sampler.stop()
    model.close()
    calls = [Span(CALLS, f"run {number}", *timed) for number, timed in enumerate(profiled or alone, 1)]
    document = {
        "signature": signature.name,
        "inputs": inputs.origin,
        "rows": next((len(array) for array in batch.values() if array.ndim), 1),
        "shapes": {name: f"{dtype_of(array)}{list(array.shape)}" for name, array in batch.items()},
        "first_s": subject.first_s,
        "alone": alone,
        "profiled": profiled,
        "phases": sampler.phases,
        "samples": sampler.samples,
        **found,
        "spans": [*found.get("spans", ()), *calls],
    }
    asked.out.write_text(json.dumps(document))


def open_here(order: Order, report: Progress) -> Model:
    """Load an artifact in this process, its transform around it."""
    artifact, threads = order.artifact, order.wanted.threads
    options = EngineOptions(
        precision=order.precision, intra_op_threads=threads, allow_python=True, profile=True, report=report
    )
    model = engine_class(order.engine)().load(replace(artifact, transform=None), options)
    if artifact.transform is None:
        return model
    from servable.engines.transform import transformed

    return transformed(model, artifact.transform)


def _options(wanted: Wanted) -> Options:
    return Options(
        data=wanted.data,
        signature=wanted.signature,
        shapes=wanted.shapes,
        ranges=wanted.ranges,
        rows=0 if wanted.data else wanted.batch,
    )


def _signature(examination: Examination, wanted: Wanted) -> Signature:
    if wanted.signature:
        return examination.signatures()[0]
    return examination.subject.signatures[examination.main()]


def _call(model: Model, signature: Signature, inputs: Tensors) -> Callable[[], object]:
    outputs = tuple(signature.outputs)
    if signature.streamed:
        return lambda: list(model.stream(signature.name, inputs, outputs))
    return lambda: model.run(signature.name, inputs, outputs)


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return when a call began and how long it took."""
    began = time.monotonic()
    call()
    return began, time.monotonic() - began


def _profiled(
    order: Order, model: Model, call: Callable[[], object]
) -> tuple[dict[str, Any], list[tuple[float, float]]]:
    wanted = order.wanted
    if wanted.by_framework:
        return _by_framework(model, call, wanted.runs)
    timed: list[tuple[float, float]] = []

    def repeat() -> None:
        timed.extend(_timed(call) for _ in range(wanted.runs))

    if wanted.how == "cprofile":
        return {"functions": python_code.functions(repeat, wanted.stats)}, timed
    folders = [path.parent for path in _code(order.artifact)]
    if not folders:
        raise failed_precondition(
            f"lines are those of a model.py or transform.py; {order.artifact.path} has neither: use --how ops"
        )
    return {"lines": python_code.lines(repeat, folders, wanted.stats)}, timed


def _code(artifact: Artifact) -> list[Path]:
    own = [artifact.path] if artifact.kind == "python" else []
    return own if artifact.transform is None else [*own, artifact.transform]


def _by_framework(
    model: Model, call: Callable[[], object], runs: int
) -> tuple[dict[str, Any], list[tuple[float, float]]]:
    if not model.begin_profile():
        return {"begun": False}, []
    timed = [_timed(call) for _ in range(runs)]
    spans = model.end_profile()
    first = min((began for began, _ in timed), default=0.0)
    last = max((began + seconds for began, seconds in timed), default=0.0)
    kept = [span for span in spans if first - 1 <= span.began <= last + 1][:MOST_SPANS]
    return {"begun": True, "spans": kept, "dropped": len(spans) - len(kept)}, timed

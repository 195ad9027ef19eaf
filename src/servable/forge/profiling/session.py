"""One model, profiled in a process of its own. ``profile`` runs in the worker; what it found goes through a file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from servable.core.errors import failed_precondition
from servable.core.progress import Progress
from servable.core.signatures import Signature
from servable.core.spans import Span
from servable.core.tensors import dtype_of
from servable.engines.base import Artifact, EngineOptions, Model, engine_class
from servable.forge.arrays import Tensors
from servable.forge.check.examination import Examination, Inputs, Options, Outputs
from servable.forge.profiling import python_code
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


def profile(
    artifact: Mapping[str, str],
    engine: str,
    precision: str,
    threads: int,
    how: str,
    signature: str,
    data: str,
    shapes: Mapping[str, list[int]],
    ranges: Mapping[str, list[float]],
    batch: int,
    runs: int,
    out: str,
    stats: str,
    report: Progress,
) -> None:
    """Load, warm up, time the runs alone, then profile as many; write what was found to ``out`` as JSON.

    ``how`` is ``framework``, ``cprofile``, ``line`` or ``resources``; ``stats`` is where the Python profilers write
    their own files, "" if nowhere.
    """
    sampler = Sampler()
    sampler.start()
    report(f"loading with {engine}")
    with sampler.phase("load"):
        model = open_here(artifact, engine, precision, threads, report)
    subject = Direct(model)
    options = Options(
        data=Path(data) if data else None,
        signature=signature,
        shapes={name: tuple(sizes) for name, sizes in shapes.items()},
        ranges={name: (bounds[0], bounds[1]) for name, bounds in ranges.items()},
        rows=0 if data else batch,
    )
    examination = Examination(subject, options)
    chosen = examination.subject.signatures[examination.main()] if not signature else examination.signatures()[0]
    with sampler.phase("first run"):
        inputs = examination.inputs(chosen)
    call = _call(model, chosen, inputs.batch(batch))
    with sampler.phase("warm-up"):
        for _ in range(WARM_UPS):
            call()
    report(f"{runs} runs alone")
    with sampler.phase("runs"):
        alone = [_timed(call) for _ in range(runs)]
    found: dict[str, Any] = {}
    profiled: list[tuple[float, float]] = []
    if how != "resources":
        report(f"{runs} runs, profiled")
        with sampler.phase(PROFILED):
            found, profiled = _profiled(how, model, artifact, call, runs, Path(stats) if stats else None)
    if not profiled:
        sampler.phases = [phase for phase in sampler.phases if phase.name != PROFILED]
    sampler.stop()
    model.close()
    calls = [Span(CALLS, f"run {number}", *timed) for number, timed in enumerate(profiled or alone, 1)]
    document = {
        "engine": engine,
        "signature": chosen.name,
        "inputs": inputs.origin,
        "rows": _rows(inputs, batch),
        "shapes": {name: f"{dtype_of(array)}{list(array.shape)}" for name, array in inputs.batch(batch).items()},
        "first_s": subject.first_s,
        "alone": alone,
        "profiled": profiled,
        "phases": sampler.phases,
        "samples": sampler.samples,
        **found,
        "spans": [*found.get("spans", ()), *calls],
    }
    Path(out).write_text(json.dumps(document))


def open_here(artifact: Mapping[str, str], engine: str, precision: str, threads: int, report: Progress) -> Model:
    """Load an artifact in this process, its transform around it."""
    found = Artifact(
        artifact["kind"], Path(artifact["path"]), settings=Path(artifact["settings"]) if artifact["settings"] else None
    )
    options = EngineOptions(
        precision=precision, intra_op_threads=threads, allow_python=True, profile=True, report=report
    )
    model = engine_class(engine)().load(found, options)
    if not artifact["transform"]:
        return model
    from servable.engines.transform import transformed

    return transformed(model, Path(artifact["transform"]))


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
    how: str, model: Model, artifact: Mapping[str, str], call: Callable[[], object], runs: int, stats: Path | None
) -> tuple[dict[str, Any], list[tuple[float, float]]]:
    if how == "framework":
        return _by_framework(model, call, runs)
    timed: list[tuple[float, float]] = []

    def repeat() -> None:
        timed.extend(_timed(call) for _ in range(runs))

    if how == "cprofile":
        return {"functions": python_code.functions(repeat, stats)}, timed
    folders = [Path(text).parent for text in _code(artifact)]
    if not folders:
        raise failed_precondition(
            f"lines are those of a model.py or transform.py; {artifact['path']} has neither: use --how ops"
        )
    return {"lines": python_code.lines(repeat, folders, stats)}, timed


def _code(artifact: Mapping[str, str]) -> list[str]:
    own = [artifact["path"]] if artifact["kind"] == "python" else []
    return own + [artifact["transform"]] * bool(artifact["transform"])


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


def _rows(inputs: Inputs, batch: int) -> int:
    arrays = inputs.batch(batch).values()
    return next((len(array) for array in arrays if array.ndim), 1)

"""One step from start to end: made in a scratch folder by a worker, compared with its source, published by a rename.

Nothing appears under the final name before the comparison was passed: not after Ctrl-C, a kill, or on a full disk.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from servable.core.errors import Code, ServingError, failed_precondition, internal
from servable.core.progress import Progress, unheard
from servable.core.scratch import orderly_end, scratch
from servable.core.signatures import main_signature
from servable.engines.base import Artifact, EngineOptions, Model
from servable.engines.named import KINDS as NAMED
from servable.engines.plan import Choice, artifact_of_file, choose, complete, find_artifact, load
from servable.forge import arrays
from servable.forge.artifacts import MAIN_FILES, bytes_of, copy_companions, destination
from servable.forge.samples import Samples, made_up_for
from servable.forge.step_verdict import Job, verdict_on
from servable.forge.steps import Facts, Step, Task, check_step
from servable.forge.verify import BATCHES, Tolerance, Verdict
from servable.forge.worker import function_named, run_apart
from servable.lifecycle.intake import publish
from servable.lifecycle.layout import file_error

SCRATCH: Final = ".forge"
CALIBRATION_ROWS: Final = 64


class NotVerifiedError(ServingError):
    """What a step made does not answer as its source does; it was thrown away."""

    def __init__(self, step: str, verdict: Verdict, facts: Facts) -> None:
        more = f" (and {len(verdict.faults) - 1} more)" if len(verdict.faults) > 1 else ""
        super().__init__(
            Code.DATA_LOSS, f"{step}: the result does not answer as its source does: {verdict.faults[0]}{more}"
        )
        self.verdict = verdict
        self.facts = facts


@dataclass(frozen=True, slots=True)
class Outcome:
    """A step that is done. ``calibration`` says where its inputs came from, "" if it needed none."""

    step: str
    artifact: Artifact
    facts: Facts
    verdict: Verdict
    seconds: float
    bytes_before: int
    bytes_after: int
    calibration: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "step": self.step,
            "artifact": str(self.artifact.path),
            "kind": self.artifact.kind,
            "seconds": self.seconds,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "calibration": self.calibration,
            "facts": self.facts,
            "verdict": self.verdict.as_json(),
        }


def perform(
    step: Step,
    source: Artifact,
    final: Path,
    *,
    data: Samples | None = None,
    options: Mapping[str, Any] | None = None,
    tolerance: Tolerance | None = None,
    engine: str | None = None,
    batches: Sequence[int] = BATCHES,
    whole: bool = False,
    judge: Callable[[Artifact], Sequence[str]] = lambda _made: (),
    report: Progress = unheard,
) -> Outcome:
    """Do one step and return what came of it; ``final`` is a folder or file as ``destination`` reads it.

    ``data`` calibrates a step that wants it, and is what both models are compared on; without it inputs are made up.
    ``engine`` is the one that the result is verified with; by default the one that would serve it. ``whole`` compares
    on all rows of the data, where some at each of the ``batches`` would do. ``judge`` sees what was made before it is
    published, and returns what it finds wrong with it. Raises ``NotVerifiedError`` if it answers differently, else what
    went wrong in the step.
    """
    check_step(step, source)
    place = destination(final, step.writes)
    job = Job(step, source, tolerance or step.tolerance, data, options or {}, engine, batches, whole, report)
    began = time.monotonic()
    with scratch_beside(place) as folder:
        target = folder / "version"
        target.mkdir()
        copy_companions(source, target)
        with contextlib.ExitStack() as stack:
            reference = None if step.reference else stack.enter_context(closing(open_model(source)))
            calibration = _calibration(job, reference)
            report(f"{step.name}: {step.summary}")
            facts = _apply(job, target, folder, calibration)
            made = _made(step, target)
            report(f"{step.name}: comparing with the source")
            candidate = stack.enter_context(closing(open_model(made, engine)))
            verdict = verdict_on(job, reference, candidate, facts, folder)
        if verdict.ok:
            verdict = replace(verdict, faults=tuple(judge(made)))
        if not verdict.ok:
            raise NotVerifiedError(step.name, verdict, facts)
        artifact = _publish(step, made, target, place)
    return Outcome(
        step.name,
        artifact,
        facts,
        verdict,
        time.monotonic() - began,
        _size(source),
        bytes_of(artifact),
        calibration.origin if calibration is not None else "",
    )


def open_model(artifact: Artifact, engine: str | None = None, **options: Any) -> Model:
    """Load an artifact as the server would: its engine, f32, isolated where the engine wants it."""
    return load_as(choose(artifact, engine), artifact, EngineOptions(allow_python=True, **options))


def load_as(choice: Choice, artifact: Artifact, options: EngineOptions) -> Model:
    """Load an artifact with an engine; what goes wrong is one line that names the file."""
    try:
        lacking = complete(choice, artifact)
        if lacking is not None:
            raise failed_precondition(lacking)
        return load(choice, artifact, options)
    except ServingError as error:
        raise naming(artifact, error) from error


def naming(artifact: Artifact, error: ServingError) -> ServingError:
    """Return an error in one line that names the file: TensorFlow's own words, which a server passes on, do not."""
    words = " ".join(error.message.split())
    named = artifact.path.name in words
    return ServingError(error.code, words if named else f"{artifact.path} cannot be loaded: {words}")


def apply(
    function: str, source: list[str], target: str, samples: str, options: Mapping[str, Any], report: Progress
) -> Facts:
    """Run a step's function; called in the worker. ``source`` is kind and path."""
    task = Task(arrays.load(Path(samples)) if samples else (), options, report)
    facts: Facts = function_named(function)(Artifact(source[0], Path(source[1])), Path(target), task)
    return facts


@contextlib.contextmanager
def scratch_beside(place: Path) -> Iterator[Path]:
    """Give a hidden folder on the same file system as ``place``, and remove it in the end, also on SIGTERM.

    What processes that were killed have left there goes too, and folders that were made on the way to ``place``
    if nothing came into them.
    """
    made = [folder for folder in place.parents if not folder.exists()]
    with orderly_end():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with scratch(place.parent, f"{SCRATCH}-") as folder:
                yield folder
        except OSError as error:
            raise file_error(error, Path(error.filename or place)) from None
        finally:
            for empty in made:
                with contextlib.suppress(OSError):
                    empty.rmdir()


def _calibration(job: Job, reference: Model | None) -> Samples | None:
    if not job.step.calibrated:
        return None
    if job.data is not None:
        return job.data
    if reference is None:
        raise failed_precondition(f"{job.step.name} needs data to calibrate with: --data FILE")
    signature = main_signature(reference.signatures, str(job.options.get("signature") or ""))
    job.report(
        f"{job.step.name}: NO DATA WAS GIVEN. It is calibrated with inputs made up from the signature, "
        "so its accuracy on real inputs is unknown; give some with --data"
    )
    return made_up_for(reference, signature, CALIBRATION_ROWS)


def _apply(job: Job, target: Path, folder: Path, calibration: Samples | None) -> Facts:
    samples = folder / "samples.npz"
    if calibration is not None:
        arrays.save(samples, calibration.batches(1))
    try:
        facts: Facts = run_apart(
            "servable.forge.workshop:apply",
            {
                "function": job.step.function,
                "source": [job.source.kind, str(job.source.path.absolute())],
                "target": str(target.absolute()),
                "samples": str(samples.absolute()) if calibration is not None else "",
                "options": dict(job.options),
            },
            job.report,
        )
    except ServingError as error:
        if error.code is not Code.INTERNAL:
            raise
        # A framework's words, or those of a process that was ended: they name neither the step nor the file.
        raise internal(f"{job.step.name} of {job.source.path}: {error.message}") from error
    return facts


def _made(step: Step, target: Path) -> Artifact:
    made = find_artifact(target)
    if made.kind != step.writes:
        raise internal(f"{step.name} was to make {step.writes} and made {made.kind}")
    return made


def _publish(step: Step, made: Artifact, target: Path, place: Path) -> Artifact:
    if not place.suffix:
        return find_artifact(publish(target, place.parent, int(place.name)))
    sidecar = target / "servable.toml"
    if step.writes not in NAMED and sidecar.exists() and "[signatures" in sidecar.read_text():
        raise failed_precondition(
            f"{step.name}: {place.name} alone cannot hold the model's signatures; give a folder, "
            f"where {sidecar.name} goes beside it"
        )
    apart = made.path.with_name(f"{made.path.name}.data")
    if apart.exists():
        raise failed_precondition(
            f"{step.name}: {place.name} alone cannot hold the model's constants, more than 2 GiB; give a folder"
        )
    beside = [found for found in target.iterdir() if found.name.startswith(Path(MAIN_FILES[step.writes]).stem + ".")]
    _rename_together(
        {
            found: place.with_name(place.stem + found.name.removeprefix(made.path.stem))
            for found in sorted(beside, key=lambda one: one == made.path)  # the main file last: it makes a model
        }
    )
    return artifact_of_file(place)


def _rename_together(names: Mapping[Path, Path]) -> None:
    """Give files their final names, or none of them; nothing is overwritten."""
    for final in names.values():
        if final.exists():
            raise ServingError(Code.ALREADY_EXISTS, f"{final} is there already; nothing is overwritten")
    try:
        for found, final in names.items():
            found.rename(final)
    except BaseException:
        for final in names.values():
            final.unlink(missing_ok=True)
        raise


def _size(source: Artifact) -> int:
    return bytes_of(source) if source.path.exists() else 0

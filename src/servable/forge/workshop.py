"""One step from start to end: made in a scratch folder by a worker, compared with its source, published by a rename.

Nothing appears under the final name before the comparison was passed: not after Ctrl-C, a kill, or on a full disk.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from servable.core.errors import Code, ServingError, failed_precondition, internal
from servable.core.progress import Progress, unheard
from servable.core.scratch import orderly_end, scratch
from servable.core.signatures import Signature, main_signature
from servable.engines.base import Artifact, EngineOptions, Model
from servable.engines.plan import artifact_of_file, choose, find_artifact, load
from servable.forge import arrays
from servable.forge.artifacts import MAIN_FILES, bytes_of, copy_companions, destination
from servable.forge.samples import Samples, made_up_for, smallest
from servable.forge.steps import Facts, Step, Task, check_step
from servable.forge.verify import BATCHES, Question, Tolerance, Verdict, answers, compare, questions
from servable.forge.worker import run_apart
from servable.lifecycle.intake import publish
from servable.lifecycle.layout import file_error

SCRATCH: Final = ".forge"
QUESTION_ROWS: Final = 16
"""How many rows are made up to compare with."""
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
    on all rows of the data, where some at each of the ``batches`` would do. ``judge`` sees what
    was made before it is published, and returns what it finds wrong with it. Raises
    ``NotVerifiedError`` if it answers differently, else what went wrong in the step.
    """
    check_step(step, source)
    place = destination(final, step.writes)
    began = time.monotonic()
    with scratch_beside(place) as folder:
        target = folder / "version"
        target.mkdir()
        copy_companions(source, target)
        reference = None if step.reference else open_model(source)
        try:
            calibration = _calibration(step, reference, data, options or {}, report)
            report(f"{step.name}: {step.summary}")
            facts = _apply(step, source, target, folder, calibration, options or {}, report)
            made = _made(step, target)
            report(f"{step.name}: comparing with the source")
            verdict = _verify(
                step,
                source,
                reference,
                made,
                data,
                folder,
                tolerance or step.tolerance,
                engine,
                batches,
                whole,
                facts,
                options,
            )
        finally:
            if reference is not None:
                reference.close()
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
    choice = choose(artifact, engine)
    try:
        return load(choice, artifact, EngineOptions(allow_python=True, **options))
    except ServingError as error:
        # TensorFlow's own words, which a server passes on as they are, name no file, and have several lines.
        words = " ".join(error.message.split())
        named = artifact.path.name in words
        raise ServingError(error.code, words if named else f"{artifact.path} cannot be loaded: {words}") from error


def apply(
    function: str, source: list[str], target: str, samples: str, options: Mapping[str, Any], report: Progress
) -> Facts:
    """Run a step's function; called in the worker. ``source`` is kind and path."""
    import importlib

    module, _, name = function.partition(":")
    found = getattr(importlib.import_module(module), name)
    task = Task(arrays.load(Path(samples)) if samples else (), options, report)
    facts: Facts = found(Artifact(source[0], Path(source[1])), Path(target), task)
    return facts


def refer(
    function: str, source: list[str], asked: list[str], answered: str, options: Mapping[str, Any], report: Progress
) -> int:
    """Compute what a source that no engine loads answers to the first of these files that it takes, and return which.

    Called in the worker.
    """
    import importlib

    module, _, name = function.partition(":")
    found = getattr(importlib.import_module(module), name)
    report("computing what the source answers")
    artifact = Artifact(source[0], Path(source[1]))
    *before, last = asked
    for place, path in enumerate(before):
        try:
            arrays.save(Path(answered), found(artifact, arrays.load(Path(path)), options))
        except Exception:  # noqa: BLE001, S112  # frameworks raise what they like; the last one is told
            continue
        return place
    arrays.save(Path(answered), found(artifact, arrays.load(Path(last)), options))
    return len(before)


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


def _calibration(
    step: Step, reference: Model | None, data: Samples | None, options: Mapping[str, Any], report: Progress
) -> Samples | None:
    if not step.calibrated:
        return None
    if data is not None:
        return data
    if reference is None:
        raise failed_precondition(f"{step.name} needs data to calibrate with: --data FILE")
    signature = main_signature(reference.signatures, str(options.get("signature") or ""))
    report(
        f"{step.name}: NO DATA WAS GIVEN. It is calibrated with inputs made up from the signature, "
        "so its accuracy on real inputs is unknown; give some with --data"
    )
    return made_up_for(reference, signature, CALIBRATION_ROWS)


def _apply(
    step: Step,
    source: Artifact,
    target: Path,
    folder: Path,
    calibration: Samples | None,
    options: Mapping[str, Any],
    report: Progress,
) -> Facts:
    samples = folder / "samples.npz"
    if calibration is not None:
        arrays.save(samples, calibration.batches(1))
    facts: Facts = run_apart(
        "servable.forge.workshop:apply",
        {
            "function": step.function,
            "source": [source.kind, str(source.path.absolute())],
            "target": str(target.absolute()),
            "samples": str(samples.absolute()) if calibration is not None else "",
            "options": dict(options),
        },
        report,
    )
    return facts


def _made(step: Step, target: Path) -> Artifact:
    made = find_artifact(target)
    if made.kind != step.writes:
        raise internal(f"{step.name} was to make {step.writes} and made {made.kind}")
    return made


def _verify(
    step: Step,
    source: Artifact,
    reference: Model | None,
    made: Artifact,
    data: Samples | None,
    folder: Path,
    tolerance: Tolerance,
    engine: str | None,
    batches: Sequence[int],
    whole: bool,
    facts: Facts,
    options: Mapping[str, Any] | None,
) -> Verdict:
    candidate = open_model(made, engine)
    try:
        renamed: Mapping[str, str] = facts.get("signatures", {})
        signatures = candidate.signatures if reference is None else reference.signatures
        wanted = [one for one in signatures.values() if not renamed or one.name in renamed]
        if reference is not None and not renamed and len(candidate.signatures) == len(signatures):
            wanted = [one for one in wanted if one.name in candidate.signatures or len(signatures) == 1]
        if not wanted:
            raise internal(f"{step.name}: there is no signature to compare")
        narrow = [_narrow(one, candidate, renamed) for one in wanted]

        def ask(rows: Callable[[Signature], Samples]) -> list[Question]:
            pairs = zip(wanted, narrow, strict=True)
            return [one for own, asked in pairs for one in questions(asked, rows(own), batches, whole=whole)]

        asked = ask(lambda one: _rows(one, data, reference or candidate))
        if reference is not None:
            expected = answers(reference, asked)
        else:
            ways = [asked] if data is not None else [asked, ask(lambda one: smallest(one, QUESTION_ROWS))]
            asked, expected = _referred(step, source, ways, folder, options or {})
        return compare(asked, expected, answers(candidate, asked, renamed), tolerance)
    finally:
        candidate.close()


def _narrow(signature: Signature, candidate: Model, renamed: Mapping[str, str]) -> Signature:
    """Return the signature as it is asked: of the two, the one whose batch is fixed, under the reference's name."""
    from dataclasses import replace

    found = candidate.signatures.get(renamed.get(signature.name, signature.name))
    if found is None or any(name not in found.inputs for name in signature.inputs):
        return signature
    fixes = any(spec.shape and spec.shape[0] is not None for spec in found.inputs.values())
    return replace(signature, inputs=found.inputs) if fixes else signature


def _rows(signature: Signature, data: Samples | None, model: Model) -> Samples:
    if data is not None and set(signature.inputs) - set(signature.defaults) <= set(data.rows):
        return data
    return made_up_for(model, signature, QUESTION_ROWS)


def _referred(
    step: Step, source: Artifact, ways: Sequence[list[Question]], folder: Path, options: Mapping[str, Any]
) -> tuple[list[Question], list[arrays.Tensors]]:
    """Return the first questions that the source takes, and its answers: only its own process can tell."""
    answered = folder / "answered.npz"
    written = [folder / f"asked{place}.npz" for place in range(len(ways))]
    for path, asked in zip(written, ways, strict=True):
        arrays.save(path, [question.inputs for question in asked])
    taken = run_apart(
        "servable.forge.workshop:refer",
        {
            "function": step.reference,
            "source": [source.kind, str(source.path.absolute())],
            "asked": [str(path.absolute()) for path in written],
            "answered": str(answered.absolute()),
            "options": dict(options),
        },
    )
    return ways[taken], list(arrays.load(answered))


def _publish(step: Step, made: Artifact, target: Path, place: Path) -> Artifact:
    if not place.suffix:
        return find_artifact(publish(target, place.parent, int(place.name)))
    sidecar = target / "servable.toml"
    if sidecar.exists() and "[signatures" in sidecar.read_text():
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

"""The verdict on what a step made: which signatures are compared, on which inputs, and by whose answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from servable.core.errors import internal
from servable.core.progress import Progress, unheard
from servable.core.signatures import Signature
from servable.engines.base import Artifact, Model
from servable.forge import arrays
from servable.forge.samples import Samples, made_up_for, smallest
from servable.forge.steps import Facts, Step
from servable.forge.verify import BATCHES, Question, Tolerance, Verdict, answers, compare, questions
from servable.forge.worker import function_named, run_apart

QUESTION_ROWS: Final = 16
"""How many rows are made up to compare with."""


@dataclass(frozen=True, slots=True)
class Job:
    """A step to be done to a source, and how its result is judged: see ``workshop.perform``."""

    step: Step
    source: Artifact
    tolerance: Tolerance
    data: Samples | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    engine: str | None = None
    batches: Sequence[int] = BATCHES
    whole: bool = False
    report: Progress = field(default=unheard, compare=False)


def verdict_on(job: Job, reference: Model | None, candidate: Model, facts: Facts, folder: Path) -> Verdict:
    """Compare a candidate with its source; ``reference`` is that, ``None`` if no engine loads it.

    ``folder`` is for what goes to another process and comes back.
    """
    renamed: Mapping[str, str] = facts.get("signatures", {})
    signatures = candidate.signatures if reference is None else reference.signatures
    wanted = [one for one in signatures.values() if not renamed or one.name in renamed]
    if reference is not None and not renamed and len(candidate.signatures) == len(signatures):
        wanted = [one for one in wanted if one.name in candidate.signatures or len(signatures) == 1]
    if not wanted:
        raise internal(f"{job.step.name}: there is no signature to compare")
    narrow = [_narrow(one, candidate, renamed) for one in wanted]

    def ask(rows: Callable[[Signature], Samples]) -> list[Question]:
        pairs = zip(wanted, narrow, strict=True)
        return [one for own, asked in pairs for one in questions(asked, rows(own), job.batches, whole=job.whole)]

    asked = ask(lambda one: _rows(one, job.data, reference or candidate))
    if reference is not None:
        expected = answers(reference, asked)
    else:
        ways = [asked] if job.data is not None else [asked, ask(lambda one: smallest(one, QUESTION_ROWS))]
        asked, expected = _referred(job, ways, folder)
    return compare(asked, expected, answers(candidate, asked, renamed), job.tolerance)


def _narrow(signature: Signature, candidate: Model, renamed: Mapping[str, str]) -> Signature:
    """Return the signature as it is asked: of the two, the one whose batch is fixed, under the reference's name."""
    found = candidate.signatures.get(renamed.get(signature.name, signature.name))
    if found is None or any(name not in found.inputs for name in signature.inputs):
        return signature
    fixes = any(spec.shape and spec.shape[0] is not None for spec in found.inputs.values())
    return replace(signature, inputs=found.inputs) if fixes else signature


def _rows(signature: Signature, data: Samples | None, model: Model) -> Samples:
    if data is not None and set(signature.inputs) - set(signature.defaults) <= set(data.rows):
        return data
    return made_up_for(model, signature, QUESTION_ROWS)


def _referred(job: Job, ways: Sequence[list[Question]], folder: Path) -> tuple[list[Question], list[arrays.Tensors]]:
    """Return the first questions that the source takes, and its answers: only its own process can tell."""
    answered = folder / "answered.npz"
    written = [folder / f"asked{place}.npz" for place in range(len(ways))]
    for path, asked in zip(written, ways, strict=True):
        arrays.save(path, [question.inputs for question in asked])
    taken = run_apart(
        "servable.forge.step_verdict:refer",
        {
            "function": job.step.reference,
            "source": [job.source.kind, str(job.source.path.absolute())],
            "asked": [str(path.absolute()) for path in written],
            "answered": str(answered.absolute()),
            "options": dict(job.options),
        },
    )
    return ways[taken], list(arrays.load(answered))


def refer(
    function: str, source: list[str], asked: list[str], answered: str, options: Mapping[str, Any], report: Progress
) -> int:
    """Compute what a source that no engine loads answers to the first of these files that it takes, and return which.

    Called in the worker.
    """
    found = function_named(function)
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

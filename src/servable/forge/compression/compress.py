"""A step of compression from start to end: rows to learn from and rows to be judged by, and the verdict of accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from servable.core.errors import failed_precondition
from servable.core.progress import Progress, unheard
from servable.core.scratch import scratch
from servable.engines.base import Artifact
from servable.forge import arrays
from servable.forge.compression.steps import TRAINING
from servable.forge.reference import Judged, Reference
from servable.forge.samples import Samples
from servable.forge.steps import Step
from servable.forge.workshop import Outcome, perform

HELD_OUT: Final = 0.25
"""Share of the data, its end, that nothing is trained on and everything is judged by."""
LEAST_ROWS: Final = 8
MAX_DROP: Final = 0.02
LEARNT: Final = frozenset({"distill", "xnor", "xnor-packed", "xnor-signs"})
"""Steps that are nothing without a training."""


@dataclass(frozen=True, slots=True)
class Compressed:
    """A step that was good enough: ``before`` and ``after`` are judged on the same rows, which no training saw."""

    outcome: Outcome
    before: Judged
    after: Judged

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return self.outcome.as_json() | {"before": self.before.as_json(), "after": self.after.as_json()}


def apart(data: Samples) -> tuple[Samples, Samples]:
    """Return the rows to learn from and those that are held out."""
    if len(data) < LEAST_ROWS:
        raise failed_precondition(
            f"{data.origin} has {len(data)} rows; training and judging take {LEAST_ROWS} at least"
        )
    seen = len(data) - max(1, int(len(data) * HELD_OUT))
    return _part(data, slice(None, seen)), _part(data, slice(seen, None))


def compress(
    step: Step,
    source: Artifact,
    final: Path,
    *,
    data: Samples | None = None,
    options: Mapping[str, Any] | None = None,
    max_drop: float = MAX_DROP,
    engine: str | None = None,
    report: Progress = unheard,
) -> Compressed:
    """Do one step and judge it; nothing is kept if accuracy drops by more than ``max_drop``.

    Without labels the share of rows whose top class changes takes accuracy's place; without data it is that of inputs
    that are made up. With data the result is trained on three quarters of the rows and judged by the last one. Raises
    what ``perform`` raises. With 0 ``epochs`` among the options data judges, and nothing is trained.
    """
    seen, held_out = (None, None) if data is None else apart(data)
    if (options or {}).get("epochs") == 0:
        seen = None
    if step.name in LEARNT and seen is None:
        raise failed_precondition(f"{step.name} is learnt, and needs data to learn from: --data FILE")
    if held_out is None:
        report(
            f"{step.name}: NO DATA WAS GIVEN. Nothing is trained, and the result is judged by inputs made up from the "
            "signature, which says little about real ones; give some with --data"
        )
    reference = Reference.of(source, held_out)
    before, after = reference.judge_itself(), None

    def judge(made: Artifact) -> Sequence[str]:
        nonlocal after
        after = reference.judge(made, engine)
        fault = fault_of(before, after, max_drop)
        return () if fault is None else (fault,)

    with scratch() as folder:
        rows = ""
        if seen is not None:
            step = replace(step, needs={**step.needs, **TRAINING})
            rows = str(folder / "rows.npz")
            arrays.save(Path(rows), [seen.rows, {} if seen.labels is None else {"labels": seen.labels}])
        outcome = perform(
            step,
            source,
            final,
            data=reference.samples,
            options={**(options or {}), "rows": rows},
            engine=engine,
            judge=judge,
            report=report,
        )
    assert after is not None
    return Compressed(outcome, before, after)


def fault_of(before: Judged, after: Judged, max_drop: float) -> str | None:
    """Return why a result is not good enough, ``None`` if it is, or if there is nothing to tell it by."""
    if before.accuracy is not None and after.accuracy is not None:
        drop = before.accuracy - after.accuracy
        told = f"accuracy falls from {before.accuracy:.1%} to {after.accuracy:.1%} on {after.rows} rows"
    elif after.agreement is not None:
        drop = 1 - after.agreement
        told = f"the top class of {drop:.1%} of {after.rows} rows is another"
    else:
        return None
    if drop <= max_drop + 1e-9:
        return None
    return f"{told}, and --max-drop allows {max_drop:.1%}; compress less, train (--data, --epochs), or allow more"


def _part(data: Samples, rows: slice) -> Samples:
    labels = None if data.labels is None else np.asarray(data.labels)[rows]
    return replace(data, rows={name: array[rows] for name, array in data.rows.items()}, labels=labels)

"""Existing artifacts of one model side by side: time at several batch sizes, size, load, and how near to the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servable.core.errors import Code, ServingError, not_found
from servable.core.progress import Progress, unheard
from servable.core.signatures import Signature
from servable.engines.base import Artifact
from servable.engines.tuned_plan import Setting
from servable.forge.appraisal import Figures, Timing, appraise
from servable.forge.artifacts import find_source
from servable.forge.comparison.runs import lines
from servable.forge.reference import Reference
from servable.forge.samples import Samples
from servable.forge.surroundings import surroundings
from servable.forge.workshop import open_model

Data = Callable[[Signature], Samples]
"""Reads data for a signature: what a file holds can only be told by what the model takes."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Artifacts in the order in which they were named; the differences are to the first that is there."""

    figures: tuple[Figures, ...]
    paths: tuple[str, ...]
    timing: Timing
    rows: int
    origin: str
    machine: Mapping[str, Any]

    def lines(self) -> list[str]:
        """Return ``min: ..., mean: ..., max: ... // Name`` in seconds, batch size by batch size."""
        return lines([(one.name, one.runs()) for one in self.figures], self.timing.batches)

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "schema": "servable.artifacts/1",
            "batches": list(self.timing.batches),
            "runs": self.timing.runs,
            "cold": self.timing.cold,
            "compared_rows": self.rows,
            "data": self.origin,
            "machine": dict(self.machine),
            "artifacts": [
                {
                    "name": one.name,
                    "path": path,
                    "measured": None if one.measured is None else one.measured.as_json(),
                    "judged": None if one.judged is None else one.judged.as_json(),
                    "reason": one.reason,
                }
                for one, path in zip(self.figures, self.paths, strict=True)
            ],
        }


def compare_artifacts(
    named: Sequence[tuple[str, Path]],
    timing: Timing,
    *,
    data: Data | None = None,
    engine: str | None = None,
    report: Progress = unheard,
) -> Compared:
    """Measure each artifact in a process of its own. One that is missing or fails is a row with the reason.

    NOT_FOUND if none of them is there.
    """
    found = [_found(path) for _, path in named]
    first = next((one for one in found if isinstance(one, Artifact)), None)
    if first is None:
        raise not_found("; ".join(str(one) for one in found))
    conditions = surroundings()
    reference = _reference(first, data, engine)
    figures = []
    for (name, _), one in zip(named, found, strict=True):
        if isinstance(one, Artifact):
            figures.append(appraise(name, one, reference, timing, setting=Setting(engine or ""), report=report))
        else:
            figures.append(Figures(name, reason=one))
    return Compared(
        tuple(figures),
        tuple(str(path) for _, path in named),
        timing,
        len(reference.samples),
        reference.samples.origin,
        conditions,
    )


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return a name for each path: as many of its last parts as tell it from the others."""
    plain = [path.parent if path.name.isdecimal() and path.parent.name else path for path in paths]
    plain = plain if len(set(plain)) == len(set(paths)) else list(paths)
    for count in range(1, max(len(path.parts) for path in plain) + 1):
        names = ["/".join(path.parts[-count:]) for path in plain]
        if len(set(names)) == len(set(plain)):
            break
    return names


def _found(path: Path) -> Artifact | str:
    try:
        return find_source(path)
    except ServingError as error:
        if error.code is Code.NOT_FOUND and not path.exists():
            return f"{path} is not there"
        return error.message


def _reference(artifact: Artifact, data: Data | None, engine: str | None) -> Reference:
    if data is None:
        return Reference.of(artifact, None, engine)
    model = open_model(artifact, engine)
    try:
        from servable.core.signatures import main_signature

        samples = data(main_signature(model.signatures))
    finally:
        model.close()
    return Reference.of(artifact, samples, engine)

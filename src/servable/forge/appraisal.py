"""One artifact: what it costs, measured in a fresh process, and how near it comes to a reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from servable.core.errors import ServingError
from servable.core.progress import Progress, unheard
from servable.engines.base import Artifact
from servable.engines.tuned_plan import Setting
from servable.forge.comparison.runs import Runs
from servable.forge.measure import BatchTimes, Measured, begin, end, times
from servable.forge.probe import Probe
from servable.forge.reference import Judged, Reference

_LONGEST_S: Final = 60.0
"""What the runs of one batch size may take before fewer must do."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How batches of one size are timed: ``runs`` of them after ``cold`` that do not count, or for ``budget_s``."""

    batches: tuple[int, ...]
    runs: int = 0
    cold: int = 0
    budget_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of one artifact; ``reason`` says why something is not, or all of it."""

    name: str
    measured: Measured | None = None
    judged: Judged | None = None
    reason: str = ""

    @property
    def disk_bytes(self) -> int | None:
        """Its size."""
        return None if self.measured is None else self.measured.disk_bytes

    def runs(self) -> list[Runs]:
        """Return the timed runs of each batch size that could be run."""
        found = () if self.measured is None else self.measured.batches
        return [Runs(self.name, one.rows, one.seconds) for one in found if one.seconds]

    def median_s(self, rows: int) -> float | None:
        """Return the median time of a batch, ``None`` if it was not run."""
        found = None if self.measured is None else self.measured.at(rows)
        return None if found is None else found.median_s

    def most_rows_per_s(self) -> float | None:
        """Return the throughput at the batch size where it is highest."""
        found = () if self.measured is None else self.measured.batches
        return max((one.rows_per_s for one in found if one.seconds), default=None)


def appraise(
    name: str,
    artifact: Artifact,
    reference: Reference | None,
    timing: Timing,
    *,
    setting: Setting | None = None,
    report: Progress = unheard,
) -> Figures:
    """Measure an artifact in a process of its own, and judge it. Does not raise: see ``reason``."""
    report(f"{name}: measuring")
    judged, reason = None, ""
    try:
        with Probe(artifact, setting or Setting()) as probe:
            samples = None if reference is None else reference.samples
            found = begin(probe, samples, "", timing.batches)
            if found.ok:
                found = replace(found, batches=tuple(_timed(probe, rows, timing) for rows in timing.batches))
            found = end(probe, found)
            if found.ok and reference is not None:
                judged, reason = _judged(probe, reference, found.engine)
    except ServingError as error:
        return Figures(name, reason=error.message)
    return Figures(name, found, judged, found.reason or reason)


def _judged(probe: Probe, reference: Reference, engine: str) -> tuple[Judged | None, str]:
    """Ask the model that is loaded already; one whose batch is fixed is loaded again, to learn its size."""
    try:
        return reference.judge_through(probe.answers), ""
    except ServingError:
        try:
            return reference.judge(probe.artifact, engine), ""
        except ServingError as error:
            return None, error.message


def _timed(probe: Probe, rows: int, timing: Timing) -> BatchTimes:
    if not timing.runs:
        return times(probe, rows, timing.budget_s)
    count = timing.cold + timing.runs
    try:
        seconds = probe.time(rows, _LONGEST_S, least=count, most=count)
    except ServingError as error:
        return BatchTimes(rows, reason=error.message)
    return BatchTimes(rows, tuple(seconds[timing.cold :] or seconds))

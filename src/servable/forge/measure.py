"""What an artifact costs under one configuration: size, load, first run, memory, and time per batch. In a child.

``measure`` looks at one. ``alternate`` looks at several in turn, forwards and backwards, so that what disturbs the
machine disturbs all of them, and their ratios have confidence intervals. A candidate that crashes, is killed or is
refused is a result with a reason.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from servable.core.errors import ServingError
from servable.core.progress import Progress, unheard
from servable.engines.base import Artifact
from servable.engines.tuned_plan import Setting
from servable.forge.artifacts import bytes_of
from servable.forge.probe import Probe
from servable.forge.samples import Samples
from servable.lab.statistics import Estimate, geometric_mean, ratio

BATCHES: Final = (1, 8, 32)
BUDGET_S: Final = 1.0
"""How long batches of one size are run."""
KEPT: Final = 2000
"""Samples of one batch size at most."""


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """What batches of ``rows`` rows took, each in seconds. ``reason`` says why there are none.

    ``rounds`` are the medians of the rounds of an alternating measurement, in order: rounds of several candidates
    belong together.
    """

    rows: int
    seconds: tuple[float, ...] = ()
    rounds: tuple[float, ...] = ()
    reason: str = ""

    @property
    def median_s(self) -> float:
        """Return the median; NaN if there are no samples."""
        return statistics.median(self.seconds) if self.seconds else math.nan

    @property
    def best_s(self) -> float:
        """Return the shortest."""
        return min(self.seconds, default=math.nan)

    @property
    def rows_per_s(self) -> float:
        """Return how many rows a second these batches were."""
        total = math.fsum(self.seconds)
        return self.rows * len(self.seconds) / total if total else math.nan

    def quantile_s(self, share: float) -> float:
        """Return the time that this share of batches did not exceed."""
        if not self.seconds:
            return math.nan
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]

    def estimate_s(self) -> Estimate | None:
        """Return the time of a batch with its interval over the rounds, if there were rounds."""
        return geometric_mean(self.rounds) if self.rounds else None


@dataclass(frozen=True, slots=True)
class Measured:
    """One artifact under one configuration. ``reason`` says why it could not be measured, or not to the end.

    ``engine`` is the one that ran. ``load_s`` includes the import of the framework; ``user_s`` and ``system_s`` are
    the CPU time of that. ``baseline_bytes`` is what the process had before, ``resident_bytes`` what it had after the
    first run, ``peak_bytes`` the most of all.
    """

    setting: Setting
    kind: str
    path: str
    disk_bytes: int = 0
    engine: str = ""
    load_s: float = math.nan
    user_s: float = math.nan
    system_s: float = math.nan
    first_run_s: float = math.nan
    baseline_bytes: int = 0
    resident_bytes: int = 0
    peak_bytes: int = 0
    batches: tuple[BatchTimes, ...] = ()
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Return whether all went well."""
        return not self.reason

    def at(self, rows: int) -> BatchTimes | None:
        """Return the times of that batch size, ``None`` if there are none."""
        return next((one for one in self.batches if one.rows == rows and one.seconds), None)

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON, with what follows from the samples. NaN is null."""
        document = msgspec.to_builtins(self)
        for one, times in zip(document["batches"], self.batches, strict=True):
            one["median_s"], one["p99_s"] = times.median_s, times.quantile_s(0.99)
            one["rows_per_s"] = times.rows_per_s
        known: dict[str, Any] = _without_nan(document)
        return known

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Measured:
        """Return what ``as_json`` wrote."""
        words = dict(document)
        words["setting"] = Setting(**words["setting"])
        words["batches"] = tuple(
            BatchTimes(one["rows"], tuple(one["seconds"]), tuple(one["rounds"]), one["reason"])
            for one in words["batches"]
        )
        known: dict[str, Any] = {name: math.nan if value is None else value for name, value in words.items()}
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An artifact and how it is run."""

    artifact: Artifact
    setting: Setting = field(default_factory=Setting)


def measure(
    artifact: Artifact,
    setting: Setting | None = None,
    *,
    batches: Sequence[int] = BATCHES,
    samples: Samples | None = None,
    signature: str = "",
    budget_s: float = BUDGET_S,
    cpus: Collection[int] | None = None,
    as_served: bool = False,
    report: Progress = unheard,
) -> Measured:
    """Measure one artifact in a fresh process.

    Batches are cut from ``samples``, or made up from the ``signature`` (default: the main one); each size is run for
    ``budget_s`` seconds. ``cpus`` pins the process. ``as_served``: an engine that a server runs in a process of its
    own has one, too, and its times include the way there.
    """
    candidate = Candidate(artifact, setting or Setting())
    report(f"measuring {artifact.path} with {candidate.setting}")
    with Probe(candidate.artifact, candidate.setting, cpus=cpus, as_served=as_served) as probe:
        found = begin(probe, samples, signature, batches)
        if found.ok:
            found = replace(found, batches=tuple(times(probe, rows, budget_s) for rows in batches))
        return end(probe, found)


def begin(
    probe: Probe, samples: Samples | None = None, signature: str = "", batches: Sequence[int] = BATCHES
) -> Measured:
    """Load a probe's artifact and run it once; return what is known then. Does not raise: see ``reason``."""
    artifact = probe.artifact
    found = Measured(probe.setting, artifact.kind, str(artifact.path))
    try:
        found = replace(found, disk_bytes=bytes_of(artifact))
        loaded = probe.load()
        found = replace(
            found,
            engine=loaded["engine"],
            load_s=loaded["load_s"],
            user_s=loaded["user_s"],
            system_s=loaded["system_s"],
            baseline_bytes=loaded["baseline_bytes"],
        )
        probe.feed(None if samples is None else samples.rows, signature)
        found = replace(found, first_run_s=_first_run(probe, batches))
        return replace(found, resident_bytes=probe.memory())
    except ServingError as error:
        return replace(found, reason=error.message)
    except OSError as error:
        return replace(found, reason=f"{error.filename or artifact.path}: {error.strerror}")


def times(probe: Probe, rows: int, budget_s: float) -> BatchTimes:
    """Run batches of one size; a size that the model does not take is a result with a reason."""
    try:
        return BatchTimes(rows, tuple(probe.time(rows, budget_s, most=KEPT)))
    except ServingError as error:
        return BatchTimes(rows, reason=error.message)


def end(probe: Probe, found: Measured) -> Measured:
    """Return the result with the most memory that was needed, and a reason if no batch size could be run."""
    with contextlib.suppress(ServingError):
        found = replace(found, peak_bytes=probe.peak_memory())
    if found.ok and not any(one.seconds for one in found.batches):
        return replace(found, reason=next((one.reason for one in found.batches), "no batch was run"))
    return found


def alternate(
    candidates: Sequence[Candidate],
    *,
    batches: Sequence[int] = BATCHES,
    samples: Samples | None = None,
    signature: str = "",
    rounds: int = 8,
    block_s: float = 0.1,
    cpus: Collection[int] | None = None,
    as_served: bool = False,
    report: Progress = unheard,
) -> list[Measured]:
    """Measure several candidates in turn, one block of each batch size a round, every other round backwards.

    All are loaded all the time, and only one computes. Returns them in order.
    """
    with contextlib.ExitStack() as stack:
        probes = [
            stack.enter_context(Probe(one.artifact, one.setting, cpus=cpus, as_served=as_served)) for one in candidates
        ]
        found = []
        for probe in probes:
            report(f"loading {probe.artifact.path} with {probe.setting}")
            found.append(begin(probe, samples, signature, batches))
        found = in_turn(probes, found, batches, rounds, block_s, report)
        return [end(probe, one) for probe, one in zip(probes, found, strict=True)]


def in_turn(
    probes: Sequence[Probe],
    found: Sequence[Measured],
    batches: Sequence[int],
    rounds: int,
    block_s: float,
    report: Progress = unheard,
) -> list[Measured]:
    """Run rounds over probes that are loaded; return what was ``found`` before with the times of each batch size."""
    blocks: dict[tuple[int, int], list[BatchTimes]] = {}
    failed: dict[tuple[int, int], BatchTimes] = {}
    able = [index for index, one in enumerate(found) if one.ok]
    for number in range(rounds):
        for rows in batches:
            for index in able if number % 2 == 0 else able[::-1]:
                if (index, rows) in failed:
                    continue
                block = times(probes[index], rows, block_s)
                if block.reason:
                    failed[index, rows] = block
                else:
                    blocks.setdefault((index, rows), []).append(block)
        report(f"round {number + 1} of {rounds}")
    return [
        replace(one, batches=tuple(failed.get((index, rows)) or _joined(rows, blocks[index, rows]) for rows in batches))
        if one.ok
        else one
        for index, one in enumerate(found)
    ]


def compared(one: Measured, other: Measured, rows: int) -> Estimate | None:
    """Return how many times as fast ``one`` is as ``other`` at a batch size, paired by round; ``None``: unknown."""
    mine, others = one.at(rows), other.at(rows)
    if mine is None or others is None:
        return None
    if not mine.rounds or len(mine.rounds) != len(others.rounds):
        return Estimate(others.median_s / mine.median_s)
    return ratio(others.rounds, mine.rounds)


def _joined(rows: int, blocks: Sequence[BatchTimes]) -> BatchTimes:
    share = max(1, KEPT // len(blocks))
    kept = tuple(second for block in blocks for second in block.seconds[:share])
    return BatchTimes(rows, kept, tuple(block.median_s for block in blocks))


def _first_run(probe: Probe, batches: Sequence[int]) -> float:
    """Run the first batch size that the model takes."""
    for number, rows in enumerate(batches):
        try:
            return probe.first_run(rows)
        except ServingError:
            if number == len(batches) - 1:
                raise
    raise ValueError("no batch sizes")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

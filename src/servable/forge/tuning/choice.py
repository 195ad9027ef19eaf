"""From times to a plan: which trials are worth having, and which one runs how many rows. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from servable.core.errors import invalid_argument
from servable.lab.statistics import Estimate

PAYS: Final = 1.10
"""A second trial in one plan costs memory and a load: it must be so many times as fast somewhere."""
WORSE: Final = 0.98
"""At no size of batch may a plan be less than so many times as fast as the default."""
LOSS: Final = 0.95
"""What may be slower than the default by more than this, by the lower end of its interval, does not run that size."""
MOST_MEMBERS: Final = 3

Times = Mapping[int, Mapping[int, float]]
"""Trial -> rows of a batch -> seconds."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What to tune for. ``limit_s`` bounds the 99th percentile, with ``p99``."""

    name: str = "throughput"
    limit_s: float | None = None

    def __str__(self) -> str:
        """Return it as it is written."""
        return self.name if self.limit_s is None else f"p99={1000 * self.limit_s:g}ms"

    def rows(self, batches: Sequence[int]) -> int:
        """Return the size of batch that matters most."""
        return min(batches) if self.name == "latency" else max(batches)

    def met(self, p99_s: Mapping[int, float]) -> int | None:
        """Return the largest batch that keeps to the limit; 0 if none does, ``None`` if there is no limit."""
        if self.limit_s is None:
            return None
        return max((rows for rows, seconds in p99_s.items() if seconds <= self.limit_s), default=0)


def parse_objective(text: str) -> Objective:
    """Return the objective in a text: ``throughput``, ``latency`` or ``p99=50ms``. INVALID_ARGUMENT else."""
    if text in {"throughput", "latency"}:
        return Objective(text)
    name, _, limit = text.partition("=")
    for suffix, factor in (("ms", 1e-3), ("us", 1e-6), ("s", 1.0)):
        if name == "p99" and limit.endswith(suffix):
            try:
                seconds = float(limit.removesuffix(suffix)) * factor
            except ValueError:
                break
            if 0 < seconds < math.inf:
                return Objective("p99", seconds)
            break
    raise invalid_argument(f"{text!r} is no objective: expected throughput, latency, or p99=50ms")


def choose_members(times: Times, default: int, objective: Objective) -> dict[int, int]:
    """Return which trial runs each measured size of batch: as few different ones as possible, never a slow one.

    A set of trials will do if at every size its best is within ``PAYS`` of the best of all, and not behind the default.
    Of sets of one size the one that is fastest where the objective looks is taken; of equals the default.
    """
    sizes = sorted(times[default])
    able = [trial for trial, of_trial in times.items() if set(of_trial) == set(sizes)]
    best = {rows: min(times[trial][rows] for trial in able) for rows in sizes}
    limit = {rows: min(PAYS * best[rows], max(times[default][rows] / WORSE, best[rows])) for rows in sizes}
    looked = objective.rows(sizes)

    def merit(members: tuple[int, ...]) -> tuple[float, float, bool]:
        fastest = {rows: min(times[trial][rows] for trial in members) for rows in sizes}
        return fastest[looked], math.fsum(map(math.log, fastest.values())), default not in members

    for count in range(1, MOST_MEMBERS + 1):
        sets = [
            members
            for members in itertools.combinations(able, count)
            if all(min(times[trial][rows] for trial in members) <= limit[rows] for rows in sizes)
        ]
        if sets:
            chosen = min(sets, key=merit)
            return _fastest(chosen, times, sizes, default)
    return _fastest(able, times, sizes, default)


def proven(seconds: float, gain: Estimate | None, default_s: float) -> float:
    """Return the time to decide by: a gain over the default that may be chance is none, and what may lose is out."""
    if gain is None or gain.low is None or gain.low > 1:
        return seconds
    return max(seconds, default_s) if gain.low >= LOSS else math.inf


def _fastest(members: Sequence[int], times: Times, sizes: Sequence[int], default: int) -> dict[int, int]:
    return {rows: min(members, key=lambda trial: (times[trial][rows], trial != default)) for rows in sizes}


def ranges(chosen: Mapping[int, int], times: Times) -> list[tuple[int | None, int]]:
    """Return (up to how many rows, trial), the last without an end.

    Between two measured sizes with different trials the border is where their times, taken as straight lines from one
    measured size to the next, cross.
    """
    sizes = sorted(chosen)
    found: list[tuple[int | None, int]] = []
    for low, high in itertools.pairwise(sizes):
        before, after = chosen[low], chosen[high]
        if before != after:
            found.append((_border(low, high, times[before], times[after]), before))
    found.append((None, chosen[sizes[-1]]))
    return found


def _border(low: int, high: int, before: Mapping[int, float], after: Mapping[int, float]) -> int:
    """Return the largest number of rows from ``low``, below ``high``, at which the one before is not the slower."""

    def gap(rows: int) -> float:
        share = (rows - low) / (high - low)
        return (after[low] - before[low]) * (1 - share) + (after[high] - before[high]) * share

    return max((rows for rows in range(low, high) if gap(rows) >= 0), default=low)


def pareto(points: Mapping[int, Sequence[float]]) -> frozenset[int]:
    """Return the keys of those points that no other beats: in every coordinate less is better."""

    def beaten(key: int) -> bool:
        mine = points[key]
        return any(
            other != key
            and all(theirs <= ours for theirs, ours in zip(point, mine, strict=True))
            and tuple(point) != tuple(mine)
            for other, point in points.items()
        )

    return frozenset(key for key in points if not beaten(key))

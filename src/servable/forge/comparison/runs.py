"""A few timed runs of one model on one batch, and the line that says how long they took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

BATCHES: Final = (1, 8, 16, 32, 64)
RUNS: Final = 5
COLD: Final = 2


@dataclass(frozen=True, slots=True)
class Runs:
    """How long each timed run of ``name`` took on ``batch`` rows, in seconds, in order."""

    name: str
    batch: int
    seconds: tuple[float, ...]

    @property
    def min_s(self) -> float:
        """The shortest."""
        return min(self.seconds)

    @property
    def mean_s(self) -> float:
        """The arithmetic mean."""
        return sum(self.seconds) / len(self.seconds)

    @property
    def max_s(self) -> float:
        """The longest."""
        return max(self.seconds)

    @property
    def rows_per_s(self) -> float:
        """Rows over the mean."""
        return self.batch / self.mean_s

    def __str__(self) -> str:
        """Return ``min: 0.012345, mean: 0.013456, max: 0.014567 // Name``, in seconds."""
        return f"min: {self.min_s:.6f}, mean: {self.mean_s:.6f}, max: {self.max_s:.6f} // {self.name}"


def skipped(name: str) -> str:
    """Return the line of what is not there."""
    return f"skipped // {name}"


def measure_model(
    model: Callable[[Any], Any], name: str, batch: Any, n_runs: int = RUNS, cold_start: int = COLD
) -> Runs:
    """Call ``model(batch)``, ``cold_start`` times for nothing and ``n_runs`` times by the clock.

    ``batch`` is an array, or arrays by name; its first dimension is the rows. ``model`` must have computed when it
    returns. ``print(measure_model(...))`` gives the line.
    """
    if n_runs < 1 or cold_start < 0:
        raise ValueError(f"expected 1 timed run or more and no negative cold ones, not {n_runs} and {cold_start}")
    for _ in range(cold_start):
        model(batch)
    taken = []
    for _ in range(n_runs):
        began = time.perf_counter()
        model(batch)
        taken.append(time.perf_counter() - began)
    return Runs(name, _rows(batch), tuple(taken))


def lines(rows: Sequence[tuple[str, Sequence[Runs]]], batches: Sequence[int]) -> list[str]:
    """Return the lines of several models, batch size by batch size; those without runs are skipped, and say so."""
    written = []
    for batch in batches:
        written.append(f"batch size: {batch}")
        for name, runs in rows:
            written.append(next((str(one) for one in runs if one.batch == batch), skipped(name)))
    return written


def _rows(batch: Any) -> int:
    first = next(iter(batch.values())) if isinstance(batch, dict) else batch
    shape = tuple(getattr(first, "shape", ()))
    return int(shape[0]) if shape else 1

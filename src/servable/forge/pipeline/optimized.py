"""What a pipeline made: a row for each artifact, and which of them is the best for a goal. Values only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from servable.forge.appraisal import Figures

GIVEN: Final = "given"
GOALS: Final = ("latency", "size", "throughput")
NOTICEABLE: Final = 1.05


class State(Enum):
    """What became of a row."""

    GIVEN = "given"
    MADE = "made"
    REUSED = "reused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Row:
    """One artifact, or why there is none. ``asked``: a step that was asked for, not a conversion on the way to one."""

    name: str
    step: str = ""
    source: str = ""
    kind: str = ""
    state: State = State.MADE
    asked: bool = True
    path: str = ""
    disk_bytes: int | None = None
    seconds: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    verdict: Mapping[str, Any] | None = None
    calibration: str = ""
    figures: Figures | None = None
    reason: str = ""
    tried: tuple[str, ...] = ()
    """Steps that were tried before this one, for the same word, and why they failed."""

    def kept(self) -> dict[str, Any]:
        """Return what a later run needs to know of the step, as JSON."""
        return {
            "disk_bytes": self.disk_bytes,
            "seconds": self.seconds,
            "facts": dict(self.facts),
            "verdict": self.verdict,
            "calibration": self.calibration,
        }

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        figures = self.figures
        measured = None if figures is None or figures.measured is None else figures.measured.as_json()
        judged = None if figures is None or figures.judged is None else figures.judged.as_json()
        return {
            "name": self.name,
            "step": self.step,
            "source": self.source,
            "kind": self.kind,
            "state": self.state.value,
            "asked": self.asked,
            "path": self.path,
            **self.kept(),
            "tried": list(self.tried),
            "measured": measured,
            "judged": judged,
            "reason": self.reason or ("" if figures is None else figures.reason),
        }


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be least (latency of the smallest batch, size) or most (rows a second), and what that may cost.

    ``max_drop`` is of the accuracy where there are labels, else the share of rows whose top class changed.
    """

    name: str = "latency"
    max_drop: float = 0.01

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.name}, at most {100 * self.max_drop:g} % of the answers lost"


@dataclass(frozen=True)
class Optimized:
    """All rows of one pipeline, the model as it was given first."""

    source: str
    out: str
    rows: tuple[Row, ...]
    batches: tuple[int, ...]
    origin: str
    made_up: bool
    labelled: bool
    compared_rows: int
    reference: str
    """The row that all others are compared with: the model given, unless no engine loads it."""
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    seconds: float

    def drop(self, row: Row) -> float | None:
        """Return what a row's artifact lost, as a share; ``None`` where nothing tells."""
        judged = None if row.figures is None else row.figures.judged
        if judged is None or judged.fault:
            return None
        first = next((one.figures.judged for one in self.rows if one.figures and one.figures.judged), None)
        if judged.accuracy is not None and first is not None and first.accuracy is not None:
            return first.accuracy - judged.accuracy
        return None if judged.agreement is None else 1.0 - judged.agreement

    def score(self, row: Row, goal: str) -> float | None:
        """Return what a goal counts of a row: less is better. ``None``: it was not measured."""
        figures = row.figures
        if figures is None or figures.measured is None or not figures.measured.ok:
            return None
        if goal == "size":
            return float(figures.measured.disk_bytes)
        if goal == "throughput":
            rate = figures.most_rows_per_s()
            return None if not rate else 1.0 / rate
        return figures.median_s(min(self.batches))

    def eligible(self, goal: Goal) -> list[Row]:
        """Return the rows whose artifacts lost no more than the goal allows."""
        return [row for row in self.rows if self.score(row, goal.name) is not None and self._keeps(row, goal)]

    def best(self, goal: Goal) -> Row | None:
        """Return the row that reaches the goal best; ``None`` if none may.

        Times of two processes differ by chance: what is not ``NOTICEABLE`` times as fast as the model given is no gain.
        """
        able = [(self.score(row, goal.name) or 0.0, row) for row in self.eligible(goal)]
        if not able:
            return None
        least, found = min(able, key=lambda one: one[0])
        as_good = least if goal.name == "size" else NOTICEABLE * least
        return next((row for score, row in able if row.state is State.GIVEN and score <= as_good), found)

    def front(self) -> list[Row]:
        """Return the rows that no other beats in both size and latency, from the smallest on."""
        points = [(self.score(row, "size"), self.score(row, "latency"), row) for row in self.rows]
        known = [(size, latency, row) for size, latency, row in points if size is not None and latency is not None]
        return [known[place][2] for place in pareto([(size, latency) for size, latency, _ in known])]

    def as_json(self, goal: Goal) -> dict[str, Any]:
        """Return it for JSON."""
        best = self.best(goal)
        document: dict[str, Any] = {
            "schema": "servable.optimize/1",
            "source": self.source,
            "out": self.out,
            "goal": goal.name,
            "max_drop": goal.max_drop,
            "best": None if best is None else best.name,
            "front": [row.name for row in self.front()],
            "data": self.origin,
            "made_up": self.made_up,
            "labelled": self.labelled,
            "compared_rows": self.compared_rows,
            "reference": self.reference,
            "batches": list(self.batches),
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "seconds": self.seconds,
            "rows": [{**row.as_json(), "drop": self.drop(row)} for row in self.rows],
        }
        found: dict[str, Any] = _finite(document)
        return found

    def _keeps(self, row: Row, goal: Goal) -> bool:
        if row.state is State.GIVEN:
            return True
        lost = self.drop(row)
        if lost is None:
            # Numbers without classes: only what was held to a tolerance of every element is known to be as good.
            judged = None if row.figures is None else row.figures.judged
            return judged is not None and not judged.fault and judged.relative <= goal.max_drop
        return lost <= goal.max_drop + 1e-12


def _finite(value: Any) -> Any:
    """Return JSON without the numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places of those that no other is at most as large as in both and smaller in one, by the first."""
    kept: list[int] = []
    for place in sorted(range(len(points)), key=lambda one: points[one]):
        if not kept or points[place][1] < points[kept[-1]][1]:
            kept.append(place)
    return kept

"""What must hold, and the search for the highest rate at which it does. Pure: the steps are somebody else's work."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from servable.core.errors import invalid_argument
from servable.lab.histogram import Histogram
from servable.lab.result import Step

CONFIDENCE = 0.95
_Z = 1.96
"""Standard deviations that hold 95 of 100."""
_UNITS_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_CLAUSE = re.compile(r"p(\d{1,2}(?:\.\d+)?)\s*(?:=|<=?)\s*(\d+(?:\.\d+)?)\s*(us|µs|ms|s)")
_ROUNDS = 3
_KEPT_UP = 0.95


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``1 - percent / 100`` of all requests may take longer than ``limit_ms``, or fail."""

    percent: float
    limit_ms: float

    @property
    def allowed(self) -> float:
        """Return the share that may be slower."""
        return 1 - self.percent / 100


@dataclass(frozen=True, slots=True)
class Objective:
    """Limits that must hold together. A failure or a wrong answer counts as slower than any limit."""

    limits: tuple[Limit, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an objective held; ``sure`` with 95 of 100."""

    held: bool
    sure: bool


def parse_objective(text: str) -> Objective:
    """Read ``p99=50ms``, or several with commas between; INVALID_ARGUMENT says what is expected."""
    limits = []
    for clause in text.split(","):
        found = _CLAUSE.fullmatch(clause.strip())
        if found is None or float(found[1]) == 0 or float(found[2]) == 0:
            raise invalid_argument(f"{clause.strip()!r} is no objective: expected p99=50ms, p50=200us, p99.9=1s")
        limits.append(Limit(float(found[1]), float(found[2]) * _UNITS_MS[found[3]]))
    return Objective(tuple(limits), text)


def judge(objective: Objective, steps: Sequence[Step], overdue: int = 0) -> Verdict:
    """Judge steps of the same load as one. ``overdue`` are unanswered requests that are older than every limit."""
    latency = Histogram()
    for step in steps:
        latency.add(Histogram.decode(step.latency.histogram))
    failed = sum(step.errors + step.wrong for step in steps) + overdue
    total = latency.count + failed
    verdicts = [_within(limit, latency, failed, total) for limit in objective.limits]
    behind = any(
        step.offered_rate_per_s is not None
        and step.duration_s > 0
        and (step.ok + step.errors + step.wrong) / step.duration_s
        < _KEPT_UP * step.offered_rate_per_s - 3 * _noise(step)
        for step in steps
    )
    if behind:
        return Verdict(held=False, sure=True)
    held = all(verdict.held for verdict in verdicts)
    sure = all(verdict.sure for verdict in verdicts) if held else any(v.sure and not v.held for v in verdicts)
    return Verdict(held, sure)


def _within(limit: Limit, latency: Histogram, failed: int, total: int) -> Verdict:
    if not total:
        return Verdict(held=False, sure=False)
    slow = latency.share_above(limit.limit_ms) * latency.count + failed
    low, high = wilson(slow / total, total)
    return Verdict(held=slow / total <= limit.allowed, sure=high <= limit.allowed or low > limit.allowed)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the interval that holds the true share with 95 of 100, after a share of ``count`` was seen."""
    spread = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    middle = share + _Z**2 / (2 * count)
    scale = 1 + _Z**2 / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def _noise(step: Step) -> float:
    assert step.offered_rate_per_s is not None
    return math.sqrt(step.offered_rate_per_s * step.duration_s) / step.duration_s


class RateSearch:
    """Bisection for the highest rate that holds. ``next_rate`` says what to try; ``tell`` takes what it showed.

    A trial that could be chance is tried again, up to three times, and judged by all rounds together.
    """

    def __init__(self, objective: Objective, guess_per_s: float, *, precision: float = 0.05) -> None:
        """``guess_per_s`` is about the most that the server can do; the search does not depend on it."""
        self._objective = objective
        self._precision = precision
        self._rate = _written(max(guess_per_s * 0.8, 1.0))
        self._stride = 1.0
        self._rounds: list[Step] = []
        self._overdue = 0
        self.held: float | None = None
        self.missed: float | None = None
        self.trials = 0
        self.sure = True
        """No verdict was left to chance."""

    @property
    def next_rate(self) -> float | None:
        """Return the rate to try next; ``None`` when the search is over."""
        return self._rate

    def tell(self, step: Step, overdue: int = 0) -> bool:
        """Judge the step at ``next_rate``; return whether the objective held so far at this rate."""
        assert self._rate is not None
        self.trials += 1
        self._rounds.append(step)
        self._overdue += overdue
        verdict = judge(self._objective, self._rounds, self._overdue)
        if not verdict.sure and len(self._rounds) < _ROUNDS:
            return verdict.held
        self.sure = self.sure and verdict.sure
        if verdict.held:
            self.held = self._rate if self.held is None else max(self.held, self._rate)
        else:
            self.missed = self._rate if self.missed is None else min(self.missed, self._rate)
        self._rounds, self._overdue = [], 0
        self._rate = _written(self._following())
        return verdict.held

    def _following(self) -> float | None:
        if self.held is None:
            assert self.missed is not None
            # Longer and longer steps down: an objective that nothing holds should not take the afternoon to miss.
            self._stride *= 2
            return max(self.missed / self._stride, 1.0) if self.missed > 1 else None
        if self.missed is None:
            self._stride *= 1.5
            return self.held * self._stride
        if self.missed / self.held <= 1 + self._precision:
            return None
        return math.sqrt(self.held * self.missed)


def _written(rate: float | None) -> float | None:
    """Round to what people write: three digits are closer than the search's precision."""
    return None if rate is None else float(f"{rate:.3g}")

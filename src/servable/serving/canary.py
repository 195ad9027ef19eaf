"""How a new version is tried on some of the traffic, and when that ends: pure decisions, clock and lots passed in.

Requests that name no version are split: a share goes to the version on trial, the rest to the newest other one. A share
of what the other one answers is asked of the version on trial as well, as its shadow, and nobody sees those answers.
The trial of a version ends for good when it fails more often than the other one, or differs from it, by more than was
allowed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from servable.core.errors import invalid_argument
from servable.core.tensors import ATOL, RTOL

_PARTS = 6
"""A window slides in so many steps."""


@dataclass(frozen=True, slots=True)
class CanaryOptions:
    """What is tried. Shares in percent are of requests, rates are from 0 to 1. INVALID_ARGUMENT if they make no sense.

    ``version`` ``None`` is the newest one that is available. The trial ends when the version's rate of failures is more
    than ``max_error_rate`` above the other one's, or more than ``max_difference_rate`` of the compared answers differ
    (``None``: never), over the last ``window_s`` seconds and at least ``min_requests`` requests. Numbers are equal if
    ``|a - b| <= atol + rtol |b|``.
    """

    percent: float = 0.0
    shadow_percent: float = 0.0
    version: int | None = None
    max_error_rate: float = 0.05
    max_difference_rate: float | None = None
    min_requests: int = 100
    window_s: float = 60.0
    rtol: float = RTOL
    atol: float = ATOL

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("percent", "shadow_percent"):
            if not 0 <= getattr(self, name) <= 100:
                raise invalid_argument(f"{name} is from 0 to 100, not {getattr(self, name):g}")
        for name in ("max_error_rate", "max_difference_rate"):
            rate = getattr(self, name)
            if rate is not None and not 0 <= rate <= 1:
                raise invalid_argument(f"{name} is a share from 0 to 1, not {rate:g}")
        if not self.percent and not self.shadow_percent:
            raise invalid_argument("percent and shadow_percent are both 0: nothing would be tried")
        if self.min_requests < 1 or self.window_s <= 0 or self.rtol < 0 or self.atol < 0:
            raise invalid_argument("min_requests and window_s must be positive, rtol and atol not negative")


class Outcome(Enum):
    """What became of a request, for the trial."""

    OK = "ok"
    FAILED = "failed"
    SAME = "same"
    DIFFERENT = "different"


class Window:
    """Counts of outcomes over the last seconds, give or take a sixth."""

    def __init__(self, window_s: float) -> None:
        self._part_s = window_s / _PARTS
        self._parts: deque[tuple[float, dict[Outcome, int]]] = deque()
        self._sums: dict[Outcome, int] = dict.fromkeys(Outcome, 0)

    def add(self, outcome: Outcome, now: float) -> None:
        """Count one."""
        if not self._parts or now >= self._parts[-1][0] + self._part_s:
            self._parts.append((now, dict.fromkeys(Outcome, 0)))
        self._parts[-1][1][outcome] += 1
        self._sums[outcome] += 1
        while self._parts[0][0] + self._part_s * _PARTS < now:
            for kind, count in self._parts.popleft()[1].items():
                self._sums[kind] -= count

    def count(self, *kinds: Outcome) -> int:
        """Return how many of these kinds there were."""
        return sum(self._sums[kind] for kind in kinds)

    def share(self, kind: Outcome, *others: Outcome) -> float:
        """Return the share of one kind among it and others; 0 of nothing."""
        total = self.count(kind, *others)
        return self._sums[kind] / total if total else 0.0


class Canary:
    """The trial of one model."""

    def __init__(self, options: CanaryOptions) -> None:
        self.options = options
        self.ended: dict[int, str] = {}
        """Versions whose trial has ended, and why."""
        self._on_trial: int | None = None
        self._trial = Window(options.window_s)
        self._other = Window(options.window_s)

    def versions(self, available: Collection[int]) -> tuple[int, int] | None:
        """Return the version on trial and the one that serves beside it; ``None`` if there are not two."""
        if not available:
            return None
        trial = self.options.version if self.options.version is not None else max(available)
        others = [version for version in available if version != trial]
        if trial not in available or not others:
            return None
        if trial != self._on_trial:
            self._on_trial = trial
            self._trial, self._other = Window(self.options.window_s), Window(self.options.window_s)
        return trial, max(others)

    def choose(self, available: Collection[int], lot: float) -> int | None:
        """Return the version for a request that names none, by a lot from 0 to 1; ``None`` leaves it as it was."""
        both = self.versions(available)
        if both is None:
            return None
        trial, other = both
        return trial if trial not in self.ended and lot * 100 < self.options.percent else other

    def shadows(self, version: int, available: Collection[int], lot: float) -> int | None:
        """Return the version to ask as well after this one has answered; ``None``: none."""
        both = self.versions(available)
        if both is None or version != both[1] or both[0] in self.ended:
            return None
        return both[0] if lot * 100 < self.options.shadow_percent else None

    def note(self, version: int | None, outcome: Outcome, now: float) -> str | None:
        """Count an outcome of a version. Returns why, if with it the trial of that version has ended."""
        if version is None or self._on_trial is None or self._on_trial in self.ended:
            return None
        if version != self._on_trial:
            self._other.add(outcome, now)
            return None
        self._trial.add(outcome, now)
        reason = self._verdict()
        if reason is not None:
            self.ended[version] = reason
        return reason

    def _verdict(self) -> str | None:
        options, trial = self.options, self._trial
        if trial.count(Outcome.OK, Outcome.FAILED) >= options.min_requests:
            failing = trial.share(Outcome.FAILED, Outcome.OK)
            usual = self._other.share(Outcome.FAILED, Outcome.OK)
            if failing - usual > options.max_error_rate:
                return f"{failing:.1%} of its requests failed, against {usual:.1%} of the other version's"
        allowed = options.max_difference_rate
        if allowed is not None and trial.count(Outcome.SAME, Outcome.DIFFERENT) >= options.min_requests:
            differing = trial.share(Outcome.DIFFERENT, Outcome.SAME)
            if differing > allowed:
                return f"{differing:.1%} of its answers differ from the other version's"
        return None

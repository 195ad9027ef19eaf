"""When requests should begin: decided before a step, so that no answer can delay the next question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from servable.core.errors import invalid_argument

Nanoseconds = npt.NDArray[np.int64]
MOST_REQUESTS = 200_000_000


@dataclass(frozen=True, slots=True)
class Schedule:
    """An open loop: ``rate_per_s`` for a ``constant`` or ``poisson`` process, else the seconds of a ``trace``.

    A trace that ends before the step does begins again.
    """

    arrivals: Literal["constant", "poisson", "trace"]
    rate_per_s: float = 0.0
    trace_s: tuple[float, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no clock can follow."""
        if self.arrivals == "trace":
            if len(self.trace_s) < 2 or self.trace_s[0] < 0 or self.trace_s[-1] <= self.trace_s[0]:
                raise invalid_argument("a trace needs two arrival times or more, in seconds, ascending")
            if any(after < before for before, after in zip(self.trace_s, self.trace_s[1:], strict=False)):
                raise invalid_argument("the arrival times of a trace must ascend")
        elif not (math.isfinite(self.rate_per_s) and self.rate_per_s > 0):
            raise invalid_argument(f"a rate of {self.rate_per_s}/s is none: expected a number above 0")

    @property
    def mean_rate_per_s(self) -> float:
        """Return the rate that the schedule has in the long run."""
        if self.arrivals != "trace":
            return self.rate_per_s
        return (len(self.trace_s) - 1) / (self.trace_s[-1] - self.trace_s[0])

    def offsets(self, duration_s: float, share: int = 0, shares: int = 1) -> Nanoseconds:
        """Return the intended starts in ns from the step's begin that fall to one client process of several.

        All processes draw the same sequence and take turns: together they are the schedule, whatever their number.
        """
        if self.mean_rate_per_s * duration_s > MOST_REQUESTS:
            raise invalid_argument(
                f"{self.mean_rate_per_s:g}/s for {duration_s:g} s are more than {MOST_REQUESTS:,} requests"
            )
        found = np.round(self._seconds(duration_s) * 1e9).astype(np.int64)
        return found[share::shares]

    def _seconds(self, duration_s: float) -> npt.NDArray[np.float64]:
        if self.arrivals == "constant":
            return np.arange(math.ceil(self.rate_per_s * duration_s - 1e-9)) / self.rate_per_s
        if self.arrivals == "poisson":
            return self._poisson(duration_s)
        trace = np.asarray(self.trace_s) - self.trace_s[0]
        # The gap between the last arrival and the first of the next round is the mean gap.
        period = trace[-1] + 1 / self.mean_rate_per_s
        rounds = math.ceil(duration_s / period)
        found: npt.NDArray[np.float64] = (np.arange(rounds)[:, None] * period + trace).reshape(-1)
        return found[found < duration_s]

    def _poisson(self, duration_s: float) -> npt.NDArray[np.float64]:
        generator = np.random.default_rng(self.seed)
        expected = self.rate_per_s * duration_s
        count = int(expected + 6 * math.sqrt(expected) + 16)
        found = np.cumsum(generator.exponential(1 / self.rate_per_s, count))
        while found[-1] < duration_s:  # six standard deviations: as good as never
            found = np.append(found, found[-1] + np.cumsum(generator.exponential(1 / self.rate_per_s, count)))
        return found[found < duration_s]


def parse_trace(text: str, where: str) -> tuple[float, ...]:
    """Read arrival times in seconds, one a line; empty lines and those that begin with # count for nothing."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.split("#", 1)[0].strip()
        if not word:
            continue
        try:
            found.append(float(word))
        except ValueError:
            raise invalid_argument(f"{where} line {number}: {word!r} is no time in seconds") from None
        if not math.isfinite(found[-1]):
            raise invalid_argument(f"{where} line {number}: {word!r} is no time in seconds")
    return tuple(found)


def share_of(total: int, share: int, shares: int) -> int:
    """Return how much of a whole number falls to one client process of several."""
    return total // shares + (share < total % shares)


def doubling(highest: int) -> Sequence[int]:
    """Return 1, 2, 4 ... up to a number, which is always the last."""
    steps = [1]
    while steps[-1] * 2 < highest:
        steps.append(steps[-1] * 2)
    return steps if highest == 1 else [*steps, highest]

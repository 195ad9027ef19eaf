"""What repeated blocks say: a mean with its confidence interval, and the ratio of two contestants with its own.

Blocks are few and their noise multiplies, so means are of logarithms (geometric), and intervals are Student's t on
them. Contestants are paired by round: what slowed a whole round cancels in the ratio.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
LEAST = 3
"""Two blocks say next to nothing of the noise: their interval would span decades."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the bounds between which it lies with ``CONFIDENCE``; null where fewer than ``LEAST`` blocks are."""

    value: float
    low: float | None = None
    high: float | None = None


def geometric_mean(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Return the geometric mean of positive values, with its interval from ``LEAST`` on."""
    if not values or min(values) <= 0:
        raise ValueError(f"a geometric mean is of positive values, not of {list(values)}")
    logs = [math.log(value) for value in values]
    middle = math.fsum(logs) / len(logs)
    if len(logs) < LEAST:
        return Estimate(math.exp(middle))
    variance = math.fsum((one - middle) ** 2 for one in logs) / (len(logs) - 1)
    half = student_t(len(logs) - 1, confidence) * math.sqrt(variance / len(logs))
    return Estimate(math.exp(middle), math.exp(middle - half), math.exp(middle + half))


def ratio(values: Sequence[float], reference: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Return how many times the reference's values the values are; both in the order of the rounds."""
    return geometric_mean([one / other for one, other in zip(values, reference, strict=True)], confidence)


@functools.cache
def student_t(degrees: int, confidence: float) -> float:
    """Return the t that a Student's t variable stays within, on both sides, with that probability."""
    if degrees < 1 or not 0 < confidence < 1:
        raise ValueError(f"no t for {degrees} degrees of freedom and confidence {confidence}")
    low, high = 0.0, 1.0
    while _within(high, degrees) < confidence:
        low, high = high, high * 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < confidence else (low, middle)
    return high


def _within(t: float, degrees: int) -> float:
    """Return P(|T| <= t), by the finite sums that exist for whole degrees of freedom."""
    angle = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    even = degrees % 2 == 0
    term, total = (1.0, 1.0) if even else (cosine, cosine)
    for power in range(2 if even else 3, degrees - 1, 2):
        term *= cosine * cosine * (power - 1) / power
        total += term
    if even:
        return sine * total
    return 2 / math.pi * (angle + (sine * total if degrees > 1 else 0.0))

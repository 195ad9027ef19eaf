"""How far answers are from the right ones, in sums that add up: over a batch, over one batch size, over all rows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

import numpy as np

from servable.core.tensors import Array
from servable.forge.samples import top

_NAN: Final = ("none", "same", "differs")


@dataclass(frozen=True, slots=True)
class Distance:
    """What is known of one output. ``nan``: "none", "same" places in both, or "differs".

    ``max_abs`` is the largest difference and ``largest`` the largest value that was expected; of integers and strings
    they are how many elements are wrong, and how many there are. ``agreed`` of ``chosen`` rows have the same top class.
    """

    max_abs: float = 0.0
    largest: float = 0.0
    product: float = 0.0
    squares: tuple[float, float] = (0.0, 0.0)
    agreed: int = 0
    chosen: int = 0
    nan: str = _NAN[0]
    counted: bool = False

    @classmethod
    def between(cls, right: Array, answer: Array) -> Distance:
        """Return how far one batch is off; both have the same shape."""
        kinds = {right.dtype.kind, answer.dtype.kind}
        if "O" in kinds or kinds <= set("biu"):
            wrong = right.size - int(np.count_nonzero(right == answer))
            return cls(float(wrong), float(right.size), counted=True)
        left, other = right.astype(np.float64), answer.astype(np.float64)
        holes = np.isnan(left), np.isnan(other)
        nan = _NAN[0] if not (holes[0].any() or holes[1].any()) else _NAN[1 if np.array_equal(*holes) else 2]
        chosen = top(right), top(answer)
        agreed, rows = 0, 0
        if chosen[0] is not None and chosen[1] is not None:
            agreed, rows = int(np.count_nonzero(chosen[0] == chosen[1])), len(chosen[0])
        both = ~(holes[0] | holes[1])
        return cls(*_sums(left[both], other[both]), agreed, rows, nan)

    def __add__(self, other: Distance) -> Distance:
        """Return the distance of both batches together."""
        counted = self.counted or other.counted
        most = sum if counted else max
        return Distance(
            most((self.max_abs, other.max_abs)),
            most((self.largest, other.largest)),
            self.product + other.product,
            (self.squares[0] + other.squares[0], self.squares[1] + other.squares[1]),
            self.agreed + other.agreed,
            self.chosen + other.chosen,
            max(self.nan, other.nan, key=_NAN.index),
            counted,
        )

    @property
    def relative(self) -> float:
        """Return the largest difference over the largest value."""
        if not self.max_abs:
            return 0.0
        return self.max_abs / self.largest if self.largest and math.isfinite(self.max_abs) else math.inf

    @property
    def cosine(self) -> float | None:
        """Return the cosine of the angle between both; ``None`` where there is none."""
        norms = math.sqrt(self.squares[0]) * math.sqrt(self.squares[1])
        return self.product / norms if norms and math.isfinite(norms) else None

    @property
    def agreement(self) -> float | None:
        """Return the share of rows with the same top class; ``None`` where rows have no scores."""
        return self.agreed / self.chosen if self.chosen else None

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON, which has no infinity."""
        return {
            "max_abs": self.max_abs if math.isfinite(self.max_abs) else None,
            "relative": self.relative if math.isfinite(self.relative) else None,
            "cosine": self.cosine,
            "agreement": self.agreement,
            "nan": self.nan,
        }


def total(distances: Iterable[Distance]) -> Distance:
    """Return all of them together."""
    return reduce(Distance.__add__, distances)


def _sums(left: Array, right: Array) -> tuple[float, float, float, tuple[float, float]]:
    if not left.size:
        return 0.0, 0.0, 0.0, (0.0, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(left - right)
        gap[left == right] = 0.0  # infinities of one sign
        squares = float(np.dot(left, left)), float(np.dot(right, right))
        return float(gap.max()), float(np.abs(left).max()), float(np.dot(left, right)), squares

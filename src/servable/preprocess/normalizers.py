"""Numbers brought to a common scale, and back: by mean and deviation, or by range.

A fit sees its data once, in batches of any size; what it found is a small object that is saved beside a model.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from servable.core.errors import failed_precondition, invalid_argument, not_found
from servable.core.tensors import Array

Axes: TypeAlias = int | tuple[int, ...] | None
"""What is summed over: 0 for factors of each feature, all but the last for each channel, None for one factor."""


@dataclass(frozen=True, slots=True)
class Standard:
    """Brings data to mean 0 and deviation 1. A feature that never varied becomes 0."""

    mean: Array
    deviation: Array

    def apply(self, values: Array) -> Array:
        """Return the values scaled: float64 if they are, else float32."""
        return _as_float((values - self.mean) / _or_one(self.deviation), values)

    def invert(self, values: Array) -> Array:
        """Return scaled values in their old measure."""
        return _as_float(values * _or_one(self.deviation) + self.mean, values)

    def save(self, path: Path) -> None:
        """Write the factors as an ``.npz`` file."""
        _save(path, {"mean": self.mean, "deviation": self.deviation})


@dataclass(frozen=True, slots=True)
class Range:
    """Brings data from [low, high] to ``target``; with ``clip`` what lies outside is moved to the nearer end."""

    low: Array
    high: Array
    target: tuple[float, float] = (0.0, 1.0)
    clip: bool = True

    def __post_init__(self) -> None:
        """Refuse a target from which nothing comes back."""
        if self.target[0] == self.target[1]:
            raise invalid_argument(f"a range of no width, {self.target}, cannot be scaled to")

    def apply(self, values: Array) -> Array:
        """Return the values scaled: float64 if they are, else float32."""
        first, last = self.target
        share = (values - self.low) / _or_one(self.high - self.low)
        if self.clip:
            share = np.clip(share, 0.0, 1.0)
        return _as_float(first + share * (last - first), values)

    def invert(self, values: Array) -> Array:
        """Return scaled values in their old measure; what was clipped comes back as the end it was moved to."""
        first, last = self.target
        return _as_float(self.low + (values - first) / (last - first) * (self.high - self.low), values)

    def save(self, path: Path) -> None:
        """Write the factors as an ``.npz`` file."""
        target = np.array(self.target, dtype=np.float64)
        _save(path, {"low": self.low, "high": self.high, "target": target, "clip": np.array(self.clip)})


class StandardFit:
    """Collects mean and deviation from batches, by Chan's update: as exact as from all data at once."""

    def __init__(self, axes: Axes = 0) -> None:
        self._axes = axes
        self._count = 0
        self._mean: Array = np.zeros(())
        self._squares: Array = np.zeros(())

    def add(self, batch: Array) -> StandardFit:
        """Take one batch into account; one without values changes nothing."""
        values = _checked(batch)
        if not values.size:
            return self
        mean = values.mean(axis=self._axes, keepdims=True)
        squares = np.square(values - mean).sum(axis=self._axes, keepdims=True)
        count = values.size // mean.size
        if self._count:
            _check_shapes(self._mean, mean)
        total = self._count + count
        apart = mean - self._mean
        self._squares = self._squares + squares + np.square(apart) * (self._count * count / total)
        self._mean = self._mean + apart * (count / total)
        self._count = total
        return self

    def result(self) -> Standard:
        """Return what was found; FAILED_PRECONDITION before the first value."""
        if not self._count:
            raise failed_precondition("a normalizer is fitted to data, and none was added")
        return Standard(self._mean, np.sqrt(self._squares / self._count))


class RangeFit:
    """Collects the lowest and the highest values from batches."""

    def __init__(self, axes: Axes = 0) -> None:
        self._axes = axes
        self._ends: tuple[Array, Array] | None = None

    def add(self, batch: Array) -> RangeFit:
        """Take one batch into account; one without values changes nothing."""
        values = _checked(batch)
        if not values.size:
            return self
        low, high = (end(values, axis=self._axes, keepdims=True) for end in (np.min, np.max))
        if self._ends is not None:
            _check_shapes(self._ends[0], low)
            low, high = np.minimum(low, self._ends[0]), np.maximum(high, self._ends[1])
        self._ends = low, high
        return self

    def result(self, target: tuple[float, float] = (0.0, 1.0), *, clip: bool = True) -> Range:
        """Return what was found; FAILED_PRECONDITION before the first value."""
        if self._ends is None:
            raise failed_precondition("a normalizer is fitted to data, and none was added")
        return Range(*self._ends, target, clip)


def load(path: Path) -> Standard | Range:
    """Read a saved normalizer. NOT_FOUND or INVALID_ARGUMENT name the file; a pickle in it is refused."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if "mean" in stored:
                return Standard(stored["mean"], stored["deviation"])
            first, last = stored["target"]
            return Range(stored["low"], stored["high"], (float(first), float(last)), bool(stored["clip"]))
    except OSError as error:
        raise not_found(f"cannot read the normalizer {path}: {error}") from error
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise invalid_argument(f"{path} is no saved normalizer: {error}") from error


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _checked(batch: Array) -> Array:
    values = np.asarray(batch, dtype=np.float64)
    if not np.isfinite(values).all():
        raise invalid_argument("a normalizer is fitted to finite numbers, and the batch holds NaN or infinity")
    return values


def _check_shapes(before: Array, now: Array) -> None:
    if before.shape != now.shape:
        raise invalid_argument(f"batches before gave factors of shape {list(before.shape)}, this one {list(now.shape)}")


def _or_one(scale: Array) -> Array:
    return np.where(scale == 0, 1.0, scale)


def _as_float(values: Array, like: Array) -> Array:
    return values.astype(np.float64 if like.dtype == np.float64 else np.float32)

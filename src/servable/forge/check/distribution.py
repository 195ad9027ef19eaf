"""How the values of a tensor are distributed: learnt from rows, kept as JSON, compared with other rows. Pure.

Compared are the range, the population stability index over about ten bins of equal weight, and the largest gap
between the two cumulative distributions (Kolmogorov and Smirnov). Few rows differ by chance: the limits are raised
to what chance exceeds once in a thousand, by the number of rows, since the values of one row hang together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from servable.core.errors import invalid_argument
from servable.core.tensors import STRING, Array, dtype_of

QUANTILES: Final = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
MOST_CATEGORIES: Final = 32
"""Whole numbers with so few different values are counted one by one."""
_FINE: Final = 50
_COARSE: Final = 10
_MOST_VALUES: Final = 2_000_000
_Z: Final = 3.0902
"""What a standard normal variable exceeds once in a thousand."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a comparison may find. Written into a profile by hand, beside a tensor, where other limits are right.

    ``outside`` is the share of values beyond the learnt minimum and maximum, ``beyond`` how far the farthest may lie
    beyond them, in widths of that range; ``missing`` how much more often values may be NaN or Inf.
    """

    psi: float = 0.25
    ks: float = 0.2
    outside: float = 0.01
    beyond: float = 1.0
    missing: float = 0.0


class Histogram(msgspec.Struct, frozen=True):
    """Counts between ``edges``; before the first and after the last too. Or counts of the ``values`` themselves."""

    counts: list[int]
    edges: list[float] = []
    values: list[float] = []


class Profile(msgspec.Struct, frozen=True):
    """One tensor as it was learnt. Of strings, the lengths in bytes. ``missing`` is the share of NaN and Inf.

    The numbers are of the finite values; ``None`` where there were none.
    """

    dtype: str
    rows: int
    count: int
    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    missing: float
    zeros: float
    quantiles: dict[str, float]
    histogram: Histogram
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class Shift:
    """How far other rows are from a profile; the limits are those that were applied."""

    psi: float
    ks: float
    outside: float
    beyond: float
    missing: float
    psi_limit: float
    ks_limit: float
    faults: tuple[str, ...]


def learn(array: Array) -> Profile:
    """Describe the values of a tensor."""
    values, missing = _finite(array)
    rows = len(array) if array.ndim else 1
    known = values.size > 0
    quantiles = [float(value) for value in np.quantile(values, QUANTILES)] if known else []
    return Profile(
        dtype=dtype_of(array).name,
        rows=rows,
        count=int(array.size),
        min=float(values.min()) if known else None,
        max=float(values.max()) if known else None,
        mean=float(values.mean()) if known else None,
        std=float(values.std()) if known else None,
        missing=missing,
        zeros=float(np.mean(values == 0)) if known else 0.0,
        quantiles={f"{place:g}": value for place, value in zip(QUANTILES, quantiles, strict=False)},
        histogram=_histogram(array, values),
    )


def shift(profile: Profile, array: Array) -> Shift:
    """Compare the values of a tensor with a profile."""
    limits = profile.limits or Limits()
    values, missing = _finite(array)
    faults: list[str] = []
    name, rows = dtype_of(array).name, len(array) if array.ndim else 1
    if name != profile.dtype:
        faults.append(f"it is {name}, {profile.dtype} was learnt")
    more = missing - profile.missing
    if more > limits.missing:
        faults.append(f"{_percent(missing)} are NaN or Inf, {_percent(profile.missing)} were")
    outside = beyond = psi = ks = 0.0
    psi_limit, ks_limit = limits.psi, limits.ks
    if values.size and profile.min is not None and profile.max is not None:
        outside, beyond = _excess(profile.min, profile.max, values)
        expected, found = profile.histogram.counts, counted(profile.histogram, values)
        coarse = _merged(expected)
        psi = _psi(_sums(expected, coarse), _sums(found, coarse))
        ks = _ks(expected, found)
        psi_limit = max(psi_limit, _psi_by_chance(len(coarse), profile.rows, rows))
        ks_limit = max(ks_limit, _ks_by_chance(profile.rows, rows))
        outside_limit = max(limits.outside, _outside_by_chance(profile.rows, rows))
        faults += _faults(profile, limits.beyond, outside_limit, outside, beyond, values)
        if psi > psi_limit:
            faults.append(f"population stability index {psi:.3g}, allowed {psi_limit:.3g}")
        if ks > ks_limit:
            faults.append(f"the distributions are {ks:.3g} apart, allowed {ks_limit:.3g}")
    elif bool(values.size) != (profile.min is not None):
        faults.append("there are numbers where none were learnt" if values.size else "there is no finite value")
    return Shift(psi, ks, outside, beyond, missing, psi_limit, ks_limit, tuple(faults))


def counted(histogram: Histogram, values: Array) -> list[int]:
    """Count values in a profile's bins; of categories, a last bin has all that were never seen."""
    if histogram.values:
        known = np.asarray(histogram.values)
        counts = [int(np.count_nonzero(values == value)) for value in known]
        return [*counts, int(values.size - sum(counts))]
    places = np.searchsorted(np.asarray(histogram.edges), values, side="right")
    return [int(count) for count in np.bincount(places, minlength=len(histogram.edges) + 1)]


def read_profile(document: Any, where: str) -> Profile:
    """Take a profile from JSON; INVALID_ARGUMENT says what is wrong with it."""
    try:
        profile = msgspec.convert(document, Profile)
    except msgspec.ValidationError as error:
        raise invalid_argument(f"{where} is no profile of a tensor: {error}") from None
    bins = len(profile.histogram.values) or len(profile.histogram.edges)
    if len(profile.histogram.counts) != bins + 1:
        raise invalid_argument(f"{where}: its histogram has {len(profile.histogram.counts)} counts for {bins} bins")
    return profile


def as_json(profile: Profile) -> dict[str, Any]:
    """Return it for JSON; without limits, unless it has some of its own."""
    document: dict[str, Any] = msgspec.to_builtins(profile)
    if profile.limits is None:
        del document["limits"]
    return document


def _finite(array: Array) -> tuple[Array, float]:
    """Return the finite values as float64, of strings their lengths, and the share of the others."""
    flat = array.reshape(-1)
    if array.dtype == STRING.numpy:
        return np.array([len(item) for item in flat], np.float64), 0.0
    if flat.size > _MOST_VALUES:
        flat = flat[:: math.ceil(flat.size / _MOST_VALUES)]
    values = np.abs(flat).astype(np.float64) if array.dtype.kind == "c" else flat.astype(np.float64)
    finite = values[np.isfinite(values)]
    return finite, 1 - finite.size / values.size if values.size else 0.0


def _histogram(array: Array, values: Array) -> Histogram:
    if not values.size:
        return Histogram([0])
    whole = array.dtype.kind in "biu" or array.dtype == STRING.numpy
    distinct = np.unique(values) if whole else values[:0]
    if whole and len(distinct) <= MOST_CATEGORIES:
        found = Histogram([], values=[float(value) for value in distinct])
    else:
        inner = np.quantile(values, np.arange(1, _FINE) / _FINE)
        found = Histogram([], edges=[float(edge) for edge in np.unique(inner)])
    return Histogram(counted(found, values), found.edges, found.values)


def _excess(low: float, high: float, values: Array) -> tuple[float, float]:
    """Return the share of values outside, and how far the farthest is, in widths of the range."""
    farthest = max(low - float(values.min()), float(values.max()) - high, 0.0)
    width = (high - low) or max(abs(low), abs(high)) or 1.0
    return float(np.mean((values < low) | (values > high))), farthest / width


def _faults(
    profile: Profile, beyond_limit: float, outside_limit: float, outside: float, beyond: float, values: Array
) -> list[str]:
    allowed = f"{profile.min:.4g} to {profile.max:.4g}"
    seen = f"{values.min():.4g} to {values.max():.4g}"
    if beyond > beyond_limit:
        return [f"values run from {seen}, learnt were {allowed}"]
    if outside > outside_limit:
        return [f"{_percent(outside)} of the values lie outside {allowed} ({seen}), allowed {_percent(outside_limit)}"]
    return []


def _merged(counts: Sequence[int]) -> list[list[int]]:
    """Return groups of bins, each with about the same weight in the profile; the bin of the unseen is alone."""
    total = sum(counts)
    groups: list[list[int]] = []
    group: list[int] = []
    weight = 0
    for place, count in enumerate(counts):
        group.append(place)
        weight += count
        if weight >= total / _COARSE:
            groups.append(group)
            group, weight = [], 0
    if group:
        groups.append(group)
    return groups


def _sums(counts: Sequence[int], groups: Sequence[Sequence[int]]) -> list[int]:
    return [sum(counts[place] for place in group) for group in groups]


def _psi(expected: Sequence[int], found: Sequence[int]) -> float:
    """Return the population stability index; half a count in each bin keeps empty ones finite."""
    shares = [[(count + 0.5) / (sum(counts) + 0.5 * len(counts)) for count in counts] for counts in (expected, found)]
    return math.fsum((new - old) * math.log(new / old) for old, new in zip(*shares, strict=True))


def _ks(expected: Sequence[int], found: Sequence[int]) -> float:
    old, new = np.cumsum(expected) / sum(expected), np.cumsum(found) / sum(found)
    return float(np.abs(old - new).max())


def _psi_by_chance(bins: int, old: int, new: int) -> float:
    """Return what the index of two samples of one distribution exceeds once in a thousand.

    It is distributed about as chi square, scaled; its quantile is that of Wilson and Hilferty.
    """
    degrees = max(1, bins - 1)
    chi_square: float = degrees * (1 - 2 / (9 * degrees) + _Z * math.sqrt(2 / (9 * degrees))) ** 3
    return chi_square * (1 / max(1, old) + 1 / max(1, new))


def _outside_by_chance(old: int, new: int) -> float:
    """Return the share of new values that lie beyond the extremes of the old by chance, once in a thousand.

    What lies beyond the largest of n values has a share of 1 / n in the mean, 7.6 / n once in two thousand.
    """
    share = min(1.0, 2 * (1 - math.exp(math.log(0.0005) / max(1, old))))
    return min(1.0, share + _Z * math.sqrt(share * (1 - share) / max(1, new)))


def _ks_by_chance(old: int, new: int) -> float:
    return math.sqrt(-0.5 * math.log(0.0005)) * math.sqrt(1 / max(1, old) + 1 / max(1, new))


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"

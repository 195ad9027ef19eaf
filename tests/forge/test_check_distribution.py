"""Distributions are told apart when they differ, and not when it is chance."""

from __future__ import annotations

import json

import numpy as np
import pytest

from servable.core.errors import ServingError
from servable.core.tensors import Array
from servable.forge.check.distribution import Limits, Profile, as_json, learn, read_profile, shift


def normal(seed: int, rows: int = 2000, mean: float = 0.0, deviation: float = 1.0) -> Array:
    return np.random.default_rng(seed).normal(mean, deviation, rows).astype(np.float32)


def faults(profile: Profile, array: Array) -> str:
    return "; ".join(shift(profile, array).faults)


def test_what_is_learnt() -> None:
    profile = learn(np.array([[1.0, 2.0], [0.0, np.nan], [5.0, np.inf]], np.float32))
    assert (profile.dtype, profile.rows, profile.count) == ("float32", 3, 6)
    assert (profile.min, profile.max, profile.mean) == (0.0, 5.0, 2.0)
    assert profile.missing == pytest.approx(1 / 3)
    assert profile.zeros == 0.25
    assert profile.quantiles["0.5"] == 1.5


@pytest.mark.parametrize("seed", range(20))
def test_other_rows_of_the_same_distribution_pass(seed: int) -> None:
    profile = learn(normal(100))
    assert not shift(profile, normal(seed)).faults
    assert not shift(learn(normal(seed, 12)), normal(seed + 1, 12)).faults, "few rows differ by chance"


def test_shifts_are_found() -> None:
    profile = learn(normal(1))
    assert "population stability index" in faults(profile, normal(2, mean=1.0))
    assert "apart" in faults(profile, normal(2, mean=1.0))
    assert "population stability index" in faults(profile, normal(2, deviation=0.2))
    assert "population stability index" in faults(profile, np.zeros(2000, np.float32))


def test_the_index_is_that_of_its_definition() -> None:
    profile = learn(np.repeat(np.arange(4, dtype=np.int32), 250))
    found = np.repeat(np.arange(4, dtype=np.int32), [400, 300, 200, 100])
    shares = np.array([[0.25] * 4, [0.4, 0.3, 0.2, 0.1]])
    index = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    assert shift(profile, found).psi == pytest.approx(index, rel=0.02)
    assert shift(profile, found).ks == pytest.approx(0.2)


def test_values_beyond_the_range_are_found() -> None:
    profile = learn(np.linspace(0, 1, 1000, dtype=np.float32))
    once = np.linspace(0, 1, 1000, dtype=np.float32)
    once[0] = 255
    assert faults(profile, once) == "values run from 0.001001 to 255, learnt were 0 to 1"
    many = np.linspace(0, 1.1, 1000, dtype=np.float32)
    assert "9.1 % of the values lie outside 0 to 1" in faults(profile, many)


def test_numbers_that_are_none_are_found() -> None:
    profile = learn(normal(1))
    holes = normal(2)
    holes[::50] = np.nan
    assert faults(profile, holes) == "2 % are NaN or Inf, 0 % were"
    assert "there is no finite value" in faults(profile, np.full(9, np.nan, np.float32))
    assert not shift(learn(holes), holes).faults, "they were there when it was learnt"


def test_whole_numbers_are_counted_one_by_one() -> None:
    profile = learn(np.random.default_rng(1).integers(0, 3, 3000))
    assert profile.histogram.values == [0, 1, 2]
    assert not shift(profile, np.random.default_rng(2).integers(0, 3, 3000)).faults
    assert "population stability index" in faults(profile, np.random.default_rng(2).integers(0, 2, 3000))
    even = learn(np.repeat([0, 2], 1000))
    assert not shift(even, np.repeat([0, 2], 1000)).faults
    unseen = np.repeat([0, 1, 2], [900, 200, 900])  # within the range, and never there before
    assert "population stability index" in faults(even, unseen)


def test_strings_are_their_lengths() -> None:
    words = np.array([b"a" * length for length in range(40)] * 50, object)
    profile = learn(words)
    assert (profile.dtype, profile.min, profile.max) == ("string", 0, 39)
    assert not shift(profile, words[::-1]).faults
    assert "population stability index" in faults(profile, np.array([b"aa"] * 2000, object))


def test_another_type_is_found() -> None:
    assert "it is float64, float32 was learnt" in faults(learn(normal(1)), normal(1).astype(np.float64))


def test_a_constant_stays_one() -> None:
    profile = learn(np.full(500, 3.0, np.float32))
    assert not shift(profile, np.full(500, 3.0, np.float32)).faults
    assert shift(profile, np.full(500, 3.5, np.float32)).faults


def test_limits_beside_a_tensor_are_its_own() -> None:
    document = as_json(learn(normal(1)))
    document["limits"] = {"psi": 100, "ks": 1, "outside": 1, "beyond": 100}
    profile = read_profile(json.loads(json.dumps(document)), "p.json")
    assert profile.limits == Limits(psi=100, ks=1, outside=1, beyond=100)
    assert not shift(profile, normal(2, mean=3.0)).faults
    document["limits"] = {"psy": 1}
    with pytest.raises(ServingError, match=r"p.json is no profile of a tensor: .*psy"):
        read_profile(document, "p.json")


@pytest.mark.parametrize(
    "array",
    [
        normal(3),
        np.arange(100),
        np.array([True, False] * 50),
        np.array([b"x", b""] * 20, object),
        np.array([1 + 2j] * 10, np.complex64),
        np.float32(3.0).reshape(()),
    ],
    ids=lambda array: array.dtype.name,
)
def test_a_profile_survives_json_and_knows_its_own(array: Array) -> None:
    profile = read_profile(json.loads(json.dumps(as_json(learn(array)))), "p.json")
    assert profile == learn(array)
    assert not shift(profile, array).faults


def test_a_histogram_that_was_cut_is_refused() -> None:
    document = as_json(learn(normal(1)))
    document["histogram"]["counts"].pop()
    with pytest.raises(ServingError, match="its histogram has 49 counts for 49 bins"):
        read_profile(document, "p.json")

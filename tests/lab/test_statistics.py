"""Intervals hold what they promise, on distributions that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from servable.lab.statistics import geometric_mean, ratio, student_t

# Two-sided quantiles as printed in tables.
TABLE = {
    (1, 0.95): 12.7062, (2, 0.95): 4.3027, (3, 0.95): 3.1824, (4, 0.95): 2.7764, (5, 0.99): 4.0321,
    (7, 0.9): 1.8946, (10, 0.95): 2.2281, (30, 0.99): 2.7500, (120, 0.95): 1.9799,
}  # fmt: skip


@pytest.mark.parametrize(("degrees", "confidence"), TABLE)
def test_quantiles_are_those_of_the_tables(degrees: int, confidence: float) -> None:
    assert student_t(degrees, confidence) == pytest.approx(TABLE[degrees, confidence], abs=1e-4)


def test_many_degrees_are_the_normal_distribution() -> None:
    assert student_t(100_000, 0.95) == pytest.approx(1.95996, abs=1e-4)


@pytest.mark.parametrize("blocks", [3, 4, 9])
def test_the_interval_of_a_ratio_covers_it_as_often_as_it_says(blocks: int) -> None:
    rng = np.random.default_rng(7)
    true, covered, trials = 1.7, 0, 2000
    for _ in range(trials):
        rounds = rng.lognormal(0, 0.5, blocks)  # what slows a whole round
        reference = 1000 * rounds * rng.lognormal(0, 0.02, blocks)
        values = 1000 * true * rounds * rng.lognormal(0, 0.05, blocks)
        found = ratio(values.tolist(), reference.tolist())
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= true <= found.high
    assert covered / trials == pytest.approx(0.95, abs=0.015)


def test_noise_that_rounds_share_does_not_widen_the_ratio() -> None:
    found = ratio([200, 20, 2], [100, 10, 1])
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))


def test_the_mean_is_geometric() -> None:
    found = geometric_mean([1, 10, 100])
    assert found.value == pytest.approx(10)
    half = 4.3027 * math.log(10) / math.sqrt(3)
    assert found.high == pytest.approx(10 * math.exp(half), rel=1e-3)


@pytest.mark.parametrize("rounds", [1, 2])
def test_few_blocks_say_nothing_of_noise(rounds: int) -> None:
    found = ratio([3.0] * rounds, [2.0] * rounds)
    assert (found.value, found.low, found.high) == pytest.approx((1.5, None, None))


@pytest.mark.parametrize("values", [[], [1.0, 0.0], [-1.0]])
def test_values_without_a_logarithm_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        geometric_mean(values)


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])

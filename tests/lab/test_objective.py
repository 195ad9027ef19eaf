"""Objectives and the search for the highest rate that holds them, against servers that exist as arithmetic only."""

from __future__ import annotations

import math

import numpy as np
import pytest

from servable.core.errors import ServingError
from servable.core.tensors import Array
from servable.lab.histogram import Histogram
from servable.lab.objective import RateSearch, judge, parse_objective, wilson
from servable.lab.result import Step

DURATION_S = 20.0


def step_of(latencies_ms: Array, rate: float, *, errors: int = 0, wrong: int = 0) -> Step:
    histogram = Histogram()
    histogram.record((latencies_ms * 1e6).astype(np.int64))
    count = len(latencies_ms)
    return Step(
        "x", count, errors, wrong, offered_rate_per_s=rate, duration_s=DURATION_S, latency=histogram.summary()
    )  # fmt: skip


def queue(rate: float, capacity: float, seed: int) -> Step:
    """Answer as a queue with one server does: exponential, slower as the rate nears the capacity; behind above it."""
    if rate >= capacity:
        return step_of(np.full(int(capacity * DURATION_S), 5000.0), rate)
    generator = np.random.default_rng(seed)
    return step_of(generator.exponential(1000 / (capacity - rate), int(rate * DURATION_S)) + 0.001, rate)


def highest(capacity: float, limit_ms: float) -> float:
    """Return the rate at which 99 of 100 take just the limit: 100 times the mean's logarithm."""
    return capacity - 1000 * math.log(100) / limit_ms


def test_objectives_are_read() -> None:
    objective = parse_objective("p99=50ms, p50<=200us,p99.9=1s")
    assert [(limit.percent, limit.limit_ms) for limit in objective.limits] == [(99, 50), (50, 0.2), (99.9, 1000)]


@pytest.mark.parametrize(
    "text", ["", "p99", "p99=50", "99=50ms", "p100=5ms", "p99=-1ms", "p99=0ms", "p0=1ms", "mean=1ms"]
)
def test_what_is_no_objective_is_refused(text: str) -> None:
    with pytest.raises(ServingError, match="is no objective: expected p99=50ms"):
        parse_objective(text)


def test_verdicts_know_chance_from_certainty() -> None:
    objective = parse_objective("p90=10ms")
    fast, slow = np.full(95, 1.0), np.full(5, 100.0)
    few = judge(objective, [step_of(np.concatenate([fast, slow]), 5)])
    assert (few.held, few.sure) == (True, False), "5 of 100 could be 10 of 100"
    many = [step_of(np.concatenate([fast, slow]), 5)] * 10
    assert judge(objective, many) == (type(few))(held=True, sure=True)
    clear = judge(objective, [step_of(np.concatenate([np.full(50, 1.0), np.full(50, 20.0)]), 5)])
    assert (clear.held, clear.sure) == (False, True)


@pytest.mark.parametrize("spoiled", [{"errors": 20}, {"wrong": 20}])
def test_failures_count_as_too_slow(spoiled: dict[str, int]) -> None:
    objective = parse_objective("p99=10ms")
    assert judge(objective, [step_of(np.full(1000, 1.0), 50)]).held
    assert not judge(objective, [step_of(np.full(980, 1.0), 50, **spoiled)]).held
    assert not judge(objective, [step_of(np.full(1000, 1.0), 50)], overdue=20).held


def test_a_server_that_falls_behind_holds_nothing() -> None:
    objective = parse_objective("p50=10s")
    assert not judge(objective, [step_of(np.full(1000, 1.0), 100)]).held, "1000 of 2000 were answered"


def test_nothing_answered_holds_nothing() -> None:
    assert not judge(parse_objective("p50=1s"), [step_of(np.zeros(0), 1)]).held


@pytest.mark.parametrize("guess", [30.0, 900.0, 20_000.0])
def test_the_search_finds_the_rate_whatever_the_guess(guess: float) -> None:
    capacity, limit_ms = 1000.0, 50.0
    search = RateSearch(parse_objective("p99=50ms"), guess)
    seed = 0
    while (rate := search.next_rate) is not None:
        seed += 1
        assert seed < 60, "the search must end"
        search.tell(queue(rate, capacity, seed))
    assert search.held is not None
    assert search.held == pytest.approx(highest(capacity, limit_ms), rel=0.06)
    assert search.missed is not None
    assert search.missed / search.held <= 1.0501
    assert search.trials == seed


def test_a_search_for_what_cannot_be_ends_soon() -> None:
    search = RateSearch(parse_objective("p99=1ms"), 5000)
    while (rate := search.next_rate) is not None:
        search.tell(step_of(np.full(max(1, int(rate * DURATION_S)), 7.0), rate))
        assert search.trials < 30
    assert search.held is None


def test_wilsons_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(2000):
        low, high = wilson(generator.binomial(400, 0.05) / 400, 400)
        inside += low <= 0.05 <= high
    assert inside / 2000 == pytest.approx(0.95, abs=0.02)

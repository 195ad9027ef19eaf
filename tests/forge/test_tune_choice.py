"""Which trials a plan is made of: decided from times alone."""

from __future__ import annotations

import math

import pytest

from servable.core.errors import ServingError
from servable.forge.tuning.choice import Objective, choose_members, pareto, parse_objective, proven, ranges
from servable.lab.statistics import Estimate

THROUGHPUT, LATENCY = Objective(), Objective("latency")


def test_one_trial_runs_everything_where_it_is_best_or_nearly() -> None:
    times = {0: {1: 2.0, 8: 9.0}, 1: {1: 1.05, 8: 4.0}, 2: {1: 1.0, 8: 8.0}}
    assert choose_members(times, 0, THROUGHPUT) == {1: 1, 8: 1}


def test_a_second_trial_comes_where_it_pays() -> None:
    times = {0: {1: 2.0, 8: 9.0}, 1: {1: 1.5, 8: 4.0}, 2: {1: 1.0, 8: 8.0}}
    assert choose_members(times, 0, THROUGHPUT) == {1: 2, 8: 1}


def test_nothing_that_is_slower_than_the_default_anywhere_is_taken_alone() -> None:
    times = {0: {1: 1.0, 8: 9.0}, 1: {1: 1.08, 8: 4.0}}  # within what a second one costs, but behind the default
    assert choose_members(times, 0, THROUGHPUT) == {1: 0, 8: 1}


def test_a_gain_that_may_be_chance_is_none() -> None:
    assert proven(1.0, Estimate(1.5, 0.97, 2.3), 1.5) == 1.5
    assert proven(1.0, Estimate(1.5, 1.1, 2.0), 1.5) == 1.0
    assert proven(1.55, Estimate(0.97, 0.96, 0.99), 1.5) == 1.55
    assert proven(1.0, None, 1.5) == 1.0


def test_what_may_be_a_loss_of_more_than_a_twentieth_does_not_run() -> None:
    assert proven(1.0, Estimate(1.5, 0.94, 2.4), 1.5) == math.inf
    times = {0: {1: 1.5, 8: 9.0}, 1: {1: proven(1.0, Estimate(1.5, 0.94, 2.4), 1.5), 8: 4.0}}
    assert choose_members(times, 0, THROUGHPUT) == {1: 0, 8: 1}


def test_of_equals_the_default_stays() -> None:
    assert choose_members({0: {1: 1.0, 8: 4.0}, 1: {1: 1.0, 8: 4.0}}, 0, THROUGHPUT) == {1: 0, 8: 0}
    assert choose_members({1: {1: 1.0, 8: 2.0}, 0: {1: 1.0, 8: 4.0}}, 0, THROUGHPUT) == {1: 1, 8: 1}
    assert choose_members({1: {1: 1.0, 8: 4.0}, 0: {1: 1.0, 8: 4.0}}, 0, THROUGHPUT) == {1: 0, 8: 0}


def test_the_objective_decides_between_equals() -> None:
    times = {0: {1: 5.0, 8: 50.0}, 1: {1: 1.0, 8: 10.5}, 2: {1: 1.05, 8: 10.0}}
    assert choose_members(times, 0, THROUGHPUT) == {1: 2, 8: 2}
    assert choose_members(times, 0, LATENCY) == {1: 1, 8: 1}


def test_a_trial_without_all_sizes_is_not_taken() -> None:
    assert choose_members({0: {1: 2.0, 8: 9.0}, 1: {1: 1.0}}, 0, THROUGHPUT) == {1: 0, 8: 0}


def test_ranges_end_where_the_lines_cross() -> None:
    times = {0: {1: 1.0, 9: 9.0}, 1: {1: 3.0, 9: 3.0}}
    assert ranges({1: 0, 9: 1}, times) == [(3, 0), (None, 1)]
    assert ranges({1: 0, 9: 0}, times) == [(None, 0)]
    assert ranges({4: 1}, {1: {4: 1.0}}) == [(None, 1)]


def test_pareto_keeps_what_nothing_beats() -> None:
    assert pareto({0: (1, 5), 1: (2, 4), 2: (2, 5), 3: (1, 5)}) == {0, 1, 3}


def test_objectives_are_read_and_refused() -> None:
    assert parse_objective("latency") == LATENCY
    assert parse_objective("p99=50ms") == Objective("p99", 0.05)
    assert str(parse_objective("p99=2s")) == "p99=2000ms"
    for bad in ("speed", "p99", "p99=", "p99=-1ms", "p99=xms", "p50=3ms", "p99=infs"):
        with pytest.raises(ServingError, match="is no objective"):
            parse_objective(bad)


def test_a_limit_names_the_largest_batch_within_it() -> None:
    assert Objective("p99", 0.05).met({1: 0.01, 8: 0.04, 32: 0.2}) == 8
    assert Objective("p99", 0.05).met({1: 0.06}) == 0
    assert THROUGHPUT.met({1: 1.0}) is None

"""Buckets, allowances, and the clocks of a connection, without a connection."""

from __future__ import annotations

import itertools
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from servable.transport.http2.age import Age, PingPolicy, Step
from servable.transport.http2.buckets import Allowance, Bucket
from servable.transport.limits import Limits, Rate


@given(
    st.floats(1, 100), st.floats(0, 10), st.lists(st.tuples(st.floats(0, 5), st.floats(0, 20)), min_size=1, max_size=50)
)
def test_no_stretch_of_time_gives_more_than_burst_and_refill(
    burst: float, per_second: float, steps: list[tuple[float, float]]
) -> None:
    bucket = Bucket(Rate(burst, per_second), 0.0)
    now = taken = 0.0
    for wait, amount in steps:
        now += wait
        if not bucket.take(now, amount):
            break
        taken += amount
    assert taken <= burst + now * per_second + 1e-6


def test_what_comes_back_is_bounded_by_the_burst() -> None:
    bucket = Bucket(Rate(3, 1), 0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    bucket = Bucket(Rate(3, 1), 0.0)
    bucket.take(0.0, 3)
    assert [bucket.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_an_allowance_is_given_once() -> None:
    allowance = Allowance()
    assert [allowance.more(total) for total in (10, 10, 15, 12, 15)] == [10, 0, 5, -3, 0]


def test_age_with_its_jitter_and_grace_k005() -> None:
    for factor, chosen in ((0.9, min), (1.1, max)):
        limits = Limits(max_connection_age_s=100, max_connection_age_grace_s=10)
        age = Age(limits, 0.0, chosen)
        assert age.step(100 * factor - 0.1, 50.0) == (Step.NOTHING, 100 * factor)
        assert age.step(100 * factor, 50.0) == (Step.LEAVE, 100 * factor + 10)
        assert age.step(100 * factor + 9, 50.0)[0] is Step.NOTHING
        assert age.step(100 * factor + 10, 50.0) == (Step.CUT, inf)


def test_a_silent_client_is_asked_and_given_up_k006() -> None:
    age = Age(Limits(keepalive_interval_s=60, keepalive_timeout_s=20), 0.0)
    assert age.step(59.0, 0.0) == (Step.NOTHING, 60.0)
    assert age.step(60.0, 0.0) == (Step.ASK, 80.0)
    assert age.step(70.0, 65.0) == (Step.NOTHING, 125.0)
    assert age.step(125.0, 65.0) == (Step.ASK, 145.0)
    assert age.step(144.0, 65.0) == (Step.NOTHING, 145.0)
    assert age.step(145.0, 65.0) == (Step.GIVE_UP, inf)


def test_strikes_k001_k002() -> None:
    policy = PingPolicy(Limits(min_ping_interval_s=5, min_ping_interval_idle_s=100))
    assert [policy.allows(1.0 * second, "same", busy=True) for second in range(4)] == [True, True, True, False]
    policy = PingPolicy(Limits(min_ping_interval_s=5, min_ping_interval_idle_s=100))
    assert all(policy.allows(0.0, work, busy=True) for work in range(50))
    policy = PingPolicy(Limits(min_ping_interval_s=5, min_ping_interval_idle_s=100))
    assert all(policy.allows(now, "same", busy=True) for now in itertools.islice(itertools.count(0.0, 5.0), 50))
    assert [policy.allows(300.0 + 5 * step, "same", busy=False) for step in range(3)] == [True, True, False]
    policy = PingPolicy(Limits(max_ping_strikes=0))
    assert all(policy.allows(0.0, "same", busy=True) for _ in range(50))

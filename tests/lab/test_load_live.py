"""Loads against a server of known behaviour. Nothing here depends on how fast this machine is."""

from __future__ import annotations

import pytest

from servable.lab.schedule import Schedule
from servable.lab.session import Load

TIMER_MS = 1
"""By how much a timer of an event loop may be early: they keep whole milliseconds."""
BOTH = pytest.mark.parametrize("over", ["grpc", "rest"])


@BOTH
def test_what_fails_and_what_is_wrong_is_counted_and_is_no_latency(stub, over: str) -> None:
    behaviour = "error10-wrong7"
    (step,) = stub.steps(over, behaviour, [Load(concurrency=1, count=210, warmup_s=0)])
    truth = stub.truth(behaviour, over)
    assert step.ok + step.errors + step.wrong == 210
    # Every 10th fails; of the others every 7th is wrong.
    assert (step.errors, step.wrong) == (21, 27)
    assert step.latency.count == step.ok == 162
    assert step.verified == step.ok + step.wrong
    assert truth["count"] >= 210
    (kind,) = step.error_kinds
    assert (kind.code, kind.message, kind.count) == (
        "INTERNAL" if over == "grpc" else "HTTP 500", "on purpose", 21,
    )  # fmt: skip
    assert sum(second.ok for second in step.seconds) == step.ok
    assert sum(second.errors for second in step.seconds) == step.errors


def test_a_bad_grpc_status_behind_http_200_is_a_failure(stub) -> None:
    (step,) = stub.steps("grpc", "status4", [Load(concurrency=1, count=40, warmup_s=0)])
    assert (step.ok, step.errors, step.wrong) == (30, 10, 0)
    assert step.error_kinds[0].code == "RESOURCE_EXHAUSTED"


@BOTH
def test_without_expectations_wrong_answers_pass_and_the_result_says_that_nothing_was_compared(stub, over: str) -> None:
    (step,) = stub.steps(over, "wrong2", [Load(concurrency=2, count=20, warmup_s=0)], expect=False)
    assert (step.ok, step.wrong, step.verified) == (20, 0, 0)


@BOTH
def test_the_servers_own_times_are_taken_from_fields_and_trailers(stub, over: str) -> None:
    (step,) = stub.steps(over, "plain", [Load(concurrency=1, count=10, warmup_s=0)])
    assert step.split.queue is not None
    assert step.split.compute is not None
    assert step.split.queue.p50_ms == pytest.approx(0.5, rel=1e-3)
    assert step.split.compute.mean_ms == pytest.approx(1.5, rel=1e-3)
    assert step.split.wait is not None
    assert step.split.send is not None


def test_a_stall_shows_in_the_open_loop_and_the_closed_loop_says_what_it_hides(stalling_stub) -> None:
    """The server does nothing for 100 ms of every second: a tenth of all who ask on a schedule wait, up to 100 ms."""
    closed, opened = stalling_stub.steps(
        "grpc",
        "stall-delay4",
        [
            Load(concurrency=1, duration_s=2, warmup_s=0.5),
            Load(schedule=Schedule("constant", 200), duration_s=2, warmup_s=0),
        ],
    )
    assert opened.latency.p99_ms >= 80
    assert opened.ok + opened.unfinished >= 390
    assert closed.corrected is not None
    assert closed.corrected.p99_ms >= 60
    assert closed.corrected.count > closed.latency.count
    # On an idle machine p99 hides the stall altogether; on any machine it is below what schedules would meet.
    if closed.latency.p99_ms * 1.2 < closed.corrected.p99_ms:
        assert "closed loop asks nothing while it waits" in closed.notes[0]


@BOTH
def test_delays_are_measured_from_the_question_to_the_answer(stub, over: str) -> None:
    (step,) = stub.steps(over, "delay20", [Load(concurrency=4, count=40, warmup_s=0)])
    truth = sorted(stub.truth("delay20", over)["took_ms"])
    # The client cannot have seen less than the server took: that holds for each rank.
    assert step.latency.min_ms >= truth[0] * 0.999
    assert step.latency.p50_ms >= truth[len(truth) // 2 - 4] * 0.999
    assert step.latency.max_ms >= truth[-5] * 0.999


def test_an_open_loop_asks_on_schedule_whatever_the_answers_do(stub) -> None:
    """80 requests a second of 500 ms each are 40 in flight: no closed loop of one would ask more than 2 a second."""
    (step,) = stub.steps("grpc", "delay500", [Load(schedule=Schedule("constant", 80), duration_s=1, warmup_s=0.75)])
    assert step.ok >= 75
    assert step.offered_rate_per_s == 80
    assert step.latency.min_ms >= 500 - TIMER_MS


def test_a_schedule_is_shared_by_the_processes(stub) -> None:
    """Two processes keep one schedule between them, and their histograms are one."""
    (step,) = stub.steps(
        "grpc", "plain", [Load(schedule=Schedule("poisson", 100, seed=3), duration_s=1, warmup_s=0.25)], processes=2
    )
    every = Schedule("poisson", 100, seed=3).offsets(1.25)
    expected = len([at for at in every if at >= 0.25e9])
    # On a crowded machine what the warm-up asked is answered after it; never is anything asked twice.
    assert expected - 3 - step.unfinished <= step.ok + step.errors <= len(every)
    assert step.latency.count == step.ok


@BOTH
def test_requests_that_take_too_long_are_errors(stub, over: str) -> None:
    (step,) = stub.steps(over, "delay2000", [Load(concurrency=2, count=4, warmup_s=0)], timeout_s=0.2)
    assert (step.ok, step.errors) == (0, 4)
    assert step.error_kinds[0].code == "DEADLINE_EXCEEDED"


def test_bursts_are_queries_that_end_with_their_last_answer(stub) -> None:
    (step,) = stub.steps("grpc", "delay5", [Load(concurrency=4, burst=True, count=40, warmup_s=0)])
    assert step.ok == 40
    assert 8 <= step.latency.count <= 10
    assert step.latency.min_ms >= 5 - TIMER_MS

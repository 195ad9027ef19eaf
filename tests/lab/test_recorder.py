"""The recorder and the numbers made of it, on a virtual clock: a server of known behaviour, simulated exactly."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import numpy as np
import pytest

from servable.lab.exchange import Fault
from servable.lab.histogram import Histogram
from servable.lab.recorder import NEVER, SLICE_NS, Recorder, Recording, Slice
from servable.lab.result import Step
from servable.lab.schedule import Schedule
from servable.lab.steps import Asked, build_step, settled

MS = 1_000_000
S = 1_000 * MS
Service = Callable[[int], int]
"""When a request that was sent at a time is answered."""


def stalling(delay: int) -> Service:
    """Answer after a delay, but do nothing at all in the last 100 ms of each second."""

    def answered(sent: int) -> int:
        done = sent + delay
        return done if done % S < 900 * MS else (done // S + 1) * S

    return answered


def open_loop(schedule: Schedule, service: Service, duration: int, kind: Callable[[int], str]) -> Recording:
    recorder = Recorder(0, 0, duration)
    ends = sorted(
        (service(int(at)), int(at), index) for index, at in enumerate(schedule.offsets(duration / S).tolist())
    )
    waiting = []
    for end, intended, index in ends:
        if end >= duration:
            waiting.append(duration - intended)
            continue
        count(recorder, kind(index), end, intended)
    return recorder.finish(duration, waiting)


def closed_loop(concurrency: int, service: Service, duration: int, kind: Callable[[int], str]) -> Recording:
    recorder = Recorder(0, 0, duration)
    under_way = [(service(0), 0) for _ in range(concurrency)]
    heapq.heapify(under_way)
    index = 0
    while under_way[0][0] < duration:
        end, begun = under_way[0]
        count(recorder, kind(index), end, begun)
        index += 1
        heapq.heapreplace(under_way, (service(end), end))
    return recorder.finish(duration, [duration - begun for _, begun in under_way])


def count(recorder: Recorder, kind: str, end: int, intended: int) -> None:
    if kind == "ok":
        recorder.ok(end, intended, intended + 1000, 10, 2)
    elif kind == "wrong":
        recorder.wrong(end)
    else:
        recorder.failed(end, Fault("INTERNAL", kind))


def fine(_index: int) -> str:
    return "ok"


def step_of(recording: Recording, *, rate: float | None = None, concurrency: int | None = None) -> Step:
    return build_step(Asked("x", 1, 100.0, rate, concurrency), [recording])


def near(value: float) -> object:
    """Within one bucket of a histogram."""
    return pytest.approx(value, rel=1.5e-3)


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_rate_and_latency_of_a_server_with_a_delay(arrivals: str) -> None:
    schedule = Schedule(arrivals, 500, seed=1)  # type: ignore[arg-type]
    step = step_of(open_loop(schedule, lambda sent: sent + 20 * MS, 10 * S, fine), rate=500)
    assert step.throughput_per_s == pytest.approx(500, rel=0.02)
    assert step.rows_per_s == pytest.approx(1000, rel=0.02)
    assert step.latency.p50_ms == near(20)
    assert step.latency.p99_ms == near(20)
    assert step.latency.mean_ms == near(20)
    assert step.latency.max_ms == near(20)
    assert step.unfinished <= 25
    assert step.steady is True


def test_percentiles_of_a_known_distribution() -> None:
    chance = random.Random(5)
    took: list[int] = []

    def service(sent: int) -> int:
        took.append(round(chance.lognormvariate(3, 0.6) * MS))
        return sent + took[-1]

    recording = open_loop(Schedule("constant", 1000), service, 20 * S, fine)
    step = step_of(recording, rate=1000)
    truth = np.asarray(took) / MS
    for percent, found in ((50, step.latency.p50_ms), (90, step.latency.p90_ms), (99, step.latency.p99_ms)):
        assert found == pytest.approx(np.percentile(truth, percent), rel=0.02)


def test_a_stall_is_in_the_open_loops_percentiles() -> None:
    """A tenth of all requests fall into the stall and wait 0 to 100 ms: 1 of 100 waits 90 ms or more."""
    step = step_of(open_loop(Schedule("constant", 1000), stalling(2 * MS), 10 * S, fine), rate=1000)
    assert step.latency.p50_ms == near(2)
    assert step.latency.p99_ms == pytest.approx(92, rel=0.02)
    assert step.latency.max_ms == pytest.approx(102, rel=0.02)


def test_a_closed_loop_says_what_it_hides() -> None:
    step = step_of(closed_loop(1, stalling(2 * MS), 10 * S, fine), concurrency=1)
    assert step.latency.p99_ms == near(2), "one request of 450 meets the stall"
    assert step.corrected is not None
    assert step.corrected.p99_ms == pytest.approx(92, rel=0.02)
    assert any("p99 2 ms here would be 9" in note for note in step.notes)


def test_an_honest_closed_loop_says_nothing_of_the_kind() -> None:
    step = step_of(closed_loop(4, lambda sent: sent + 5 * MS, 5 * S, fine), concurrency=4)
    assert step.throughput_per_s == pytest.approx(800, rel=0.02)
    assert step.notes == ()


def test_failures_and_wrong_answers_are_counted_apart_and_are_no_latencies() -> None:
    kinds = ["ok", "ok", "on purpose", "ok", "wrong"]
    recording = open_loop(Schedule("constant", 100), lambda sent: sent + MS, 10 * S, lambda at: kinds[at % 5])
    step = step_of(recording, rate=100)
    assert (step.ok, step.errors, step.wrong) == (600, 200, 200)
    assert step.latency.count == 600
    assert step.throughput_per_s == pytest.approx(60, rel=0.02)
    assert [(kind.code, kind.message, kind.count) for kind in step.error_kinds] == [("INTERNAL", "on purpose", 200)]
    assert sum(second.errors for second in step.seconds) == 200
    assert len(step.seconds) == 10
    assert step.seconds[3].ok == 60
    assert step.seconds[3].p50_ms == near(1)


def test_kinds_of_errors_are_bounded() -> None:
    recorder = Recorder(0, 0, S)
    for at in range(1000):
        recorder.failed(at, Fault("INTERNAL", f"request {at} failed"))
    recording = recorder.finish(S, [])
    assert sum(recording.kinds.values()) == 1000
    assert len(recording.kinds) <= 66


def test_warm_up_and_what_ends_later_count_nowhere() -> None:
    told: list[Slice] = []
    recorder = Recorder(0, S, 2 * S, on_slice=told.append)
    for end in range(0, 3 * S, 10 * MS):
        recorder.ok(end + 5 * MS, end, end, 1, 1, verified=True)
    recording = recorder.finish(3 * S, [])
    assert (recording.ok, recording.verified, recording.reply_bytes) == (100, 100, 100)
    assert (recording.begin_ns, recording.end_ns) == (S, 2 * S)
    assert recording.first_slice == 4
    assert [part.number for part in told] == list(range(8))
    assert recorder.over


def test_a_count_ends_the_window() -> None:
    recorder = Recorder(0, 0, NEVER, count=25)
    for end in range(0, 100 * MS, MS):
        if end % (5 * MS):
            recorder.ok(end, end - 1, end - 1, 1, 1)
        else:
            recorder.failed(end, Fault("INTERNAL", ""))
    recording = recorder.finish(S, [])
    assert recording.ok + recording.errors == 25
    assert recording.end_ns == 24 * MS


def test_a_warm_up_can_be_cut_short() -> None:
    recorder = Recorder(0, 10 * S, 11 * S)
    recorder.tick(2 * SLICE_NS)
    recorder.move_window(4 * SLICE_NS, 4 * SLICE_NS + S)
    recorder.tick(4 * SLICE_NS + 2 * S)
    recording = recorder.finish(9 * S, [])
    assert (recording.begin_ns, recording.end_ns) == (S, 2 * S)


def test_an_early_stop_keeps_what_was_measured() -> None:
    recorder = Recorder(0, 0, 10 * S)
    for end in range(0, 2 * S, 10 * MS):
        recorder.ok(end, end, end, 1, 1)
    step = step_of(recorder.finish(2 * S, [5, 6]), concurrency=1)
    assert step.ok == 200
    assert step.duration_s == 2
    assert step.throughput_per_s == 100
    assert step.unfinished == 2


def test_a_server_that_falls_behind_is_told() -> None:
    """It answers 50 a second of 100: the queue grows, and what waits still has waited longest."""
    recording = open_loop(Schedule("constant", 100), lambda sent: 2 * sent + MS, 4 * S, fine)
    step = step_of(recording, rate=100)
    assert step.throughput_per_s == pytest.approx(50, rel=0.02)
    assert step.unfinished == pytest.approx(200, abs=2)
    assert step.steady is False
    late = step_of(Recording(ok=1, end_ns=S, latency=recording.latency, unfinished=[5 * S]), rate=100)
    assert "1 requests had waited longer than any that was answered" in late.notes[0]


def test_processes_are_merged() -> None:
    schedule = Schedule("constant", 100)
    halves = [
        open_loop(schedule, lambda sent: sent + 10 * MS, 5 * S, fine),
        open_loop(schedule, lambda sent: sent + 30 * MS, 5 * S, fine),
    ]
    step = build_step(Asked("x", 1, 1.0, 200.0), halves)
    assert step.throughput_per_s == pytest.approx(200, rel=0.02)
    assert step.latency.mean_ms == pytest.approx(20, rel=0.02)
    assert Histogram.decode(step.latency.histogram).count == step.ok


def test_late_starts_are_told_and_blamed_on_the_client() -> None:
    recorder = Recorder(0, 0, S)
    for at in range(100):
        recorder.ok(at * MS + 30 * MS, at * MS, at * MS + 20 * MS, 1, 1)
    step = step_of(recorder.finish(S, []), rate=100)
    assert step.latency.p50_ms == near(30)
    assert step.client.late_p99_ms == near(20)
    assert step.client.bottleneck


def test_a_busy_client_is_told() -> None:
    used = iter([0, 950 * MS])
    recorder = Recorder(0, 0, S, cpu=lambda: next(used))
    recorder.ok(MS, 0, 0, 1, 1)
    step = step_of(recorder.finish(S, []), concurrency=1)
    assert step.client.cpu_share == 0.95
    assert step.client.bottleneck
    assert "client process used 95% of a core" in step.client.reason


def test_settling_is_seen() -> None:
    def slices(*oks: int) -> list[Slice]:
        recorder = Recorder(0, 0, NEVER)
        for number, ok in enumerate(oks):
            for at in range(ok):
                recorder.ok(number * SLICE_NS + at + 1, number * SLICE_NS + at - 5 * MS, 0, 1, 1)
            recorder.tick((number + 1) * SLICE_NS)
        return recorder.finish(len(oks) * SLICE_NS, []).slices[: len(oks)]

    assert not settled([slices(1000, 1000, 1000)]), "less than a second"
    assert settled([slices(10, 1000, 1010, 990, 1000)])
    assert not settled([slices(1000, 100, 200, 1000, 1000)])
    assert not settled([slices(1000, 1000, 0, 0, 0)])
    assert not settled([slices(1000, 1000, 1000, 1000), slices(1, 1)])

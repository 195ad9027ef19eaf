"""Groups of processes: nobody gets away, and what each takes is counted."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from servable.core.errors import ServingError
from servable.lab.processes import Process, ProcessGroup, Usage, free_ports, server_cost

STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1] + "/" + str(os.getpid()), "w").close()
if os.fork() == 0:
    open(sys.argv[1] + "/" + str(os.getpid()), "w").close()
    if os.fork() == 0:
        os.setsid()
        open(sys.argv[1] + "/" + str(os.getpid()), "w").close()
        time.sleep(1000)
    os._exit(0)  # leaves its child an orphan in a session of its own
time.sleep(1000)
"""
FORKING = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    if os.fork() == 0:
        time.sleep(0.05)
        os._exit(0)
    time.sleep(0.001)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError: pass
"""
BUSY = """
import time
held = bytearray(50_000_000)
print("here", flush=True)
end = time.monotonic() + 30
while time.monotonic() < end: pass
"""


def until(condition: Callable[[], bool], limit_s: float = 15.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


Start = Callable[..., ProcessGroup]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start programs, which end with the test also if it fails."""
    with contextlib.ExitStack() as started:

        def starting(program: str, *arguments: str, **options: Any) -> ProcessGroup:
            group = ProcessGroup([sys.executable, "-c", program, *arguments], log=tmp_path / "log", **options)
            started.callback(group.end, 0.0)
            return group

        yield starting


def test_who_ignores_sigterm_forks_and_leaves_the_session_is_ended(start: Start, tmp_path: Path) -> None:
    here = tmp_path / "pids"
    here.mkdir()
    group = start(STUBBORN, str(here))
    until(lambda: len(list(here.iterdir())) == 3)
    pids = [int(path.name) for path in here.iterdir()]
    until(lambda: len([pid for pid in pids if alive(pid)]) == 2)
    assert {process.pid for process in group.members()} == {pid for pid in pids if alive(pid)}
    group.end(grace_s=0.05)
    assert not [pid for pid in pids if alive(pid)]
    group.end()


def test_who_forks_all_the_time_is_ended(start: Start) -> None:
    group = start(FORKING)
    until(lambda: len(group.members()) > 3)
    group.end(grace_s=0.0)
    assert group.members() == []


def test_a_paused_group_is_ended_too(start: Start) -> None:
    group = start(BUSY)
    until(lambda: "here" in group.tail())
    until(group.wants_cpu)
    group.pause()
    until(lambda: _state(group.pid) == "T")
    assert not group.wants_cpu()
    before = group.usage()
    group.resume()
    until(lambda: sum(usage.cpu_s for usage in group.usage().values()) > _cpu(before))
    group.pause()
    group.end(grace_s=0.05)
    assert not alive(group.pid)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _cpu(usage: dict[Process, Usage]) -> float:
    return sum(one.cpu_s for one in usage.values())


# The signal may come between the opening of a file and its ``with``.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_while_it_waits_leaves_no_process(start: Start, tmp_path: Path) -> None:
    here = tmp_path / "pids"
    here.mkdir()
    group = start(STUBBORN, str(here))
    until(lambda: len(list(here.iterdir())) == 3)
    pids = [int(path.name) for path in here.iterdir()]
    previous = signal.signal(signal.SIGALRM, _interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            group.end(grace_s=60)
    finally:
        signal.signal(signal.SIGALRM, previous)
    until(lambda: not any(alive(pid) for pid in pids))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_cpu_time_and_memory_of_a_process_are_read(start: Start) -> None:
    with start(BUSY, cores=[sorted(os.sched_getaffinity(0))[0]]) as group:
        until(lambda: "here" in group.tail())
        before = group.usage()
        until(lambda: _cpu(group.usage()) - _cpu(before) >= 0.2)
        cost = server_cost(before, group.usage(), wall_s=1.0, requests=1000)
        assert os.sched_getaffinity(group.pid) == {min(os.sched_getaffinity(0))}
    (process,) = cost.processes
    assert process.pid == group.pid
    assert process.rss_bytes > 50_000_000
    assert cost.cpu_us_per_request == pytest.approx(cost.cpu_s * 1000)


def test_the_cost_counts_who_is_new_from_its_begin_and_children_that_ended() -> None:
    old, new = Process(10, 1), Process(11, 2)
    before = {old: Usage("master", 1.0, 0.5, 0.0, 100)}
    after = {old: Usage("master", 1.5, 1.0, 0.25, 300), new: Usage("worker", 0.5, 0.25, 0.0, 200)}
    cost = server_cost(before, after, wall_s=2.0, requests=4)
    assert [(one.name, one.cpu_s) for one in cost.processes] == [("master", 1.25), ("worker", 0.75)]
    assert (cost.cpu_s, cost.cpu_share, cost.rss_bytes, cost.cpu_us_per_request) == (2.0, 1.0, 500, 500_000.0)


def test_what_it_prints_is_kept(start: Start) -> None:
    with start("import sys\nfor n in range(9): print('line', n)\nsys.exit('no such model')") as group:
        until(lambda: group.exit_code() is not None)
        assert group.exit_code() == 1
        assert group.tail(2) == "line 8\nno such model" or group.tail(2) == "no such model\nline 8"


def test_a_command_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="cannot start /nowhere/server"):
        ProcessGroup(["/nowhere/server"], log=tmp_path / "log")


def test_free_ports_differ() -> None:
    assert len(set(free_ports(5))) == 5

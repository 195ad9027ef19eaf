"""Servers within limits: what was asked for becomes cases; who needs too much memory is ended, and says so."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from servable.cli import DONE, main
from servable.core.errors import ServingError
from servable.lab.limits import Case, Limits, asked_cases, four_cases, parse_memory, parse_pin
from servable.lab.memory_limit import MemoryWatch
from servable.lab.processes import ProcessGroup
from servable.lab.restrict import Plan, restrict
from servable.lab.restrict_page import restriction_report, restriction_table
from servable.lab.restriction import Restriction, Row
from servable.lab.subject import example_subject
from servable.report.html import write_html

HOG = """
import sys, time
held = []
print("begun", flush=True)
while True:
    held.append(bytearray(4 << 20))
    time.sleep(0.005)
"""


def test_sizes_are_read_as_docker_does() -> None:
    assert [parse_memory(text) for text in ("1g", "512m", "1.5G", "64k", "100", "2GiB")] == [
        2**30, 2**29, 3 * 2**29, 2**16, 100, 2**31,
    ]  # fmt: skip
    for text in ("", "0", "g", "-1g", "1x"):
        with pytest.raises(ServingError, match="is no size"):
            parse_memory(text)


def test_pins_name_cores_that_there_are() -> None:
    assert parse_pin("model1=0", [0, 1]) == ("model1", (0,))
    assert parse_pin("all=0,1,0", [0, 1]) == ("all", (0, 1))
    for text, said in (("model1", "pins nothing"), ("=1", "pins nothing"), ("a=x", "pins nothing"), ("a=7", "core 7")):
        with pytest.raises(ServingError, match=said):
            parse_pin(text, [0, 1])


def test_what_is_asked_for_becomes_cases() -> None:
    cases = asked_cases(1, 2**30, [("model1", (0,)), ("model2", (1,)), ("all", (0, 1))], [0, 1])
    assert cases == [
        Case("one CPU, 1 GiB", (("model1", Limits((0,), 2**30, 1)),)),
        Case("model1 on core 0, model2 on core 1", (("model1", Limits((0,), 2**30)), ("model2", Limits((1,), 2**30)))),
        Case("both on cores 0, 1", (("model1", Limits((0, 1), 2**30)), ("model2", Limits((0, 1), 2**30)))),
    ]
    assert asked_cases(None, None, [], [0, 1]) == []
    assert asked_cases(1.5, None, [], [0, 1])[0].servers == (("model1", Limits((0, 1), None, 1.5)),)
    for cpus in (0, 3):
        with pytest.raises(ServingError, match="may use 2"):
            asked_cases(cpus, None, [], [0, 1])
    with pytest.raises(ServingError, match="pinned once"):
        asked_cases(None, None, [("a", (0,)), ("a", (1,))], [0, 1])


def test_the_four_cases() -> None:
    one, small, apart, together = four_cases([0, 1])
    assert one.servers == (("model1", Limits((0,))),)
    assert small.servers == (("model1", Limits((0,), 2**30)),)
    assert apart.servers == (("model1", Limits((0,))), ("model2", Limits((1,))))
    assert together.servers == (("model1", Limits((0, 1))), ("model2", Limits((0, 1))))
    assert four_cases([3])[2].lacking == "this process may use one core only"


def test_who_holds_too_much_is_ended(tmp_path: Path) -> None:
    killed: list[bool] = []

    async def follow() -> MemoryWatch:
        with ProcessGroup([sys.executable, "-c", HOG], log=tmp_path / "log") as group:
            watch = MemoryWatch(100 << 20)
            following = asyncio.create_task(watch.follow(lambda: group, lambda: killed.append(True)))
            async with asyncio.timeout(15):
                while not killed:
                    await asyncio.sleep(0.01)
            assert group.members() == []
            following.cancel()
            return watch

    watch = asyncio.run(follow())
    assert watch.verdict.startswith("out of memory: 1")
    assert watch.peak_bytes > watch.limit_bytes


def test_a_server_out_of_memory_is_a_row_and_others_go_on(tmp_path: Path) -> None:
    core = (min(os.sched_getaffinity(0)),)
    cases = [
        Case("too little", (("model1", Limits(core, 16 << 20)),)),
        Case("together", (("model1", Limits(core)), ("model2", Limits(core, 4 << 30)))),
        Case("not here", (), "this machine has no such thing"),
    ]
    plan = Plan(cases, example_subject("half_plus_two", tmp_path, count=3), 2, 0.3, 0.05)
    lines: list[str] = []
    found = asyncio.run(restrict(plan, lines.append))
    small, first, second, absent = found.rows
    assert small.out_of_memory
    assert small.throughput_per_s is None
    assert small.held_by in {"affinity, watchdog", "affinity, control group"}
    for row in (first, second):
        assert row.reason == ""
        assert row.ok == row.verified > 0
        assert row.errors == row.wrong == 0
        assert row.cpu_share is not None
        assert row.cpu_share <= 1.1, "one core"
        assert row.cores == core
    assert absent.reason == "this machine has no such thing"
    assert any("out of memory" in line for line in lines)
    report = restriction_report(found)
    assert report.verdict.startswith("Out of memory: too little")
    assert "out of memory" in write_html(report)
    assert len(restriction_table(found.rows).rows) == 4


def test_a_report_without_trouble_says_so() -> None:
    row = Row(
        "one model", "model1", (0,), client_cores=(0, 1), ok=9, verified=9, throughput_per_s=9.0, p50_ms=1.0, p99_ms=2.0
    )
    report = restriction_report(Restriction("m", (row,), 4, 1.0))
    assert report.verdict == "All 9 answers were compared, all right"
    assert "no core of its own" in getattr(report.lead[0], "text", "")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    core = min(os.sched_getaffinity(0))
    words = ["bench", "restrict", "half_plus_two", "--seconds", "0.3", "--warmup", "0", "--json", "--quiet"]
    assert main([*words, "--pin", f"tiny={core}"]) == DONE
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "servable.restrict/1"
    assert [row["server"] for row in document["rows"]] == ["tiny"]
    assert document["rows"][0]["wrong"] == 0


def test_a_signal_ends_it_in_order() -> None:
    words = [sys.executable, "-m", "servable", "bench", "restrict", "half_plus_two", "--seconds", "60"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as running:
        try:
            assert running.stderr is not None
            assert running.stderr.readline() == "one CPU: starting\n"
            children = psutil.Process(running.pid).children(recursive=True)
            running.send_signal(signal.SIGTERM)
            assert running.wait(30) == 128 + signal.SIGTERM
            assert running.stderr.read() == ""
            assert psutil.wait_procs(children, timeout=10)[1] == []
        finally:
            running.kill()

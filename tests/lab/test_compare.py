"""Comparisons of small servers, right and faulty ones: every contestant gets a row, no process is left."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from servable.core.errors import ServingError, failed_precondition
from servable.lab.compare import Plan, compare, turns
from servable.lab.comparison import Comparison, Conditions, Row, encode, read
from servable.lab.contestants import Contestant
from servable.lab.peers import Command, Door, Placement
from servable.lab.processes import MARK
from servable.lab.subject import Subject, example_subject

RIVAL = Path(__file__).parent / "rival.py"


class Rival(Contestant):
    """The server in ``rival.py`` with one of its faults."""

    def __init__(self, label: str, fault: str = "none", *, start_limit_s: float = 20.0, lacking: str = "") -> None:
        self.label = label
        self.start_limit_s = start_limit_s
        self._fault = fault
        self._lacking = lacking

    def prepare(self, report: object) -> None:
        if self._lacking:
            raise failed_precondition(self._lacking)

    def command(self, placement: Placement) -> Command:
        return Command([sys.executable, str(RIVAL), str(placement.ports[0]), self._fault], {}, placement.folder)

    def doors(self, placement: Placement) -> list[Door]:
        return [Door(f"http://127.0.0.1:{placement.ports[0]}/half_plus_two", "tfserving-rest")]

    def ready_url(self, placement: Placement) -> str | None:
        return f"http://127.0.0.1:{placement.ports[0]}/"


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    made = example_subject("half_plus_two", tmp_path, count=3)
    # These servers have the model in them.
    made.artifacts["onnx"] = tmp_path
    return made


@pytest.fixture(autouse=True)
def quick_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servable.lab.contender._END_S", 0.3)


def plan(
    subject: Subject,
    *contestants: Contestant,
    concurrencies: Sequence[int] = (2,),
    rounds: int = 2,
    fresh: bool = False,
) -> Plan:
    conditions = Conditions(rounds, 0.15, 0.05, threads=1, batch_rows=1, batch_wait_ms=0, fresh=fresh)
    return Plan(contestants, subject, conditions, concurrencies)


def run(wanted: Plan) -> Comparison:
    lines: list[str] = []
    found = asyncio.run(compare(wanted, lines.append))
    assert marked() == [], "processes are left"
    return found


def marked() -> list[int]:
    """The servers that a comparison has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            is_rival = b"rival.py" in (path / "cmdline").read_bytes()
            if is_rival and f"{MARK}=".encode() in (path / "environ").read_bytes() and state not in "ZX":
                found.append(int(path.name))
        except OSError:
            continue
    return found


def only(found: Comparison, label: str) -> Row:
    (row,) = [row for row in found.rows if row.contestant == label]
    return row


def test_rounds_go_forwards_and_backwards() -> None:
    assert turns(3, 4) == [[0, 1, 2], [2, 1, 0], [0, 1, 2], [2, 1, 0]]
    assert turns(1, 1) == [[0]]


def test_two_servers_are_compared(subject: Subject, tmp_path: Path) -> None:
    reported: list[str] = []
    wanted = plan(subject, Rival("first"), Rival("second", "late"), rounds=3)
    found = asyncio.run(compare(wanted, reported.append))
    assert [(row.contestant, row.concurrency) for row in found.rows] == [("first", 2), ("second", 2)]
    for row in found.rows:
        assert [block.round for block in row.blocks] == [0, 1, 2]
        assert row.failures == 0
        assert row.reason == ""
        assert row.throughput_per_s is not None
        assert row.throughput_per_s.low is not None
        assert row.cpu_us_per_request is not None
        assert row.rss_bytes is not None
        assert row.rss_bytes > 5_000_000
        assert all(block.verified >= block.ok for block in row.blocks)
        assert {process.name for block in row.blocks for process in block.processes} == {"rival.py"}
    first, second = found.rows
    assert (first.reference, second.reference) == ("", "first REST")
    assert first.throughput_ratio is None
    assert second.throughput_ratio is not None
    measured = [line.split("]")[1].split(" REST")[0].strip() for line in reported if line.startswith("[")]
    assert measured == ["first", "second", "second", "first", "first", "second"]
    kept = tmp_path / "comparison.json"
    kept.write_bytes(encode(found))
    assert read(kept) == found
    assert marked() == []


def test_who_fails_is_a_row_with_the_reason(subject: Subject) -> None:
    found = run(
        plan(
            subject,
            Rival("right"),
            Rival("not installed", lacking="pip failed: no such package"),
            Rival("dies", "dies"),
            Rival("deaf", "deaf", start_limit_s=0.5),
            Rival("wrong", "wrong"),
            Rival("stubborn", "stubborn"),
            rounds=1,
        )
    )
    assert only(found, "not installed").reason == "pip failed: no such package"
    assert only(found, "dies").reason == "ended with exit code 1\nthere is no such model"
    assert only(found, "deaf").reason.startswith("was not ready after 0.5 s")
    assert only(found, "wrong").reason == "answered wrongly: 3 of 3 answers are not the model's"
    for label in ("not installed", "dies", "deaf", "wrong"):
        assert only(found, label).blocks == ()
        assert only(found, label).throughput_per_s is None
    for row in (row for row in found.rows if row.contestant in {"right", "stubborn"}):
        assert sum(block.ok for block in row.blocks) > 0, row


def test_servers_can_be_started_anew_for_each_round(subject: Subject) -> None:
    found = run(plan(subject, Rival("fresh", "stubborn"), fresh=True))
    pids = [{process.pid for block in row.blocks for process in block.processes} for row in found.rows]
    assert [len(row.blocks) for row in found.rows] == [2]
    assert len(pids[0]) == 2


def test_who_ends_in_the_middle_keeps_its_numbers_and_the_others_go_on(subject: Subject) -> None:
    found = run(plan(subject, Rival("stops", "stops"), Rival("right"), rounds=2))
    reasons = {row.reason for row in found.rows if row.contestant == "stops"}
    assert len(reasons) == 1
    assert "had enough" in reasons.pop()
    right = [row for row in found.rows if row.contestant == "right"]
    assert [len(row.blocks) for row in right] == [2]


def test_who_answers_with_errors_is_a_row_with_the_reason(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servable.lab.contender._SETTLE_S", 0.2)
    found = run(plan(subject, Rival("error", "error"), rounds=1))
    assert only(found, "error").reason.startswith("answered 3 requests with errors: HTTP 500: out of order")


def test_an_interrupt_keeps_what_was_measured_and_leaves_no_process(subject: Subject) -> None:
    def report(line: str) -> None:
        if line.startswith("[1/3] second"):
            os.kill(os.getpid(), signal.SIGINT)

    contestants = Rival("first"), Rival("second", "stubborn"), Rival("third")
    wanted = plan(subject, *contestants, concurrencies=(1, 4), rounds=3)
    found = asyncio.run(compare(wanted, report))
    assert found.interrupted
    assert [(row.contestant, row.concurrency, len(row.blocks)) for row in found.rows[:3]] == [
        ("first", 1, 1), ("first", 4, 1), ("second", 1, 1),
    ]  # fmt: skip
    assert only(found, "third").reason == "the comparison was stopped"
    assert marked() == []


def test_a_contestant_takes_part_once(subject: Subject) -> None:
    with pytest.raises(ServingError, match="takes part once, and same is there twice"):
        plan(subject, Rival("same"), Rival("same"))


def test_a_comparison_of_nobody_is_refused(subject: Subject) -> None:
    with pytest.raises(ServingError, match="nobody"):
        plan(subject)
    with pytest.raises(ServingError, match="at least one round"):
        plan(subject, Rival("one"), rounds=0)

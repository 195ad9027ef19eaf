"""From blocks to rows: rates, ratios to the first contestant, reasons; and the file form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from servable.core.errors import ServingError
from servable.lab.comparison import Block, Comparison, Conditions, Row, block_of, encode, read, row_of, with_ratios
from servable.lab.comparison_page import comparison_report
from servable.lab.result import ErrorKind, Latency, ServerCost, ServerProcess, Step
from servable.report.blocks import Table

CONDITIONS = Conditions(3, 1.0, 0.1, threads=1, batch_rows=32, batch_wait_ms=1.0)


def block(number: int, rate: float, p50_ms: float = 1.0, *, ok: int = 100, cpu_us: float | None = 50.0) -> Block:
    return Block(number, 1.0, ok, 0, 0, ok, rate, p50_ms, p50_ms, p50_ms, p50_ms, cpu_us_per_request=cpu_us)


def row(contestant: str, protocol: str, concurrency: int, *rates: float) -> Row:
    return row_of(contestant, protocol, "wire", concurrency, [block(n, rate) for n, rate in enumerate(rates)])


def test_ratios_are_to_the_first_contestants_row_of_the_same_protocol_and_concurrency() -> None:
    rows = with_ratios(
        [
            row("first", "gRPC", 1, 100, 100, 100),
            row("first", "REST", 1, 50, 50, 50),
            row("first", "REST", 32, 10, 20, 40),
            row("second", "REST", 1, 100, 100, 100),
            row("second", "REST", 32, 5, 10, 20),
            row("third", "gRPC", 1, 10, 20, 40),
            row("third", "gRPC", 8, 10, 20, 40),
        ]
    )
    assert [one.reference for one in rows] == ["", "", "", "first REST", "first REST", "first gRPC", ""]
    values = [None if one.throughput_ratio is None else one.throughput_ratio.value for one in rows]
    assert values == [None, None, None, pytest.approx(2), pytest.approx(0.5), pytest.approx(0.2), None]
    halved = rows[4].throughput_ratio
    assert halved is not None
    assert [halved.low, halved.high] == pytest.approx([0.5, 0.5]), "rounds were not paired"


def test_a_contestant_without_the_protocol_is_measured_against_the_first_protocol() -> None:
    rows = with_ratios([row("first", "gRPC", 1, 100, 100), row("second", "REST", 1, 50, 50)])
    assert rows[1].reference == "first gRPC"
    assert rows[1].throughput_ratio is not None
    assert rows[1].throughput_ratio.value == pytest.approx(0.5)


def test_rounds_that_one_of_them_missed_do_not_pair() -> None:
    missed = row_of("second", "gRPC", "wire", 1, [block(2, 30), block(1, 20)])
    rows = with_ratios([row("first", "gRPC", 1, 999, 10, 10), missed])
    assert [one.round for one in rows[1].blocks] == [1, 2]
    assert rows[1].throughput_ratio is not None
    assert rows[1].throughput_ratio.value == pytest.approx(6**0.5)


def test_blocks_without_a_right_answer_give_no_rate_but_show() -> None:
    failed = Block(0, 1.0, 0, 7, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, error_kinds=(ErrorKind("HTTP 503", "busy", 7),))
    found = row_of("one", "REST", "wire", 1, [failed])
    assert (found.throughput_per_s, found.failures) == (None, 7)
    assert found.reason == "no right answer: HTTP 503: busy"
    wrong = Block(0, 1.0, 0, 0, 3, 3, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert row_of("one", "REST", "wire", 1, [wrong]).reason == "no right answer: 3 were wrong"
    silent = Block(0, 1.0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert row_of("one", "REST", "wire", 1, [silent]).reason == "no right answer: none came in time"


def test_a_rate_of_few_answers_comes_from_their_latency() -> None:
    few = Step("32 in flight", 64, 0, 0, concurrency=32, throughput_per_s=20, latency=Latency(64, mean_ms=4000.0))
    many = Step("32 in flight", 1600, 0, 0, concurrency=32, throughput_per_s=800, latency=Latency(1600, mean_ms=39.0))
    failing = Step("32 in flight", 64, 1, 0, concurrency=32, throughput_per_s=20, latency=Latency(64, mean_ms=4000.0))
    assert (block_of(few, 0).throughput_per_s, block_of(few, 0).rate_from) == (8.0, "latency")
    assert (block_of(many, 0).throughput_per_s, block_of(many, 0).rate_from) == (800, "count")
    assert (block_of(failing, 0).throughput_per_s, block_of(failing, 0).rate_from) == (20, "count")


def test_processes_that_did_nothing_are_left_out() -> None:
    processes = (ServerProcess(1, "busy", 1.0, 0.5, 10), ServerProcess(2, "idle", 0.0, 0.0, 20))
    step = Step("1 in flight", 9, 0, 0, server=ServerCost(processes, 1.0, 0.5, 30, 111.0))
    found = block_of(step, 4)
    assert ([one.name for one in found.processes], found.rss_bytes, found.cpu_us_per_request) == (["busy"], 30, 111.0)


def test_a_file_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    found = Comparison(
        "model", with_ratios([row("first", "gRPC", 1, 100, 90, 95)]), CONDITIONS, versions={"a": {"b": "1"}}
    )
    path = tmp_path / "comparison.json"
    path.write_bytes(encode(found))
    assert read(path) == found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"model": "m", "rows": 3}', "is no comparison"),
        ("not json", "is no comparison"),
        (
            encode(Comparison("m", (), CONDITIONS)).decode().replace("compare/1", "compare/9"),
            "expected 'servable.compare/1'",
        ),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "comparison.json"
    path.write_text(text)
    with pytest.raises(ServingError, match=problem):
        read(path)
    with pytest.raises(ServingError, match="cannot read"):
        read(tmp_path / "nothing.json")


def test_the_report_says_which_process_took_the_cpu_time() -> None:
    blocks = [
        replace(
            block(n, 100.0), processes=(ServerProcess(1, "proxy", 1, 0.2, 1), ServerProcess(2, "worker", 1, share, 1))
        )
        for n, share in enumerate((0.5, 0.7))
    ]
    rows = (row_of("one", "REST", "wire", 8, blocks), row("other", "REST", 8, 100.0))
    report = comparison_report(Comparison("model", rows, CONDITIONS))
    (section,) = [one for one in report.sections if one.title == "CPU time by process"]
    (table,) = section.blocks
    assert isinstance(table, Table)
    assert table.rows == [("one", "REST", 8, "worker 60%, proxy 20%")]


def test_who_never_ran_has_a_row_of_its_own() -> None:
    rows = (row("one", "REST", 8, 100.0), row_of("absent", "", "", 0, (), "cannot be installed"))
    report = comparison_report(Comparison("model", rows, CONDITIONS))
    (section,) = [one for one in report.sections if one.title == "Not measured"]
    (table,) = section.blocks
    assert isinstance(table, Table)
    assert table.rows == [("absent", "all", "cannot be installed")]

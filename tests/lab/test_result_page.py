"""What is made of results: failures first, doubts said, numbers complete."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import pytest
from tests.lab import measured

from servable.lab.comparison_page import comparison_report, comparison_table
from servable.lab.page import report_of, steps_table
from servable.lab.result import Latency, Search
from servable.report.blocks import Figures, Notice, Report, Tone
from servable.report.delimited import write_csv
from servable.report.html import write_html
from servable.report.markdown import write_markdown
from servable.report.plots import BarPlot, HistogramPlot, LinePlot
from servable.report.terminal import print_report


def notices(report: Report, tone: Tone) -> list[str]:
    return [block.text for block in report.lead if isinstance(block, Notice) and block.tone is tone]


def plot(report: Report, title: str) -> LinePlot | BarPlot | HistogramPlot:
    found = [block for section in report.sections for block in section.blocks if getattr(block, "title", "") == title]
    assert len(found) == 1, [getattr(block, "title", "") for section in report.sections for block in section.blocks]
    return found[0]  # type: ignore[return-value]


def test_a_clean_run_is_good_and_complete() -> None:
    result = measured.sweep()
    report = report_of(result)
    assert report.tone is Tone.GOOD
    assert "252,500 requests succeeded" in report.verdict
    assert not notices(report, Tone.BAD)
    assert [section.title for section in report.sections] == [
        "Steps", "Load", "Latency", "Over time", "Where the time goes", "Conditions",
    ]  # fmt: skip
    text = write_markdown(report)
    for known in (
        "EXAMPLE 9000",
        "uvloop 0.23.0",
        "servable bench grpc://127.0.0.1:8500 --concurrency 1,2,4",
        "closed loop",
    ):
        assert known in text
    for step in result.steps:
        assert f"{step.throughput_per_s:,.0f}" in write_html(report)


def test_a_run_with_failures_does_not_look_good() -> None:
    report = report_of(measured.failing())
    assert report.tone is Tone.BAD
    assert report.verdict == "2,600 failed and 35 wrong of 106,135 requests (2.48%)"
    bad = notices(report, Tone.BAD)
    assert any("16 in flight: 9.09% of the requests failed (2,600 UNAVAILABLE)" in text for text in bad)
    assert any("32 in flight: 35 answers were wrong" in text for text in bad)
    warned = " ".join(notices(report, Tone.WARNING))
    for doubt in ("the client was the bottleneck", "9.00% of the CPU time", "still moved", "stopped by hand"):
        assert doubt in warned, doubt
    figures = next(block for block in report.lead if isinstance(block, Figures))
    shown = {item.label: item for item in figures.items}
    # The fastest loads failed: what is shown first is the fastest that did not.
    assert shown["Right answers"].note == "4 in flight"
    assert shown["Failures"].tone is Tone.BAD
    lines = plot(report, "Latency against throughput")
    assert isinstance(lines, LinePlot)
    assert {series.name: len(series.points) for series in lines.series} == {
        "p50": 2, "p99": 2, "p99 of loads with failures": 2,
    }  # fmt: skip
    assert [mark.value for mark in lines.marks] == [0.005]


def test_a_run_that_only_failed_shows_no_speed() -> None:
    report = report_of(measured.empty())
    assert report.verdict == "12 failed of 12 requests (100%)"
    figures = next(block for block in report.lead if isinstance(block, Figures))
    assert {item.tone for item in figures.items if item.label in {"Right answers", "Median"}} == {Tone.BAD}
    write_html(report)


def test_nothing_at_all_is_a_report_too() -> None:
    report = report_of(measured.result())
    assert (report.tone, report.verdict) == (Tone.BAD, "Nothing was answered")
    assert write_html(report)
    assert steps_table(measured.result()).rows == []


def test_unverified_answers_and_a_busy_client_are_no_clean_bill() -> None:
    step = replace(measured.step("1 in flight", 500, 2.0), verified=0)
    assert report_of(measured.result(step)).tone is Tone.WARNING
    busy = replace(step, verified=9, client=replace(step.client, bottleneck=True))
    assert "the client was the bottleneck" in report_of(measured.result(busy)).verdict


def test_percentiles_that_no_answer_supports_are_not_shown() -> None:
    step = replace(measured.step("few", 50, 2.0), latency=Latency(50, 2, 1, 2, 3, 3, 4, 5, 5))
    table = steps_table(measured.result(step))
    row = dict(zip([column.label for column in table.columns], table.rows[0], strict=True))
    assert row["p90"] == 0.003
    assert row["p50"] == 0.002
    assert "p99" not in row
    assert "p99.9" not in row


def test_what_holds_for_several_loads_is_said_once() -> None:
    steps = [replace(measured.step(f"{n} in flight", 500, 2.0), steady=False, notes=("busy",)) for n in (1, 2)]
    report = report_of(measured.result(*steps))
    assert notices(report, Tone.WARNING) == [
        "1 in flight, 2 in flight: rate or median still moved during the measurement."
    ]
    assert notices(report, Tone.PLAIN) == ["1 in flight, 2 in flight: busy"]


def test_the_histogram_counts_every_right_answer() -> None:
    step = measured.step("1 in flight", 500, 2.0)
    found = plot(report_of(measured.result(step)), "Distribution, 1 in flight")
    assert isinstance(found, HistogramPlot)
    assert sum(found.counts) == step.latency.count
    assert min(found.counts) >= 0
    middle = found.edges[max(range(len(found.counts)), key=found.counts.__getitem__)]
    assert 0.0014 < middle < 0.0026


def test_the_last_part_of_a_second_is_no_dip() -> None:
    step = measured.step("1 in flight", 500, 2.0, seconds=3)
    half = replace(step.seconds[2], ok=250)
    step = replace(step, duration_s=2.5, seconds=(*step.seconds[:2], half))
    rate = plot(report_of(measured.result(step)), "Rate")
    assert isinstance(rate, LinePlot)
    assert rate.series[0].finite()[-1].y == 500


def test_without_the_library_of_histograms_the_rest_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    result = measured.sweep()
    monkeypatch.setitem(sys.modules, "hdrh", None)
    report = report_of(result)
    latency = next(section for section in report.sections if section.title == "Latency")
    assert "servable[lab]" in str(latency.blocks)
    assert plot(report, "Latency against throughput")


def test_a_search_that_found_nothing_is_bad() -> None:
    report = report_of(measured.result(measured.step("500/s", 500, 2.0), search=Search("p99=1ms", None, 500.0, 3)))
    figures = next(block for block in report.lead if isinstance(block, Figures))
    assert (figures.items[0].value, figures.items[0].tone) == ("none", Tone.BAD)


def test_names_from_a_server_steer_no_terminal() -> None:
    result = measured.sweep()
    evil = replace(result, target=replace(result.target, model="m\x1b]0;owned\x07"))
    out = io.StringIO()
    print_report(report_of(evil), out)
    assert "\x1b" not in out.getvalue()


def test_a_comparison_says_who_failed_and_who_was_not_there() -> None:
    comparison = measured.comparison()
    report = comparison_report(comparison)
    assert report.tone is Tone.BAD
    assert report.verdict == "Failed requests or wrong answers: flask + gunicorn"
    assert len(notices(report, Tone.BAD)) == 4
    assert notices(report, Tone.WARNING) == ["mosec: cannot be installed: no such version"]
    section = report.sections[1]
    assert section.title == "gRPC, 32 in flight"
    rates = next(block for block in section.blocks if isinstance(block, BarPlot))
    bars = {bar.label: bar for bar in rates.bars}
    assert bars["mosec"].value is None
    assert bars["flask + gunicorn"].bad
    assert not bars["servable"].bad
    for bar in (bars["servable"], bars["tensorflow_model_server"]):
        assert bar.low is not None
        assert bar.value is not None
        assert bar.high is not None
        assert bar.low < bar.value < bar.high
    assert "0.52" in write_markdown(report)
    assert write_html(report) == write_html(comparison_report(comparison))
    assert write_csv(comparison_table(comparison.rows)).count("\n") == 1 + len(comparison.rows)


def test_a_comparison_says_once_whom_client_and_hypervisor_held_back() -> None:
    comparison = measured.comparison()
    held = [
        replace(row, blocks=tuple(replace(b, client_bottleneck=True, cpu_steal_share=0.07) for b in row.blocks))
        if row.contestant == "servable"
        else row
        for row in comparison.rows
    ]
    said = notices(comparison_report(replace(comparison, rows=tuple(held))), Tone.WARNING)
    assert [text.count("servable, ") for text in said] == [0, 4, 4]
    assert "took up to 7.00%" in said[2]


def test_a_long_sweep_is_a_page_of_moderate_size() -> None:
    steps = [measured.step(f"{number} in flight", 100, 2.0, seconds=10) for number in range(1, 65)]
    assert len(write_html(report_of(measured.result(*steps)))) < 600_000


def test_a_comparison_of_nobody_is_a_report() -> None:
    comparison = replace(measured.comparison(), rows=())
    assert comparison_report(comparison).verdict == "Nothing was measured"
    assert write_html(comparison_report(comparison))

"""One report as Markdown, CSV and terminal text: what was given is there, and nothing of it is markup."""

from __future__ import annotations

import csv
import io
import math

import pytest

from servable.report.blocks import Cell, Column, Facts, Interval, Notice, Report, Section, Table, Tone, Toned
from servable.report.delimited import write_csv
from servable.report.markdown import table_markdown, write_markdown
from servable.report.plots import Axis, Bar, BarPlot, HistogramPlot
from servable.report.terminal import print_report
from servable.report.units import NOTHING, PER_SECOND, RATIO, SECONDS

EVIL = "a<b>&|c\n`d`\x1b[31m*e*"

BARS = (Bar("a", 1.0), Bar("b", 0.5, 0.4, 0.6), Bar("c", None, reason="gone"))

TABLE = Table(
    (Column("load"), Column("rate", PER_SECOND), Column("p50", SECONDS), Column("p99", SECONDS), Column("wrong")),
    (
        ("1 in flight", 1900.0, 0.00052, 0.0011, 0),
        ("32 in flight", Interval(5150.0, 5100.0, 5200.0), 0.0061, math.nan, Toned(35, Tone.BAD)),
        (EVIL, None, 0.0, math.inf, 0),
    ),
)


def test_markdown_is_a_table_with_one_unit_a_column() -> None:
    assert table_markdown(TABLE) == (
        "| load | rate (1/s) | p50 (ms) | p99 (ms) | wrong |\n"
        "| --- | --: | --: | --: | --: |\n"
        "| 1 in flight | 1,900 | 0.520 | 1.10 | 0 |\n"
        f"| 32 in flight | 5,150 [5,100, 5,200] | 6.10 | {NOTHING} | ✕ 35 |\n"
        f"| a\\<b\\>&amp;\\|c \\`d\\`\N{REPLACEMENT CHARACTER}\\[31m\\*e\\* | {NOTHING} | 0 | ∞ | 0 |"
    )


def test_csv_has_whole_numbers_in_base_units_and_gives_text_back_unchanged() -> None:
    rows = list(csv.reader(io.StringIO(write_csv(TABLE), newline="")))
    assert rows[0] == ["load", "rate (1/s)", "rate (1/s) low", "rate (1/s) high", "p50 (s)", "p99 (s)", "wrong"]
    assert rows[1] == ["1 in flight", "1900.0", "", "", "0.00052", "0.0011", "0"]
    assert rows[2] == ["32 in flight", "5150.0", "5100.0", "5200.0", "0.0061", "", "35"]
    assert rows[3] == [EVIL, "", "", "", "0.0", "inf", "0"]
    assert write_csv(TABLE).count("\r\n") == 4


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="row 0 has 1 cells, there are 2 columns"):
        Table((Column("a"), Column("b")), ((1,),))


def test_edges_that_do_not_fit_the_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="2 counts need 3 edges, not 2"):
        HistogramPlot("t", Axis("x"), (0.0, 1.0), (1, 2))


def report() -> Report:
    bars = BarPlot("Rate", Axis("ratio", RATIO), BARS)
    facts = Facts((("Command", f"run {EVIL}"),), code=True)
    sections = (Section("Numbers", (TABLE, bars)), Section("How", (facts,)))
    return Report(EVIL, "sub", "35 wrong", Tone.BAD, (Notice(EVIL, Tone.BAD),), sections)


def test_markdown_of_a_whole_report() -> None:
    text = write_markdown(report())
    assert text.startswith("# a\\<b\\>&amp;\\|c")
    assert "**35 wrong**" in text
    assert "> **Failure:** a\\<b" in text
    assert "| b | 0.500 [0.400, 0.600] |  |" in text
    assert f"| c | {NOTHING} | gone |" in text
    assert "\x1b" not in text
    assert write_markdown(report()) == text


def test_a_pipe_gets_plain_lines_with_whole_numbers() -> None:
    out = io.StringIO()
    print_report(report(), out)
    text = out.getvalue()
    assert "\x1b" not in text
    assert "✕ 35 wrong" in text
    assert "5,150 [5,100, 5,200]" in text
    assert "✕ Failure: a<b>&|c `d`" in text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_narrow_terminal_gets_the_table_in_parts_instead_of_cut_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "46")
    monkeypatch.setenv("TERM", "dumb")
    columns = (Column("load"), *(Column(f"metric {index}", PER_SECOND) for index in range(9)))
    rows: list[tuple[Cell, ...]] = [("one", *(1234.0 + index for index in range(9)))]
    out = Terminal()
    print_report(Report("t", sections=(Section("s", (Table(columns, rows),)),)), out)
    assert all(f"{1234 + index:,}" in out.getvalue() for index in range(9))
    assert out.getvalue().count("one") > 1
    assert "…" not in out.getvalue()

"""``servable bench diff`` and ``servable bench table``, as they are called."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.lab import measured

from servable.cli import DONE, FAILED, main
from servable.lab import comparison
from servable.lab.result import decode, encode


@pytest.fixture
def results(tmp_path: Path) -> Path:
    old = measured.result(measured.step("8 in flight", 1000, 2.0))
    (tmp_path / "old.json").write_bytes(encode(old))
    (tmp_path / "slow.json").write_bytes(encode(measured.result(measured.step("8 in flight", 1000, 3.0))))
    moved = replace(old, machine=replace(old.machine, cpu="another"))
    (tmp_path / "moved.json").write_bytes(encode(moved))
    (tmp_path / "versus.json").write_bytes(comparison.encode(measured.comparison()))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "future.json").write_text('{"schema": "servable.bench/99"}')
    return tmp_path


@pytest.mark.parametrize(
    ("new", "options", "code"),
    [
        ("old.json", (), DONE),
        ("old.json", ("--threshold", "p99=+10%"), DONE),
        ("slow.json", (), DONE),
        ("slow.json", ("--threshold", "p99=+10%"), 3),
        ("slow.json", ("--threshold", "p99=+80%", "--threshold", "p50=2.5ms"), 3),
        ("slow.json", ("--threshold", "p97=+80%"), FAILED),
        ("moved.json", (), FAILED),
        ("moved.json", ("--allow-different",), DONE),
        ("broken.json", (), FAILED),
        ("future.json", (), FAILED),
        ("absent.json", (), FAILED),
        ("versus.json", (), FAILED),
    ],
)
def test_diff_says_by_its_exit_code_how_it_went(results: Path, new: str, options: tuple[str, ...], code: int) -> None:
    assert main(["bench", "diff", str(results / "old.json"), str(results / new), *options]) == code


def test_diff_compares_comparisons_too(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    versus = str(results / "versus.json")
    assert main(["bench", "diff", versus, versus, "--threshold", "ratio=-5%", "--threshold", "rate=1"]) == DONE
    assert main(["bench", "diff", versus, versus, "--threshold", "ratio=1.2"]) == 3
    assert "flask + gunicorn, REST, 32 in flight" in capsys.readouterr().out


def test_diff_in_json(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "bench",
        "diff",
        str(results / "old.json"),
        str(results / "slow.json"),
        "--threshold",
        "p99=+10%",
        "--json",
    ]
    assert main(words) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["exceeded"][0]["thresholds_missed"] == ["p99=+10%"]


def test_diff_names_what_is_wrong_with_a_file(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["bench", "diff", str(results / "old.json"), str(results / "future.json")])
    assert "servable.bench/99" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("out.html", "<!DOCTYPE html>"),
        ("out.md", "# text\\_cnn\\_small"),
        ("out.csv", "load,"),
        ("out.txt", "text_cnn_small"),
    ],
)
def test_table_writes_the_form_that_the_ending_says(results: Path, name: str, beginning: str) -> None:
    out = results / name
    assert main(["bench", "table", str(results / "old.json"), "--out", str(out)]) == DONE
    assert out.read_text("utf-8").startswith(beginning)


def test_table_takes_a_name_and_gives_the_result_back(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "table", "old", "--results", str(results), "--json"]) == DONE
    assert decode(capsys.readouterr().out) == decode((results / "old.json").read_bytes())


def test_table_of_a_comparison(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "table", "versus", "--results", str(results), "--format", "csv"]) == DONE
    out = capsys.readouterr().out
    assert out.startswith("server,protocol,in flight,wire,right answers (1/s),right answers (1/s) low,")
    assert "mosec" in out


def test_a_name_that_is_not_there_is_answered_with_those_that_are(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "table", "nope", "--results", str(results)]) == FAILED
    assert "there are: broken, future, moved, old, slow, versus" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "table", str(results / "old.json"), "--out", str(results / "no" / "x.html")]) == FAILED
    assert "cannot write" in capsys.readouterr().err

"""Artifacts side by side: the lines, what is skipped, sizes and differences."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests.forge import pipeline_steps as network

from servable.cli import DONE, FAILED, main
from servable.core.errors import ServingError
from servable.forge import measure_model
from servable.forge.appraisal import Timing
from servable.forge.comparison.compare import compare_artifacts, names_of
from servable.forge.comparison.page import compared_report, run_plots, size_table
from servable.forge.comparison.runs import Runs, lines

LINE = re.compile(r"min: (\d+\.\d{6}), mean: (\d+\.\d{6}), max: (\d+\.\d{6}) // (.+)")


def test_a_model_is_run_cold_and_then_by_the_clock() -> None:
    seen: list[int] = []
    runs = measure_model(lambda batch: seen.append(len(batch)), "counted", np.zeros((8, 2)), n_runs=3, cold_start=2)
    assert seen == [8] * 5
    assert (runs.name, runs.batch, len(runs.seconds)) == ("counted", 8, 3)
    found = LINE.fullmatch(str(runs))
    assert found is not None
    assert float(found[1]) <= float(found[2]) <= float(found[3])
    assert Runs("a", 8, (0.5, 0.25)).rows_per_s == pytest.approx(8 / 0.375)
    assert measure_model(lambda batch: None, "named", {"x": np.zeros((3, 1))}).batch == 3
    with pytest.raises(ValueError, match="timed run"):
        measure_model(lambda batch: None, "none", np.zeros(1), n_runs=0)


def test_who_was_skipped_is_in_no_plot() -> None:
    runs = {"a": [Runs("a", 1, (0.5,)), Runs("a", 8, (1.0,))], "gone": []}
    assert [[one.name for one in plot.series] for plot in run_plots(runs)] == [["a"], ["a"]]
    assert run_plots({"gone": []}) == []


def test_lines_are_by_batch_size_and_skip_what_is_not_there() -> None:
    rows = [("a", [Runs("a", 1, (0.5, 0.25)), Runs("a", 8, (1.0,))]), ("gone", [])]
    assert lines(rows, (1, 8, 16)) == [
        "batch size: 1",
        "min: 0.250000, mean: 0.375000, max: 0.500000 // a",
        "skipped // gone",
        "batch size: 8",
        "min: 1.000000, mean: 1.000000, max: 1.000000 // a",
        "skipped // gone",
        "batch size: 16",
        "skipped // a",
        "skipped // gone",
    ]


def test_names_tell_artifacts_apart() -> None:
    assert names_of([Path("models/a/1"), Path("models/b/3")]) == ["a", "b"]
    assert names_of([Path("x/net/1"), Path("y/net/1")]) == ["x/net", "y/net"]
    assert names_of([Path("x/net/1"), Path("x/net/2")]) == ["1", "2"]


def test_artifacts_are_compared_with_the_first(tmp_path: Path) -> None:
    first = network.write_network(tmp_path / "usual" / "1").parent
    other = network.write_network(tmp_path / "other" / "1", seed=2, filters=64).parent
    named = [("gone", tmp_path / "gone"), ("usual", first), ("same", first), ("other", other)]
    found = compare_artifacts(named, Timing((1, 4), runs=2, cold=1))
    gone, usual, same, different = found.figures
    assert usual.judged is not None
    assert same.judged is not None
    assert different.judged is not None
    assert usual.judged.max_abs == same.judged.max_abs == 0
    assert same.judged.agreement == 1
    assert different.judged.max_abs > 0.01
    assert different.judged.agreement is not None
    assert different.judged.agreement < 1
    assert gone.measured is None
    assert "is not there" in gone.reason
    assert [len(runs.seconds) for runs in usual.runs()] == [2, 2]
    written = found.lines()
    assert written.count("skipped // gone") == 2
    assert sum(bool(LINE.fullmatch(line)) for line in written) == 6
    sizes = size_table(found.figures).rows
    assert sizes[1][2] == 1.0, "ratios are to the first that is there"
    assert sizes[3][2] == pytest.approx(
        (other / "1/model.onnx").stat().st_size / (first / "1/model.onnx").stat().st_size
    )
    assert sizes[0][1] == "skipped"
    assert compared_report(found).verdict == "Skipped: gone"
    json.dumps(found.as_json(), allow_nan=False)


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="is not there"):
        compare_artifacts([("a", tmp_path / "a")], Timing((1,), runs=1))


def test_the_command_prints_lines_and_writes_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = network.write_network(tmp_path / "usual" / "1").parent
    table = tmp_path / "table.csv"
    words = ["compare", str(first), f"small={first}/1/model.onnx", str(tmp_path / "none"), "-b", "1", "-n", "2"]
    assert main([*words, "--cold", "0", "--quiet", "--out", str(table)]) == DONE
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "batch size: 1"
    assert [LINE.fullmatch(line)[4] for line in printed[1:3]] == ["usual", "small"]  # type: ignore[index]
    assert printed[3] == "skipped // none"
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["artifact"] for row in rows] == ["usual", "small", "none"]
    assert rows[0]["size (B)"] == str((first / "1/model.onnx").stat().st_size)
    assert main(["compare", str(first), str(first)]) == FAILED
    assert "two artifacts are called" in capsys.readouterr().err

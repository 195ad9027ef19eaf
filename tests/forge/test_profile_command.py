"""``servable profile`` on real models: each engine's own profiler, and Python's."""

from __future__ import annotations

import json
import pstats
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.engines.saved_model_writer import half_plus_two, write
from tests.forge.test_profile_parts import well_formed

from servable.cli import main
from servable.forge.profiling.report import INDENT
from servable.zoo import catalog

needs_line_profiler = pytest.mark.skipif(find_spec("line_profiler") is None, reason="line_profiler is not installed")

SLOW = """
import numpy as np
from servable import Tensor


def work(row):
    total = 0.0
    for value in row:
        total += float(value)
    return total


class Sums:
    def predict(self, x: Tensor["float32", "n", 50]) -> Tensor["float32", "n"]:
        return np.array([work(row) for row in x], np.float32)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="example models are built by onnx")
    return catalog.build("noop", tmp_path_factory.mktemp("models")).parent


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    (tmp_path / "sums/1").mkdir(parents=True)
    (tmp_path / "sums/1/model.py").write_text(SLOW)
    return tmp_path / "sums"


def profiled(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main(["profile", *map(str, words), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_operations_and_trace(engine: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "trace.json"
    document = profiled(capsys, model, "--engine", engine, "--how", "chrome", "--runs", 5, "--batch", 3, "--out", out)
    assert document["rows"] == 3
    assert len(document["runs_s"]) == len(document["profiled_runs_s"]) == 5
    assert document["told"]
    operations = document["operations"]
    assert operations
    assert all(one["calls"] % 5 == 0 for one in operations)
    assert sum(one["share"] for one in operations) == pytest.approx(1)
    assert [one["phase"] for one in document["resources"]] == ["load", "first run", "warm-up", "runs", "profiled runs"]
    slices = well_formed(json.loads(out.read_text()))
    assert [event["name"] for event in slices["calls"]] == [f"run {number}" for number in range(1, 6)]
    names = {event["name"] for events in slices.values() for event in events if event["cat"] == "operation"}
    assert {f"{one['name']}:{one['kind']}" for one in operations} == names
    first, last = slices["calls"][0]["ts"], slices["calls"][-1]["ts"] + slices["calls"][-1]["dur"]
    mine = [event for events in slices.values() for event in events if event["cat"] == "operation"]
    # The framework's clock is another than ours: they agree within what a thread may wait for its turn.
    assert all(first - 2e5 <= event["ts"] <= last + 2e5 for event in mine)


@pytest.mark.tensorflow
def test_operations_of_tensorflow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "halves/1", half_plus_two())
    document = profiled(capsys, path, "--runs", 3)
    assert document["told"]
    assert any(one["calls"] % 3 == 0 for one in document["operations"])


def test_functions_of_a_python_model(sums: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sums.prof"
    document = profiled(capsys, sums, "--runs", 4, "--batch", 3, "--out", out)
    assert document["how"] == "cprofile"
    functions = {one["name"]: one for one in document["functions"]}
    assert functions["work"]["calls"] == 12
    assert functions["predict"]["calls"] == 4
    assert functions["predict"]["total_s"] >= functions["work"]["total_s"]
    stats: Any = pstats.Stats(str(out))
    assert any(name == "work" for _, _, name in stats.stats)


@needs_line_profiler
def test_lines_of_a_python_model(sums: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = profiled(capsys, sums, "--how", "line", "--runs", 4, "--batch", 3)
    hits = {one["text"].strip(): one["hits"] for one in document["lines"]}
    assert hits["total += float(value)"] == 4 * 3 * 50
    assert hits["return total"] == 12
    assert {one["function"] for one in document["lines"]} == {"work", "Sums.predict"}
    assert main(["profile", str(sums), "--how", "line", "--runs", "1"]) == 0
    assert 2 * INDENT + "total += float(value)" in capsys.readouterr().out


def test_resources_alone(sums: Path, tmp_path: Path) -> None:
    out = tmp_path / "resources.json"
    assert main(["profile", str(sums), "--how", "resources", "--runs", "2", "--out", str(out)]) == 0
    document = json.loads(out.read_text())
    assert document["profiled_runs_s"] == []
    assert [one["phase"] for one in document["resources"]] == ["load", "first run", "warm-up", "runs"]
    assert document["resources"][0]["rss_most"] > 10 << 20


def test_what_cannot_be_profiled_says_what_can(model: Path, sums: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(sums), "--how", "ops", "--runs", "1"]) == 0
    assert "a Python model has no operations: use --how cprofile" in capsys.readouterr().out
    for words, part in (
        ([model, "--how", "line"], "has neither: use --how ops"),
        (["grpc://127.0.0.1:1/m"], "a profile is of a model on disk"),
        ([model, "--runs", 0], "--runs 0 is too few"),
        ([model, "--engine", "python"], "python does not read onnx"),
    ):
        assert main(["profile", *map(str, words)]) == 1
        said = capsys.readouterr().err
        assert part in said
        assert "Traceback" not in said

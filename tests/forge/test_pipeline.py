"""Pipelines: an artifact for each step, reasons for those that fail, nothing done twice, nothing half after an end."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.forge import pipeline_steps as network

from servable.cli import DONE, FAILED, MISSED, main
from servable.core.errors import ServingError
from servable.core.signatures import Signature
from servable.forge.appraisal import Timing
from servable.forge.artifacts import find_source
from servable.forge.pipeline import optimize as optimizing
from servable.forge.pipeline.optimize import Plan, optimize
from servable.forge.pipeline.optimized import GIVEN, Goal, Optimized, Row, State
from servable.forge.pipeline.page import artifacts_table, optimized_report
from servable.forge.samples import Samples, from_file
from servable.lifecycle.config import resolve_path
from servable.report.html import write_html

ROOT = Path(__file__).parent.parent.parent
QUICK = Timing((1, 4), budget_s=0.01)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servable.forge.steps.TABLES", ("tests.forge.pipeline_steps",))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return network.write_network(tmp_path / "net" / "1").parent


@pytest.fixture
def data(tmp_path: Path, model: Path) -> Path:
    """Rows with labels that the network is right about, but for every fifth."""
    from servable.forge.workshop import open_model

    pixels = np.random.default_rng(3).standard_normal((40, 3, network.SIZE, network.SIZE), dtype=np.float32)
    loaded = open_model(find_source(model))
    labels = loaded.run("serving_default", {"x": pixels}, ["probs"])["probs"].argmax(axis=1)
    loaded.close()
    labels[::5] = (labels[::5] + 1) % network.CLASSES
    path = tmp_path / "data.npz"
    np.savez(path, x=pixels, labels=labels)
    return path


def run(model: Path, out: Path, *words: str, data: Path | None = None, **options: object) -> Optimized:
    def read(signature: Signature) -> Samples:
        assert data is not None
        return from_file(data, signature)

    plan = Plan(find_source(model), out, words, QUICK, None if data is None else read, **options)  # type: ignore[arg-type]
    return optimize(plan)


def row(found: Optimized, name: str) -> Row:
    return next(one for one in found.rows if one.name == name)


def test_every_step_is_an_artifact_and_every_failure_a_reason(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = run(model, out, "tidy", "refuse", "negate", "cram", "coarse", "settle", data=data)
    assert [(one.name, one.state) for one in found.rows] == [
        (GIVEN, State.GIVEN),
        ("tidy", State.MADE),
        ("refuse", State.FAILED),
        ("negate", State.FAILED),
        ("cram", State.FAILED),
        ("coarse", State.MADE),
        ("tidy-openvino", State.MADE),
        ("settle", State.MADE),
    ]
    assert "operation Softmax is not supported" in row(found, "refuse").reason
    assert "does not answer as its source" in row(found, "negate").reason
    assert len(list((out / ".optimize").glob("failed-*"))) == 2, "want of memory may pass, and is tried again"
    assert row(found, "coarse").source == "tidy", "the newest exact artifact"
    assert row(found, "coarse").facts["calibrated_with"] == 40
    assert not row(found, "tidy-openvino").asked
    # A root of models to serve, with nothing in it that is none.
    assert sorted(one.name for one in resolve_path(out)) == ["coarse", "settle", "tidy", "tidy-openvino"]
    judged = {one.name: one.figures.judged for one in found.rows if one.figures is not None}
    assert judged[GIVEN] is not None
    assert judged["coarse"] is not None
    assert judged["tidy"] is not None
    assert judged[GIVEN].accuracy == pytest.approx(0.8)
    assert judged["tidy"].max_abs == 0
    assert judged["coarse"].max_abs > 1e-4, "it is judged by the model given"
    assert judged["coarse"].agreement is not None
    figures = row(found, "settle").figures
    assert figures is not None
    assert figures.measured is not None
    assert figures.measured.engine == "openvino"
    assert [one.batch for one in figures.runs()] == [1, 4]


def test_a_second_run_reuses_what_is_the_same(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(optimizing, "disturbance", lambda _machine: "others compute")
    run(model, out, "tidy", "coarse")
    assert "figures" not in json.loads((out / ".optimize" / "tidy.json").read_text()), "times of a busy machine"
    monkeypatch.setattr(optimizing, "disturbance", lambda _machine: "")
    before = {path: path.stat().st_ino for path in out.rglob("model.onnx")}
    again = run(model, out, "tidy", "coarse", "negate")
    assert [one.state for one in again.rows] == [State.GIVEN, State.REUSED, State.REUSED, State.FAILED]
    assert {path: path.stat().st_ino for path in out.rglob("model.onnx")} == before
    assert "figures" in json.loads((out / ".optimize" / "tidy.json").read_text())
    figures = row(again, "coarse").figures
    assert figures is not None
    assert figures.judged is not None
    assert row(again, "coarse").facts["calibrated_with"] == 64

    other = run(model, out, "tidy", "coarse", data=data)
    assert [one.state for one in other.rows][1:] == [State.MADE, State.MADE], "other data, other artifacts"
    assert [path.name for path in sorted((out / "coarse").iterdir())] == ["2"], "what they replace goes"
    shutil.copytree(out / "coarse" / "2", out / "tidy" / "7")

    (out / "coarse" / "2" / "model.onnx").write_bytes(b"not what was made")
    mended = run(model, out, "tidy", "coarse", data=data)
    assert [one.state for one in mended.rows][1:] == [State.REUSED, State.MADE]

    shutil.rmtree(model)
    network.write_network(model / "1", seed=2)
    assert row(run(model, out, "tidy"), "tidy").state is State.MADE, "another source"
    assert [path.name for path in sorted((out / "tidy").iterdir())] == ["7", "8"], "what somebody else put there stays"


def test_chains_go_on_from_what_they_made(model: Path, tmp_path: Path) -> None:
    found = run(model, tmp_path / "out", "coarse+settle")
    assert [(one.name, one.source) for one in found.rows[1:]] == [
        ("coarse", GIVEN),
        ("coarse-openvino", "coarse"),
        ("coarse-settle", "coarse-openvino"),
    ]


def test_words_without_a_step_are_refused_before_anything_is_written(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="there is no step 'tidi'; there are"):
        run(model, tmp_path / "out", "tidi")
    assert not (tmp_path / "out").exists()
    found = run(model, tmp_path / "out", "int8")
    assert "reads what there is (onnx)" in row(found, "int8").reason


def test_the_best_is_what_keeps_the_answers(model: Path, data: Path, tmp_path: Path) -> None:
    found = run(model, tmp_path / "out", "tidy", "coarse", data=data)
    strict, generous = Goal("size", 0.0), Goal("size", 0.99)
    lost = found.drop(row(found, "coarse"))
    assert lost is not None
    assert found.best(strict) is not None
    assert {one.name for one in found.eligible(generous)} == {GIVEN, "tidy", "coarse"}
    assert "coarse" in {one.name for one in found.eligible(strict)} or lost > 0
    document = found.as_json(generous)
    assert document["rows"][0]["judged"]["accuracy"] == pytest.approx(0.8)
    json.dumps(document, allow_nan=False)
    page = write_html(optimized_report(found, generous))
    assert "Size and latency" in page
    assert "No data was given" not in page
    assert len(artifacts_table(found, generous).rows) == 3


def test_the_command_reports_and_publishes(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page, served = tmp_path / "out", tmp_path / "page.html", tmp_path / "served"
    common = ["optimize", str(model), str(out), "--data", str(data), "--batch", "1,4", "--seconds", "0.01"]
    words = [*common, "--steps", "tidy,coarse,refuse", "--goal", "throughput", "--max-drop", "0.9"]
    code = main([*words, "--html", str(page), "--json", "--publish", str(served)])
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["best"] in {GIVEN, "tidy", "coarse"}
    assert code == (MISSED if document["best"] == GIVEN else DONE)
    assert served.exists() == (document["best"] != GIVEN)
    assert "operation Softmax is not supported" in printed.err
    assert "Softmax" in page.read_text()
    assert main([*words]) == DONE
    printed = capsys.readouterr()
    assert "made before, reused" in printed.err
    assert "reused" in printed.out


def test_bad_options_are_one_line(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["optimize", str(model), str(tmp_path / "out")]
    for words, said in (
        (["--max-drop", "2"], "is no share"),
        (["--steps", "tidy,tidy"], "twice"),
        (["--labels", "right"], "goes with --data"),
        (["--option", "half"], "NAME=VALUE"),
        (["--data", str(tmp_path / "none.npz"), "--steps", "tidy"], "none.npz"),
    ):
        assert main([*common, *words]) == FAILED
        printed = capsys.readouterr().err.splitlines()
        assert said in printed[-1]
        assert not any("Traceback" in line for line in printed)


def test_a_damaged_model_is_one_line_and_nothing_is_written(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = model / "1" / "model.onnx"
    file.write_bytes(file.read_bytes()[:500])
    assert main(["optimize", str(model), str(tmp_path / "out"), "--steps", "tidy", "--quiet"]) == FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.onnx is damaged" in line
    assert not (tmp_path / "out").exists()


def test_interrupted_it_leaves_whole_artifacts_and_goes_on(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = (
        "import sys; from servable.forge import steps; steps.TABLES = ('tests.forge.pipeline_steps',); "
        "from servable.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["optimize", str(model), str(out), "--steps", "tidy,stall", "--batch", "1", "--seconds", "0.01"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "halfway" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        assert process.wait(20) == 130
    assert "Traceback" not in rest
    assert "the same command goes on" in rest
    assert sorted(one.name for one in resolve_path(out)) == ["tidy"]
    assert [path.relative_to(out).as_posix() for path in sorted(out.rglob("model.onnx"))] == ["tidy/1/model.onnx"]
    assert not list(out.rglob(".forge-*"))
    assert not (out / "stall").exists()
    assert [one.state for one in run(model, out, "tidy").rows] == [State.GIVEN, State.REUSED]

"""Compression from the command line: trained a little, judged by rows that no training saw, kept or not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servable.cli import main
from servable.core.errors import ServingError
from servable.forge import arrays
from servable.forge.artifacts import find_source
from servable.forge.compression.compress import apart, compress, fault_of
from servable.forge.compression.graph import Graph
from servable.forge.compression.magnitude import sparsity_of
from servable.forge.compression.small import small_pictures, write_small_cnn
from servable.forge.reference import Judged, Reference
from servable.forge.samples import Samples
from servable.forge.steps import step_named
from servable.forge.worker import run_apart
from servable.zoo.labelled_pictures import PLAIN

TRAINED = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
ROWS = 800


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with labels, and a narrow network that knows some of them."""
    folder = tmp_path_factory.mktemp("compress")
    inputs, labels = small_pictures(ROWS, 5, PLAIN)
    np.savez(folder / "data.npz", labels=labels, **inputs)  # type: ignore[arg-type]  # the stub knows no arrays by name
    np.savez(folder / "unlabelled.npz", **inputs)  # type: ignore[arg-type]
    write_small_cnn(folder / "drawn.onnx", seed=1, width=0.25)
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> Samples:
    with np.load(folder / "data.npz") as stored:
        return Samples({"input": stored["input"]}, "data.npz", labels=stored["labels"])


@pytest.fixture(scope="module")
def source(folder: Path, data: Samples) -> Path:
    seen, _ = apart(data)
    assert seen.labels is not None
    arrays.save(folder / "rows.npz", [seen.rows, {"labels": seen.labels}])
    words = {
        "source": str(folder / "drawn.onnx"),
        "target": str(folder / "model.onnx"),
        "rows": str(folder / "rows.npz"),
    }
    run_apart(
        "servable.forge.compression.actions:learn", {**words, "options": {"epochs": 8, "rate": 1e-2, "batch": 32}}
    )
    return folder / "model.onnx"


def compressed(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    code = main(["compress", *map(str, words), "--json", "--quiet"])
    said = capsys.readouterr()
    assert code == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["compress", *map(str, words), "--quiet"]) == 1
    return capsys.readouterr().err


def accuracy(path: Path, data: Samples) -> float:
    found = Reference.of(find_source(path), apart(data)[1]).judge_itself().accuracy
    assert found is not None
    return found


class TestUntrained:
    """What needs no framework: the drawn network will do."""

    def test_pruning_sets_exactly_the_share_that_was_asked_to_zero(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = compressed(
            capsys, "prune", folder / "drawn.onnx", tmp_path / "out", "--sparsity", ".3", "--max-drop", "1"
        )
        version = tmp_path / "out" / "1"
        assert Path(found["artifact"]) == version / "model.onnx"
        assert sparsity_of(Graph.read(version / "model.onnx").kernels()) == pytest.approx(0.3, abs=1e-4)
        assert found["facts"]["stored"]["gzip"] < 0.85 * found["bytes_before"]
        assert found["before"]["agreement"] == 1
        assert found["after"]["rows"] == 64
        assert found["after"]["accuracy"] is None

    def test_it_says_loudly_that_there_is_no_data(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["cluster", folder / "drawn.onnx", tmp_path / "out.onnx", "--clusters", "256", "--max-drop", "1"]
        assert main(["compress", *map(str, words)]) == 0
        said = capsys.readouterr()
        assert "NO DATA WAS GIVEN" in said.err
        assert "top class of the source" in said.out
        assert (tmp_path / "out.onnx").exists()

    def test_without_epochs_the_data_only_judges(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--data", folder / "data.npz", "--epochs", "0", "--max-drop", "1"]
        found = compressed(capsys, "prune", folder / "drawn.onnx", tmp_path / "out.onnx", *words)
        assert "trained" not in found["facts"]
        assert found["after"]["rows"] == ROWS // 4
        assert found["after"]["accuracy"] is not None

    def test_too_much_is_refused_and_nothing_is_kept(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        said = refused(capsys, "prune", folder / "drawn.onnx", tmp_path / "out", "--sparsity", ".98")
        assert "--max-drop allows 2.0%" in said
        assert "nothing was kept" in said
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    def test_an_artifact_of_another_kind_is_told_the_way(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "model.py").write_text("class Model:\n    def predict(self): ...\n")
        said = refused(capsys, "prune", tmp_path / "model.py", tmp_path / "out")
        assert "is python, and ONNX models are compressed" in said

    @pytest.mark.parametrize(
        ("words", "part"),
        [
            (["prune", "--sparsity", "1"], "from 0 to below 1"),
            (["cluster", "--clusters", "1"], "2 to 256"),
            (["lowrank", "--energy", "1.5"], "above 0 and below 1"),
            (["lowrank", "--energy", ".9999"], "less --energy splits more"),
            (["xnor"], "--data FILE"),
            (["prune", "--epochs", "-1"], "--epochs is 0 or more"),
            (["prune", "--rate", "0"], "--rate is above 0"),
        ],
    )
    def test_bad_wishes_are_refused_in_a_line(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], part: str
    ) -> None:
        said = refused(capsys, words[0], folder / "drawn.onnx", tmp_path / "out", *words[1:])
        assert part in said
        assert said.count("\n") == 1
        assert not (tmp_path / "out" / "1").exists()


@TRAINED
class TestTrained:
    def test_the_network_learnt_something(self, source: Path, data: Samples) -> None:
        assert accuracy(source, data) > 0.5

    def test_pruned_little_by_little_it_keeps_what_pruning_at_once_loses(
        self, folder: Path, source: Path, data: Samples, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--sparsity", ".85", "--max-drop", "1"]
        compressed(capsys, "prune", source, tmp_path / "at_once.onnx", *words)
        found = compressed(
            capsys, "prune", source, tmp_path / "trained.onnx", *words, "--data", folder / "data.npz", "--epochs", "3"
        )
        assert sparsity_of(Graph.read(tmp_path / "trained.onnx").kernels()) == pytest.approx(0.85, abs=1e-4)
        assert found["after"]["accuracy"] == pytest.approx(accuracy(tmp_path / "trained.onnx", data))
        assert found["after"]["accuracy"] > accuracy(tmp_path / "at_once.onnx", data) + 0.1
        assert "labels and the source's answers" in found["facts"]["trained"]

    def test_without_labels_the_source_teaches(
        self, folder: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = [
            "--channels",
            "--sparsity",
            ".25",
            "--max-drop",
            "1",
            "--data",
            folder / "unlabelled.npz",
            "--epochs",
            "2",
        ]
        found = compressed(capsys, "prune", source, tmp_path / "out.onnx", *words)
        assert found["bytes_after"] < 0.65 * found["bytes_before"]
        assert found["after"]["accuracy"] is None
        assert found["after"]["agreement"] > 0.5
        assert "on the source's answers" in found["facts"]["trained"]

    def test_shared_values_stay_shared_while_they_learn_and_zeros_zero(
        self, folder: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pruned = Graph.read(source)
        original = pruned.array("conv5_kernel").copy()
        zeros = np.abs(original) < np.median(np.abs(original))
        original[zeros] = 0
        pruned.set("conv5_kernel", original)
        source = pruned.save(tmp_path, "pruned.onnx")
        words = ["--clusters", "8", "--max-drop", "1", "--data", folder / "data.npz", "--epochs", "1"]
        compressed(capsys, "cluster", source, tmp_path / "out.onnx", *words)
        graph = Graph.read(tmp_path / "out.onnx")
        books = {name: graph.array(name) for name in graph.constants() if name.endswith("/codebook")}
        assert {len(book) for book in books.values()} == {8}
        shared = books["conv5_kernel/codebook"][graph.array("conv5_kernel/indices")]
        np.testing.assert_array_equal(shared[zeros], 0)
        assert 0 < float(np.abs(shared - original).mean()) < float(np.abs(original).mean())

    def test_a_training_that_does_harm_is_undone(
        self, folder: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--clusters", "256", "--data", folder / "data.npz", "--epochs", "1", "--rate", "5"]
        found = compressed(capsys, "cluster", source, tmp_path / "out.onnx", *words)
        assert found["after"]["accuracy"] == pytest.approx(found["before"]["accuracy"], abs=0.02)

    def test_a_student_learns_from_its_teacher(
        self, folder: Path, source: Path, data: Samples, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        student = write_small_cnn(tmp_path / "student.onnx", seed=9, width=0.12)
        words = ["--teacher", source, "--student", student, "--data", folder / "data.npz", "--max-drop", "1"]
        found = compressed(
            capsys, "distill", tmp_path / "out.onnx", *words, "--epochs", "4", "--rate", ".01", "--batch", "32"
        )
        assert found["bytes_after"] < 0.4 * found["bytes_before"]
        assert accuracy(tmp_path / "out.onnx", data) > accuracy(student, data) + 0.15

    def test_a_binary_network_is_a_model_of_few_bytes(
        self, folder: Path, source: Path, data: Samples, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--data", folder / "data.npz", "--max-drop", "1", "--epochs", "4"]
        found = compressed(capsys, "xnor", source, tmp_path / "counted", *words)
        assert found["kind"] == "openvino"
        # The description alone takes 30 KB, which is much beside so narrow a network.
        assert Path(found["artifact"]).with_suffix(".bin").stat().st_size < 0.25 * found["bytes_before"]
        assert len(found["facts"]["counts bits"]) == 4
        assert found["after"]["accuracy"] > 0.2
        assert found["after"]["accuracy"] == pytest.approx(accuracy(Path(found["artifact"]), data))

    def test_what_signs_were_taken_of_stays_in_bounds_and_serves_other_forms(
        self, source: Path, data: Samples, tmp_path: Path
    ) -> None:
        """Steps of 1 would carry weights far away, where no gradient reaches them."""
        options = {"epochs": 1, "rate": 1.0, "learnt": str(tmp_path / "learnt.npz")}
        made = {
            name: compress(
                step_named(name), find_source(source), tmp_path / name, data=data, options=options, max_drop=1
            ).outcome
            for name in ("xnor-signs", "xnor-packed")
        }
        (learnt,) = arrays.load(tmp_path / "learnt.npz")
        kernels = made["xnor-signs"].facts["binary"]
        assert {float(np.abs(learnt[name]).max()) for name in kernels} == {1.0}
        signs = Graph.read(made["xnor-signs"].artifact.path)
        assert all(set(np.unique(signs.array(f"{name}/signs"))) == {-1, 1} for name in kernels)
        assert "trained" not in made["xnor-packed"].facts
        assert made["xnor-packed"].artifact.kind == "python"
        assert made["xnor-packed"].facts["stored"]["bytes"] < 0.2 * source.stat().st_size
        judged = [accuracy(one.artifact.path, data) for one in made.values()]
        assert judged[0] == pytest.approx(judged[1], abs=0.02)

    def test_a_drop_of_accuracy_is_refused_with_its_size(
        self, folder: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--sparsity", ".99", "--data", folder / "data.npz", "--epochs", "0"]
        said = refused(capsys, "prune", source, tmp_path / "out", *words)
        assert "accuracy falls from" in said
        assert not (tmp_path / "out" / "1").exists()


def judged(accuracy: float | None, agreement: float | None) -> Judged:
    return Judged(0.0, 0.0, None, agreement, accuracy, 100)


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        (judged(0.9, 1.0), judged(0.88, 0.5), None),
        (judged(0.9, 1.0), judged(0.87, 0.99), "accuracy falls from 90.0% to 87.0%"),
        (judged(0.9, 1.0), judged(0.95, 0.5), None),
        (judged(None, 1.0), judged(None, 0.98), None),
        (judged(None, 1.0), judged(None, 0.97), "the top class of 3.0% of 100 rows is another"),
        (judged(None, None), judged(None, None), None),
    ],
)
def test_accuracy_judges_and_agreement_where_there_are_no_labels(
    before: Judged, after: Judged, fault: str | None
) -> None:
    found = fault_of(before, after, 0.02)
    assert (found is None) if fault is None else (found is not None and fault in found)


def test_the_last_quarter_is_held_out() -> None:
    data = Samples({"x": np.arange(10)}, "here", labels=np.arange(10) * 2)
    seen, held_out = apart(data)
    assert seen.rows["x"].tolist() == list(range(8))
    assert held_out.rows["x"].tolist() == [8, 9]
    assert held_out.labels is not None
    assert held_out.labels.tolist() == [16, 18]
    with pytest.raises(ServingError, match="has 3 rows"):
        apart(Samples({"x": np.arange(3)}, "here"))

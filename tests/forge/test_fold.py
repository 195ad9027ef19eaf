"""Folding removes what is constant, says so, and the answers stay."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.engines.base import Artifact
from servable.engines.plan import find_artifact
from servable.forge.artifacts import destination, find_source
from servable.forge.conversion.fold_files import restore_interface
from servable.forge.conversion.fold_graph import removed
from servable.forge.conversion.freeze_steps import fold_step
from servable.forge.conversion.steps import step_between
from servable.forge.workshop import open_model, perform
from servable.zoo import catalog

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return find_source(catalog.build("simple_cnn", tmp_path_factory.mktemp("zoo")))


def test_an_onnx_file_loses_its_batch_normalization(network: Artifact, tmp_path: Path) -> None:
    outcome = perform(fold_step("onnx"), network, tmp_path / "folded", batches=(1, 2))

    assert outcome.facts["batch_norms_folded"] == 8  # one follows a dense layer, where ONNX Runtime leaves it
    assert outcome.facts["changed"]["BatchNormalization"] == "-8"
    assert outcome.facts["nodes_after"] < outcome.facts["nodes_before"]
    made = onnx.load(outcome.artifact.path)
    assert {one.domain for one in made.opset_import} <= {"", "ai.onnx"}
    assert [one.type.tensor_type.shape.dim[0].dim_param for one in (*made.graph.input, *made.graph.output)] == [
        "batch"
    ] * 2


def test_onnx_becomes_openvino_and_is_folded(network: Artifact, tmp_path: Path) -> None:
    converted = perform(step_between("onnx", "openvino"), network, tmp_path / "openvino", batches=(1, 2))
    folded = perform(fold_step("openvino"), converted.artifact, tmp_path / "folded", batches=(1, 2))

    assert folded.facts["nodes_after"] <= folded.facts["nodes_before"]
    model = open_model(find_artifact(tmp_path / "folded" / "1"))
    inputs = catalog.sample_inputs("simple_cnn", 2, seed=2)
    outputs = model.run("serving_default", inputs, ["output"])
    model.close()
    np.testing.assert_allclose(
        outputs["output"], catalog.reference("simple_cnn", inputs)["output"], rtol=1e-4, atol=1e-4
    )


def test_free_sizes_are_called_what_they_were_before_a_fold() -> None:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT

    def model(rows: object, steps: object) -> Any:
        value = helper.make_tensor_value_info
        ends = [value(name, kind, [rows, steps, 3]) for name in ("x", "y")]
        return helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:]))

    folded = model("unk__7", 5)
    restore_interface(folded, model("batch", "x_1"))
    for end in (*folded.graph.input, *folded.graph.output):
        assert [dim.dim_param or dim.dim_value for dim in end.type.tensor_type.shape.dim] == ["batch", "x_1", 3]


@pytest.mark.parametrize("name", ["frozen.pb", "frozen.pbtxt", "frozen.onnx"])
def test_a_frozen_graph_wants_a_folder_and_says_so_before_the_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(ServingError, match=r"goes to a folder, where servable\.toml beside it holds its signature"):
        destination(tmp_path / name, "graph_def")
    assert destination(tmp_path / "frozen", "graph_def") == tmp_path / "frozen" / "1"


def test_what_was_removed_is_told_by_type() -> None:
    from collections import Counter

    told = removed(Counter(Const=9, Conv2D=2, Identity=3), Counter(Const=4, Conv2D=2, BiasAdd=1))
    assert told == {
        "nodes_before": 14,
        "nodes_after": 7,
        "changed": {"Const": "-5", "Identity": "-3", "BiasAdd": "+1"},
    }


@pytest.mark.parametrize(("suffix", "kind"), [("onnx", "onnx"), ("xml", "openvino")])
def test_a_damaged_file_is_named_and_nothing_is_kept(tmp_path: Path, suffix: str, kind: str) -> None:
    damaged = tmp_path / f"model.{suffix}"
    damaged.write_bytes(b"\x08\x01 not a model")
    damaged.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(ServingError, match=f"model.{suffix}") as caught:
        perform(fold_step(kind), find_source(damaged), tmp_path / "out")
    assert caught.value.code in (Code.DATA_LOSS, Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT)
    assert not (tmp_path / "out").exists()


def test_ctrl_c_leaves_nothing(network: Artifact, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "servable",
        "convert",
        str(network.path),
        str(tmp_path / "out"),
        "--to",
        "openvino",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()  # it has begun
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert first.startswith("onnx-to-openvino: ")
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not (tmp_path / "out").exists()


def servable(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "servable", *words], capture_output=True, text=True, check=False, timeout=100
    )


def test_the_command_prints_what_it_did(network: Artifact, tmp_path: Path) -> None:
    done = servable("convert", str(network.path), str(tmp_path / "made.xml"), "--quiet")

    assert done.returncode == 0, done.stderr
    assert f"onnx-to-openvino: {tmp_path}/made.xml" in done.stdout
    assert "verified: yes" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.bin", "made.xml"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("convert", "{model}", "{out}/a", "--to", "saved_model"), 1, "onnx to saved_model: nothing that is kept"),
        (("convert", "{model}", "{out}/b", "--to", "onnx"), 1, "it is onnx already"),
        (("convert", "{model}", "{out}/c"), 2, "give --to FORMAT"),
        (("convert", "{model}", "{out}/d.xml", "--batch", "0"), 1, "--batch is a number from 1 up"),
        (("convert", "{model}", "{out}/e.xml", "--inputs", "x=float32[1]"), 1, "--inputs is for Keras files and code"),
        (("convert", "{model}", "{out}/t.xml", "--text"), 1, "--text is for frozen graphs"),
        (("convert", "{out}/absent.onnx", "{out}/f.xml"), 1, "absent.onnx"),
        (("export", "{model}", "{out}/g"), 1, "can be served already (onnx)"),
        (("freeze", "{model}", "{out}/h"), 1, "is frozen already (onnx)"),
        (("export", "absent.py:build", "{out}/i"), 1, "absent.py"),
        (("export", "x.keras", "{out}/j"), 1, "x.keras"),
    ],
)
def test_wrong_words_are_answered_in_one_line(
    network: Artifact, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    done = servable(*(word.format(model=network.path, out=tmp_path) for word in words))

    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]

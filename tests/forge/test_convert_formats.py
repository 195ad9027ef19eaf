"""Each pair of formats once: names, types, free dimensions and answers survive; what cannot be done is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servable.core.errors import ServingError
from servable.core.signatures import Signature
from servable.engines import frozen_graph
from servable.engines.plan import find_artifact
from servable.engines.signature_settings import read_signature_settings
from servable.forge import arrays
from servable.forge.conversion.freeze_steps import fold_step
from servable.forge.conversion.steps import KINDS, LIVE, STEPS, step_between
from servable.forge.steps import steps
from servable.forge.worker import run_apart
from servable.forge.workshop import open_model

Made = tuple[Path, Mapping[str, Any]]
"""Where versions were made, and the facts of each."""


def has(*packages: str) -> bool:
    return all(importlib.util.find_spec(one) is not None for one in packages)


# Frameworks start in seconds, on a busy machine in many.
pytestmark = pytest.mark.timeout(240)
with_tensorflow = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        not has("tensorflow", "keras", "tf2onnx", "ai_edge_litert"), reason="TensorFlow and its converters are not here"
    ),
]
with_torch = pytest.mark.skipif(not has("torch", "onnxscript"), reason="torch is not installed")


def made(part: str, factory: pytest.TempPathFactory) -> Made:
    root = factory.mktemp(f"{part}_made")
    return root, run_apart("tests.forge.tensorflow_conversions:convert", {"part": part, "root": str(root)})


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made("network", tmp_path_factory)


@pytest.fixture(scope="session")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made("recurrent", tmp_path_factory)


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made("others", tmp_path_factory)


@pytest.fixture(scope="session")
def torch_made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("torch_made")
    # Where no converter is installed, whatever there is elsewhere.
    empty = {"XDG_CACHE_HOME": str(root)}
    return root, run_apart("tests.forge.torch_conversions:convert_all", {"root": str(root)}, environment=empty)


def check(root: Path, name: str, source: str, signature: str = "serving_default") -> Signature:
    """Compare a version with what the model in memory answered to 1, 2 and 7 rows; return its signature."""
    asked, answered = (arrays.load(root / f"{source}-{what}.npz") for what in ("asked", "answered"))
    artifact = find_artifact(root / name)
    # The engine that needs no seconds to start: that TensorFlow reads what TensorFlow wrote is known.
    model = open_model(artifact, "openvino" if artifact.kind == "saved_model" else None)
    try:
        found = model.signatures[signature]
        rows = next(iter(found.inputs.values())).shape or ()
        compared = 0
        for inputs, expected in zip(asked, answered, strict=True):
            size = len(next(iter(inputs.values())))
            if rows[0] not in (None, size):
                continue
            outputs = model.run(signature, inputs, list(expected))
            assert set(outputs) == set(expected)
            for key, value in expected.items():
                assert outputs[key].dtype == value.dtype
                np.testing.assert_allclose(outputs[key], value, rtol=1e-4, atol=1e-5, err_msg=f"{name}, {size} rows")
                compared += value.size
        assert compared > 0, f"{name} takes {rows[0]} rows, which nobody answered"
    finally:
        model.close()
    return found


@pytest.mark.parametrize(
    "name",
    [
        "cnn-keras-onnx",
        "cnn-keras-openvino",
        "cnn-keras-tflite",
        "cnn-saved_model-onnx",
        "cnn-saved_model-openvino",
        "cnn-graph_def-onnx",
        "cnn-graph_def-openvino",
        "cnn-graph_def-tflite",
    ],
)
class TestPictures:
    pytestmark = with_tensorflow

    def test_answers_names_and_free_rows_survive(self, network: Made, name: str) -> None:
        root, facts = network
        assert "error" not in facts[name]
        for signature in ("predict", "serving_default"):
            found = check(root, name, "cnn", signature)
        assert {key: str(spec) for key, spec in found.inputs.items()} == {"pictures": "float32[?,12,12,3]"}
        assert {key: str(spec) for key, spec in found.outputs.items()} == {
            "probs": "float32[?,4]",
            "features": "float32[?,8]",
        }


class TestTensorFlow:
    pytestmark = with_tensorflow

    def test_a_saved_model_of_keras_has_both_signatures(self, network: Made) -> None:
        root, facts = network
        assert facts["cnn-keras-saved_model"]["signatures"].keys() == {"predict", "serving_default"}
        for signature in ("predict", "serving_default"):
            check(root, "cnn-keras-saved_model", "cnn", signature)

    def test_tflite_of_keras_has_both_signatures(self, network: Made) -> None:
        check(network[0], "cnn-keras-tflite", "cnn", "predict")

    def test_batch_normalization_is_folded_into_what_is_before(self, network: Made) -> None:
        facts = network[1]["cnn-folded"]
        assert facts["batch_norms_folded"] == 1
        assert facts["nodes_after"] < facts["nodes_before"] / 2
        assert facts["changed"]["Rsqrt"] == "-1"

    def test_fused_normalization_is_folded_too(self, others: Made) -> None:
        root, facts = others
        folded = facts["normalized-folded"]
        assert folded["batch_norms_folded"] == 2
        assert folded["changed"]["FusedBatchNormV3"] == "-2"
        check(root, "normalized-onnx", "normalized")

    def test_freezing_says_how_many_variables_became_constants(self, network: Made) -> None:
        facts = network[1]["cnn-saved_model-graph_def"]
        assert facts["variables"] == 7
        assert facts["frozen"] == f"7 variables -> constants, {facts['nodes_after']} ops"
        assert "ReadVariableOp" not in facts["operations"]
        assert facts["changed"]["ReadVariableOp"] == "-7"
        assert facts["changed"]["VarHandleOp"] == "-7"
        assert facts["nodes_not_run"] > 0

    def test_a_frozen_graph_becomes_text_and_bytes_again(self, network: Made) -> None:
        root = network[0]
        for name in ("cnn-text", "cnn-folded-text"):
            text = find_artifact(root / name)
            assert (text.kind, text.path.name) == ("graph_def", "graph.pbtxt")
            assert 'op: "Conv2D"' in text.path.read_text()
            assert frozen_graph.missing(text.path) is None
            # Its signature came along: a file in a version's folder is not one that was named by itself.
            assert read_signature_settings(root / name / "servable.toml").keys() == {
                "serving_default",
                "predict",
            }
        assert (root / "cnn-bytes" / "graph.pb").read_bytes() == (
            root / "cnn-saved_model-graph_def" / "graph.pb"
        ).read_bytes()

    @pytest.mark.parametrize(
        "name", ["lstm-saved_model-onnx", "lstm-saved_model-openvino", "lstm-saved_model-tflite", "lstm-graph_def-onnx"]
    )
    def test_recurrent_layers_survive(self, recurrent: Made, name: str) -> None:
        root, facts = recurrent
        assert "error" not in facts[name]
        found = check(root, name, "lstm")
        assert str(found.inputs["steps"]) == "float32[?,10,6]"
        assert str(found.outputs["probs"]) == "float32[?,3]"

    def test_recurrent_layers_become_one_operation_each(self, recurrent: Made) -> None:
        onnx = pytest.importorskip("onnx")
        model = onnx.load(recurrent[0] / "lstm-saved_model-onnx" / "model.onnx")
        assert sum(node.op_type == "LSTM" for node in model.graph.node) == 2

    def test_a_batch_can_be_fixed(self, recurrent: Made) -> None:
        model = open_model(find_artifact(recurrent[0] / "lstm-saved_model-onnx-4"))
        assert str(model.signatures["serving_default"].inputs["steps"]) == "float32[4,10,6]"
        model.close()

    def test_all_free_rows_have_one_symbol(self, recurrent: Made) -> None:
        onnx = pytest.importorskip("onnx")
        graph = onnx.load(recurrent[0] / "lstm-saved_model-onnx" / "model.onnx").graph
        first = [one.type.tensor_type.shape.dim[0].dim_param for one in (*graph.input, *graph.output)]
        assert set(first) == {"batch"}

    def test_code_with_a_checkpoint_answers_as_it_was_trained(self, others: Made) -> None:
        for name in ("code-saved_model", "code-onnx"):
            check(others[0], name, "code")

    def test_one_of_several_signatures_is_converted_and_the_others_are_told(self, others: Made) -> None:
        root, facts = others
        assert facts["two-onnx-sum"]["signatures"] == {"sum": "serving_default"}
        assert any("double" in note for note in facts["two-onnx-sum"]["notes"])
        asked = {"a": np.arange(3), "b": np.arange(3) * 10}
        for name in ("two-onnx-sum", "two-openvino-sum", "two-tflite"):
            model = open_model(find_artifact(root / name))
            outputs = model.run("sum", asked, ["scaled", "total"])
            model.close()
            assert outputs["total"].dtype == np.int64
            np.testing.assert_array_equal(outputs["total"], asked["a"] * 11)
            np.testing.assert_array_equal(outputs["scaled"], asked["a"] * np.float32(2))

    @pytest.mark.parametrize("kind", ["onnx", "openvino", "tflite"])
    def test_free_sizes_beside_the_batch_and_long_integers_survive(self, others: Made, kind: str) -> None:
        model = open_model(find_artifact(others[0] / f"mean-{kind}"))
        found = model.signatures["mean"]
        assert str(found.inputs["ids"]) == "int64[?,?]"
        assert str(found.outputs["mean"]) == "float32[?,2]"
        for shape in ((1, 4), (3, 5)):
            ids = np.arange(shape[0] * shape[1]).reshape(shape) % 10
            expected = np.arange(20, dtype=np.float32).reshape(10, 2)[ids].mean(1)
            np.testing.assert_allclose(model.run("mean", {"ids": ids}, ["mean"])["mean"], expected, rtol=1e-5)
        model.close()

    def test_strings_and_names_survive_in_a_frozen_graph(self, others: Made) -> None:
        found = read_signature_settings(others[0] / "upper-graph_def" / "servable.toml")
        assert found.keys() == {"upper", "serving_default"}
        assert str(found["upper"].inputs["texts"]) == "string[?]"
        assert str(found["upper"].outputs["upper"]) == "string[?]"
        mean = read_signature_settings(others[0] / "mean-graph_def" / "servable.toml")["mean"]
        assert str(mean.inputs["ids"]) == "int64[?,?]"

    @pytest.mark.parametrize(
        ("name", "code", "said"),
        [
            ("upper-onnx", "UNIMPLEMENTED", "ONNX has no StringLength"),
            ("free-tflite", "FAILED_PRECONDITION", "tensorflow_conversions.py:free_steps: signature predict"),
            ("two-onnx", "INVALID_ARGUMENT", "has the signatures double, sum: choose one with --signature"),
            ("two-onnx-absent", "INVALID_ARGUMENT", "has no signature 'absent'; there are double, sum"),
            ("jpegs-onnx", "UNIMPLEMENTED", "ONNX has no DecodeJpeg; DecodeJpeg runs in TensorFlow only"),
            ("jpegs-openvino", "UNIMPLEMENTED", "DecodeJpeg runs in TensorFlow only"),
            ("jpegs-tflite", "UNIMPLEMENTED", "DecodeJpeg runs in TensorFlow only"),
            ("solver-onnx", "UNIMPLEMENTED", "ONNX has no SelfAdjointEigV2; serve the SavedModel"),
            ("solver-openvino", "UNIMPLEMENTED", "OpenVINO has no SelfAdjointEigV2"),
            ("broken-onnx", "DATA_LOSS", "saved_model.pb is damaged or not complete"),
            ("code-misfit", "FAILED_PRECONDITION", "lstm.weights.h5 does not fit the code"),
            ("code-absent", "NOT_FOUND", "has no function 'absent'; there are"),
            ("damaged-keras", "DATA_LOSS", "damaged.keras is damaged or no Keras file"),
        ],
    )
    def test_what_cannot_be_done_is_told_with_a_way_on(self, others: Made, name: str, code: str, said: str) -> None:
        facts = others[1][name]
        assert facts["code"] == code
        assert said in facts["error"]
        assert "\n" not in facts["error"]


@with_torch
class TestTorch:
    @pytest.mark.parametrize("kind", ["torch_export", "torchscript", "onnx", "openvino"])
    def test_answers_names_and_free_rows_survive(self, torch_made: Made, kind: str) -> None:
        root, facts = torch_made
        assert "error" not in facts[kind]
        check(root, kind, "network", "serving_default")
        found = check(root, kind, "network", "predict")
        assert {key: str(spec) for key, spec in found.inputs.items()} == {"x": "float32[?,6]", "ids": "int64[?,4]"}
        assert {key: str(spec) for key, spec in found.outputs.items()} == {"probs": "float32[?,3]", "sums": "int64[?]"}

    def test_free_sizes_beside_the_batch_are_sizes_of_their_own(self, torch_made: Made) -> None:
        model = open_model(find_artifact(torch_made[0] / "pooled"))
        assert str(model.signatures["serving_default"].inputs["ids"]) == "int64[?,?]"
        ids = np.arange(10).reshape(2, 5)
        assert model.run("serving_default", {"ids": ids}, ["mean"])["mean"].tolist() == [2.0, 7.0]
        model.close()

    def test_outputs_can_be_renamed_and_the_batch_fixed(self, torch_made: Made) -> None:
        model = open_model(find_artifact(torch_made[0] / "script-3"))
        assert {key: str(spec) for key, spec in model.signatures["serving_default"].outputs.items()} == {
            "scores": "float32[3,3]",
            "sums": "int64[3]",
        }
        model.close()

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("tflite", "servable converters install litert-torch"),
            ("saved_model", "does not become saved_model; there are torch_export"),
            ("wrong-outputs", "the model has 2 (probs, sums)"),
            ("unsafe", "holds more than weights, which is not loaded"),
            ("branching", "torch.export cannot trace Branching"),
        ],
    )
    def test_what_cannot_be_done_is_told_with_a_way_on(self, torch_made: Made, name: str, said: str) -> None:
        assert said in torch_made[1][name]["error"]
        assert "\n" not in torch_made[1][name]["error"]


WAYS = {
    "saved_model": {"onnx", "openvino", "tflite", "graph_def"},
    "graph_def": {"onnx", "openvino", "tflite"},
    "onnx": {"openvino", "tflite"},
    "keras": {"saved_model", "onnx", "openvino", "tflite", "graph_def"},
    "checkpoint": set(KINDS),
}
"""What is made of what."""


@pytest.mark.parametrize("source", [*KINDS, *sorted(LIVE), "python"])
def test_every_pair_has_a_step_or_a_reason(source: str) -> None:
    for target in KINDS:
        if target in WAYS.get(source, ()):
            step = step_between(source, target)
            assert step.writes == target
            assert source in step.reads
            assert step.name in steps()
        else:
            said = rf"^FAILED_PRECONDITION: it is {target} already" if source == target else r"; .*|code that calls"
            with pytest.raises(ServingError, match=said):
                step_between(source, target)


def test_steps_of_sources_that_no_engine_loads_have_a_reference() -> None:
    for step in STEPS:
        assert bool(step.reference) == bool(step.reads & LIVE)


def test_what_was_made_for_a_runtime_is_not_folded() -> None:
    assert fold_step("onnx").writes == "onnx"
    with pytest.raises(ServingError, match="freeze or convert it first"):
        fold_step("saved_model")

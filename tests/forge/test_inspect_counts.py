"""What is counted, against figures made by hand, and against each other: one model in several formats."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.engines.base import Artifact
from servable.forge.inspection.costs import Cost, count, total
from servable.forge.inspection.formats import artifact_at, inspect
from servable.forge.inspection.graph import Graph, Inspection
from servable.forge.inspection.summary import summarize
from servable.zoo import catalog

MODELS = Path(__file__).parent / "inspect_models"
needs = {
    name: pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")
    for name in ("h5py", "onnx", "torch", "ai_edge_litert")
}

FIRST = 16 * 16 * 8 * (3 * 3 * 3)
SECOND = 16 * 16 * 8 * 8
THIRD = 6 * 6 * 8 * (3 * 3)
HEAD = 8 * 10
NORM = 16 * 16 * 8
PICTURES = FIRST + SECOND + THIRD + HEAD
PICTURE_WEIGHTS = (27 * 8 + 8) + 4 * 8 + (8 * 8 + 8) + (9 * 8 + 8) + (8 * 10 + 10)


def read(name: str, **bound: tuple[int, ...]) -> Inspection:
    artifact = artifact_at(MODELS / name)
    assert artifact is not None
    return inspect(artifact, bound)


def the_graph(found: Inspection) -> Graph:
    return next(iter(found.graphs.values()))


def cost(found: Inspection) -> Cost:
    counted = count(the_graph(found))
    assert [(one.node.name, one.reason) for one in counted if one.cost is None] == [], found.notes
    return total(counted)


def weights(found: Inspection) -> int:
    return sum(parameter.count for parameter in found.parameters().values())


@pytest.mark.parametrize(
    ("name", "multiply_adds"),
    [
        pytest.param("pictures.keras", PICTURES + NORM, marks=needs["h5py"]),
        pytest.param("pictures.h5", PICTURES + NORM, marks=needs["h5py"]),
        ("pictures.pb", PICTURES),  # freezing wrote the normalization out
        ("pictures.pbtxt", PICTURES),
        pytest.param("pictures.tflite", PICTURES, marks=needs["ai_edge_litert"]),  # and the converter folded it
        pytest.param("pictures_int8.tflite", PICTURES, marks=needs["ai_edge_litert"]),
    ],
)
def test_one_network_costs_the_same_in_every_format(name: str, multiply_adds: int) -> None:
    assert cost(read(name)).multiply_adds == multiply_adds


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        pytest.param("pictures.keras", PICTURE_WEIGHTS, marks=needs["h5py"]),
        pytest.param("pictures.h5", PICTURE_WEIGHTS, marks=needs["h5py"]),
        ("pictures.pb", PICTURE_WEIGHTS),
        pytest.param("tokens.keras", 50 * 16 + 4 * 8 * 25 + 2 * 4 * 4 * 13 + 8 * 2 + 2, marks=needs["h5py"]),
        ("tokens", 50 * 16 + 4 * 8 * 25 + 2 * 4 * 4 * 13 + 8 * 2 + 2),
        ("states.pb", 4 * 8 * 17 + 2 * 8),  # frozen, the states to begin with are constants like weights
        ("states.tflite", 4 * 8 * 17 + 2 * 8),
    ],
)
def test_weights_are_those_of_the_network(name: str, numbers: int) -> None:
    found = read(name)
    assert weights(found) == numbers
    assert sum(parameter.size_bytes for parameter in found.parameters().values()) == 4 * numbers


def test_what_training_keeps_is_no_parameter(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "trained.keras"
    with zipfile.ZipFile(MODELS / "pictures.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = io.BytesIO(old.read(name))
            if name == "model.weights.h5":
                with h5py.File(data, "a") as file:
                    file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)
                    file["optimizer/vars/1"] = np.zeros(500, np.float32)
            new.writestr(name, data.getvalue())
    assert weights(inspect(Artifact("keras", path))) == PICTURE_WEIGHTS


@needs["ai_edge_litert"]
def test_quantized_weights_take_a_byte_and_biases_four() -> None:
    parameters = read("pictures_int8.tflite").parameters().values()
    assert {parameter.dtype for parameter in parameters} == {"int8", "int32"}
    assert sum(parameter.size_bytes for parameter in parameters if parameter.dtype == "int8") == 27 * 8 + 64 + 72 + 80


STATES = 20 * (4 * 8 * (16 + 8))
BOTH = 2 * 20 * (4 * 4 * (8 + 4))


@pytest.mark.parametrize("name", [pytest.param("tokens.keras", marks=needs["h5py"]), "tokens"])
def test_loops_are_counted_as_often_as_they_run(name: str) -> None:
    assert cost(read(name)).multiply_adds == STATES + BOTH + 8 * 2


@pytest.mark.parametrize("name", ["states.pb", "states.tflite"])
def test_loops_inside_frozen_files_too(name: str) -> None:
    found = read(name)
    assert cost(found).multiply_adds == 20 * (4 * 8 * (8 + 8))
    assert any("runs its body 20 times" in line for line in summarize(the_graph(found)).loops)


TORCH_PICTURES = 16 * 16 * 8 * 27 + 7 * 7 * 8 * 72 + 8 * 10
ATTENTION = 20 * 24 * 8 + 2 * 20 * 20 * (4 + 4) + 20 * 8 * 8


@pytest.mark.parametrize(
    ("name", "multiply_adds"),
    [
        ("pictures.pt2", TORCH_PICTURES + NORM),
        ("tokens.pt2", 20 * 32 * (16 + 8) + 20 * 32 * (8 + 8) + ATTENTION + 8 * 2),
    ],
)
def test_programs_of_torch_export(name: str, multiply_adds: int) -> None:
    assert cost(read(name)).multiply_adds == multiply_adds


@needs["torch"]
def test_torchscript_is_counted_as_it_runs() -> None:
    found = read("pictures.pt", x=(1, 3, 16, 16))
    assert cost(found).multiply_adds == TORCH_PICTURES + NORM


def test_a_larger_batch_costs_as_much_more() -> None:
    one, four = cost(read("pictures.pb")), cost(read("pictures.pb", image=(4, 16, 16, 3)))
    assert four.multiply_adds == 4 * one.multiply_adds
    four_pairs = cost(read("tokens.pt2", tokens=(4, 20)))
    assert four_pairs.multiply_adds == 4 * cost(read("tokens.pt2")).multiply_adds


@needs["ai_edge_litert"]
def test_litert_says_what_shapes_follow_from_a_batch() -> None:
    assert cost(read("pictures.tflite", image=(3, 16, 16, 3))).multiply_adds == 3 * PICTURES


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("onnx", reason="example models are built by onnx")
    folder = tmp_path_factory.mktemp("zoo")
    return {name: catalog.build(name, folder) for name in ("text_cnn_small", "lstm_tokens")}


def onnx_file(zoo: dict[str, Path], name: str) -> Artifact:
    return Artifact("onnx", next(zoo[name].rglob("*.onnx")))


def test_onnx_against_figures_made_by_hand(zoo: dict[str, Path]) -> None:
    branches = sum((50 - width + 1) * 128 * (width * 128) for width in (3, 4, 5))
    assert cost(inspect(onnx_file(zoo, "text_cnn_small"))).multiply_adds == branches + 384 * 2
    layers = 3 * 50 * (4 * 128 * (128 + 128))
    found = inspect(onnx_file(zoo, "lstm_tokens"))
    assert cost(found).multiply_adds == layers + 128 * 2
    assert weights(found) == 20000 * 128 + 3 * (4 * 128 * 256 + 8 * 128) + 128 * 2 + 2


def test_openvino_against_onnx(zoo: dict[str, Path], tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    source = onnx_file(zoo, "text_cnn_small")
    openvino.save_model(openvino.convert_model(str(source.path)), str(tmp_path / "model.xml"), False)
    made = inspect(Artifact("openvino", tmp_path / "model.xml"))
    assert _products(made) == _products(inspect(source)) > 9_000_000
    assert weights(made) == weights(inspect(source))


def _products(found: Inspection) -> int:
    kinds = ("Convolution", "MatMul", "Conv", "Gemm")
    return total([one for one in count(the_graph(found)) if one.node.type in kinds]).multiply_adds


def test_what_depends_on_an_unknown_size_is_unknown(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "free",
        [helper.make_tensor_value_info("x", kind, ["n", "time", 4])],
        [helper.make_tensor_value_info("y", kind, ["n", "time", 2])],
        [helper.make_tensor("w", kind, [4, 2], [0.5] * 8)],
    )
    path = tmp_path / "free.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    found = inspect(Artifact("onnx", path))
    (one,) = count(the_graph(found))
    assert (one.cost, one.reason) == (None, "the shape of x is not known")
    assert found.notes == ("x is free in dimension 1: give --shape x=1,?,4",)
    assert cost(inspect(Artifact("onnx", path), {"x": (2, 7, 4)})).multiply_adds == 2 * 7 * 2 * 4


def test_shapes_that_a_graph_computes_are_followed(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind, integers = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    steps = [
        ("Shape", ["x"], ["sizes"], {}),
        ("Gather", ["sizes", "first"], ["batch"], {"axis": 0}),
        ("Mul", ["batch", "two"], ["rows"], {}),
        ("Reshape", ["rows", "one_dim"], ["rows_again"], {"allowzero": 0}),
        ("Concat", ["rows_again", "minus"], ["wanted"], {"axis": 0}),
        ("Reshape", ["x", "wanted"], ["flat"], {"allowzero": 1}),
        ("MatMul", ["flat", "w"], ["y"], {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(op, given, made, name=made[0], **more) for op, given, made, more in steps],
        "computed",
        [helper.make_tensor_value_info("x", kind, ["n", 6, 4])],
        [helper.make_tensor_value_info("y", kind, None)],
        [
            helper.make_tensor("first", integers, [1], [0]),
            helper.make_tensor("two", integers, [1], [2]),
            helper.make_tensor("one_dim", integers, [1], [-1]),
            helper.make_tensor("minus", integers, [1], [-1]),
            helper.make_tensor("w", kind, [12, 5], [0.5] * 60),
        ],
    )
    path = tmp_path / "computed.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    assert cost(inspect(Artifact("onnx", path), {"x": (3, 6, 4)})).multiply_adds == (2 * 3) * 5 * 12


def test_quantized_recurrent_layers_of_onnx_runtime(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind, byte = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT8
    given = ["x", "w", "r", "", "", "", "", "", "scale", "zero", "scale", "zero"]
    layer = helper.make_node(
        "DynamicQuantizeLSTM", given, ["states"], name="lstm", domain="com.microsoft", hidden_size=8
    )
    graph = helper.make_graph(
        [layer, helper.make_node("Relu", ["states"], ["y"], name="active")],
        "quantized",
        [helper.make_tensor_value_info("x", kind, [20, "n", 6])],
        [helper.make_tensor_value_info("y", kind, None)],
        [
            helper.make_tensor("w", byte, [1, 6, 32], [1] * 192),
            helper.make_tensor("r", byte, [1, 8, 32], [1] * 256),
            helper.make_tensor("scale", kind, [1], [0.5]),
            helper.make_tensor("zero", byte, [1], [0]),
        ],
    )
    path = tmp_path / "quantized.onnx"
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())
    found = inspect(Artifact("onnx", path), {"x": (20, 2, 6)})
    assert cost(found).multiply_adds == 20 * 2 * 32 * (6 + 8)
    assert the_graph(found).shape("y") == (20, 1, 2, 8)
    assert {node.type for node in the_graph(found).nodes} == {"DynamicQuantizeLSTM", "Relu"}


@pytest.mark.parametrize(
    ("bound", "text"),
    [
        ({"images": (1, 16, 16, 3)}, "there is no input 'images'; there are image"),
        ({"image": (1, 16, 3)}, "does not fit image: float32[?,16,16,3]"),
        ({"image": (1, 17, 16, 3)}, "does not fit image"),
    ],
)
def test_shapes_that_no_input_has_are_refused(bound: dict[str, Any], text: str) -> None:
    with pytest.raises(ServingError) as caught:
        read("pictures.pb", **bound)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert text in caught.value.message

"""What is particular to ONNX Runtime and ONNX files; the rest is in the engines' contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from servable.core.errors import Code, ServingError
from servable.engines import onnx_model
from servable.engines.base import Artifact, EngineOptions, Model
from servable.engines.onnxruntime import OnnxRuntimeEngine

F32 = TensorProto.FLOAT


def info(name: str, kind: int, shape: list[int | str] | None) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def proto(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, Any] | None = None) -> Any:
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def load(folder: Path, model: Any, **options: Any) -> Model:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return OnnxRuntimeEngine().load(Artifact("onnx", path), EngineOptions(**options))


def product() -> Any:
    return proto(
        [helper.make_node("MatMul", ["a", "b"], ["y"])],
        [info("a", F32, ["n", "k"]), info("b", F32, ["l", "m"])],
        [info("y", F32, ["n", "m"])],
    )


def test_unknown_rank_is_told_from_a_scalar(tmp_path: Path) -> None:
    model = proto(
        [helper.make_node("Neg", ["any"], ["y"]), helper.make_node("Neg", ["scalar"], ["z"])],
        [info("any", F32, None), info("scalar", F32, [])],
        [info("y", F32, None), info("z", F32, [])],
    )
    signature = load(tmp_path, model).signatures["serving_default"]
    assert str(signature) == "serving_default(any: float32[...], scalar: float32[]) -> y: float32[...], z: float32[]"


def test_weights_that_an_old_file_lists_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    model = proto(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        [info("x", F32, ["n"]), info("w", F32, [1])],
        [info("y", F32, ["n"])],
        {"w": np.array([3], np.float32)},
    )
    loaded = load(tmp_path, model)
    assert list(loaded.signatures["serving_default"].inputs) == ["x"]
    assert loaded.run("serving_default", {"x": np.ones(2, np.float32)}, ("y",))["y"].tolist() == [3, 3]


def test_a_wrong_shape_says_what_was_expected(tmp_path: Path) -> None:
    model = proto([helper.make_node("Neg", ["x"], ["y"])], [info("x", F32, ["n", 3])], [info("y", F32, ["n", 3])])
    with pytest.raises(ServingError) as failure:
        load(tmp_path, model).run("serving_default", {"x": np.zeros((2, 4), np.float32)}, ("y",))
    assert failure.value.code is Code.INVALID_ARGUMENT
    assert "Got: 4 Expected: 3" in failure.value.message
    assert "x: float32[?,3]" in failure.value.message
    assert "ONNXRuntimeError" not in failure.value.message


def test_shapes_that_an_operator_finds_not_to_fit_are_the_clients_fault(tmp_path: Path) -> None:
    inputs = {"a": np.zeros((2, 3), np.float32), "b": np.zeros((4, 5), np.float32)}
    with pytest.raises(ServingError, match=r"MatMul: .*dimension mismatch \(serving_default\(a: ") as failure:
        load(tmp_path, product()).run("serving_default", inputs, ("y",))
    assert failure.value.code is Code.INVALID_ARGUMENT


def test_memory_that_cannot_be_had_is_no_fault_of_the_request(tmp_path: Path) -> None:
    model = proto(
        [helper.make_node("Expand", ["x", "sizes"], ["y"])],
        [info("x", F32, []), info("sizes", TensorProto.INT64, ["n"])],
        [info("y", F32, None)],
    )
    loaded = load(tmp_path, model)
    for sizes in ([2**46, 1], [2**31, 2**31]):
        with pytest.raises(ServingError) as failure:
            loaded.run("serving_default", {"x": np.array(1, np.float32), "sizes": np.array(sizes)}, ("y",))
        assert failure.value.code is Code.RESOURCE_EXHAUSTED
        assert "onnxruntime_src" not in failure.value.message


def test_text_that_is_not_utf8_is_refused_by_its_input(tmp_path: Path) -> None:
    kind = TensorProto.STRING
    model = proto([helper.make_node("Identity", ["s"], ["t"])], [info("s", kind, ["n"])], [info("t", kind, ["n"])])
    strings = np.array([b"fine", b"\xff"], dtype=object)
    with pytest.raises(ServingError, match="input 's' holds a string that is not UTF-8") as failure:
        load(tmp_path, model).run("serving_default", {"s": strings}, ("t",))
    assert failure.value.code is Code.INVALID_ARGUMENT


def test_an_operator_that_it_does_not_know_stops_the_load_by_name(tmp_path: Path) -> None:
    model = proto([helper.make_node("Teleport", ["x"], ["y"])], [info("x", F32, ["n"])], [info("y", F32, ["n"])])
    with pytest.raises(ServingError, match="Teleport") as failure:
        load(tmp_path, model)
    assert failure.value.code is Code.FAILED_PRECONDITION


def test_what_is_not_a_tensor_stops_the_load_by_name(tmp_path: Path) -> None:
    pairs = helper.make_tensor_sequence_value_info("pairs", F32, None)
    model = proto([helper.make_node("SequenceConstruct", ["x"], ["pairs"])], [info("x", F32, ["n"])], [pairs])
    with pytest.raises(ServingError, match="output 'pairs' is a sequence; only tensors can be served") as failure:
        load(tmp_path, model)
    assert failure.value.code is Code.UNIMPLEMENTED


def test_reduced_precision_is_not_promised(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="not at bf16"):
        load(tmp_path, product(), precision="bf16")


def test_threads_wait_without_spinning_and_are_as_many_as_asked_for(tmp_path: Path) -> None:
    session = load(tmp_path, product(), intra_op_threads=3)._session  # type: ignore[attr-defined]
    options = session.get_session_options()
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.get_session_config_entry("session.inter_op.allow_spinning") == "0"
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_a_file_cut_at_any_byte_is_incomplete_or_still_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    whole = product().SerializeToString()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert onnx_model.missing(path) is not None, length
    path.write_bytes(whole)
    assert onnx_model.missing(path) is None


def test_external_data_must_be_there_as_long_as_it_is_said_to_be(tmp_path: Path) -> None:
    weights = np.arange(1000, dtype=np.float32)
    model = proto(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        [info("x", F32, ["n", 1000])],
        [info("y", F32, ["n", 1000])],
        {"w": weights},
    )
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=100)
    assert onnx_model.missing(path) is None
    data = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(data[:-1])
    assert onnx_model.missing(path) == f"{tmp_path / 'weights.bin'} has {len(data) - 1} of at least {len(data)} bytes"
    (tmp_path / "weights.bin").unlink()
    assert onnx_model.missing(path) == f"there is no {tmp_path / 'weights.bin'}, which holds 'w'"

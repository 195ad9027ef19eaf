"""Builds the contract's models as ONNX files, and as OpenVINO models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from tests.contract.cases import BIAS, CASES, TABLE, TYPES, WEIGHTS

from servable.core.signatures import TensorSpec
from servable.core.tensors import Array

_ONNX_TYPES = {
    "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16, "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE, "float8_e5m2": TensorProto.FLOAT8E5M2, "float8_e4m3fn": TensorProto.FLOAT8E4M3FN,
    "int8": TensorProto.INT8, "int16": TensorProto.INT16, "int32": TensorProto.INT32, "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8, "uint16": TensorProto.UINT16, "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64, "bool": TensorProto.BOOL, "string": TensorProto.STRING,
    "complex64": TensorProto.COMPLEX64,
}  # fmt: skip


def constant(name: str, value: Array) -> Any:
    return onnx.numpy_helper.from_array(value, name)


def _parts(name: str) -> tuple[list[Any], list[Any]]:
    node = helper.make_node
    if name == "perceptron":
        nodes = [
            node("Tanh", ["x"], ["t"]),
            node("Gemm", ["t", "w", "b"], ["logits"]),
            node("Softmax", ["logits"], ["probabilities"], axis=-1),
            node("ArgMax", ["logits"], ["label"], axis=-1, keepdims=0),
        ]
        return nodes, [constant("w", WEIGHTS), constant("b", BIAS)]
    if name == "two_inputs":
        return [node("Sub", ["a", "b"], ["difference"]), node("Mul", ["a", "b"], ["product"])], []
    if name == "tokens":
        nodes = [node("Gather", ["table", "ids"], ["rows"]), node("ReduceMean", ["rows", "axis"], ["mean"], keepdims=0)]
        return nodes, [constant("table", TABLE), constant("axis", np.array([1]))]
    nodes = [node("Mul", ["x", "two"], ["d"]), node("Add", ["d", "one"], ["y"])]
    return nodes, [constant("two", np.array(2, np.float32)), constant("one", np.array(1, np.float32))]


def info(spec: TensorSpec) -> Any:
    shape = None if spec.shape is None else ["n" if size is None else size for size in spec.shape]
    return helper.make_tensor_value_info(spec.name, _ONNX_TYPES[spec.dtype.name], shape)


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]) -> Any:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def typed(type_name: str) -> Any:
    """Return a model that gives a vector of that type back as one row."""
    kind = _ONNX_TYPES[type_name]
    return model(
        [helper.make_node("Reshape", ["x", "row"], ["y"])],
        [helper.make_tensor_value_info("x", kind, ["n"])],
        [helper.make_tensor_value_info("y", kind, [1, "n"])],
        [constant("row", np.array([1, -1]))],
    )


def build(folder: Path) -> None:
    """Write each model as ``NAME/1/model.onnx``."""
    for name, case in CASES.items():
        nodes, constants = _parts(name)
        inputs = [info(spec) for spec in case.signature.inputs.values()]
        outputs = [info(spec) for spec in case.signature.outputs.values()]
        _write(model(nodes, inputs, outputs, constants), folder / name / "1")
    for name in TYPES:
        _write(typed(name), folder / f"type_{name}" / "1")


def convert(onnx_models: Path, folder: Path) -> None:
    """Write those that OpenVINO reads as ``NAME/1/model.xml``, weights in float32."""
    import openvino

    core = openvino.Core()
    for source in sorted(onnx_models.glob("*/1/model.onnx")):
        try:
            graph = core.read_model(source)
        except RuntimeError:
            continue
        openvino.save_model(graph, folder / source.parts[-3] / "1" / "model.xml", compress_to_fp16=False)


def _write(proto: Any, version: Path) -> None:
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(proto.SerializeToString())

"""ONNX graphs as torch modules: every operation answers as ONNX Runtime does, or is refused by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.core.tensors import Array
from servable.engines.base import Artifact
from servable.forge.steps import Task

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(one) is None for one in ("torch", "onnx")), reason="torch and onnx are not both here"
)

RANDOM = np.random.default_rng(3)


def floats(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


X = floats(2, 3, 8, 8)
ROWS = floats(2, 6)
Case = tuple[str, str, Sequence[Array], Sequence[Array], dict[str, Any]]
CASES: list[Case] = [
    ("conv", "Conv", [X], [floats(4, 3, 3, 3), floats(4)], {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ("conv of groups", "Conv", [floats(2, 4, 9)], [floats(6, 2, 3)], {"group": 2, "dilations": [2]}),
    ("conv of the same size", "Conv", [X], [floats(4, 3, 3, 3)], {"auto_pad": "SAME_LOWER", "strides": [3, 3]}),
    ("mean with padding", "AveragePool", [X], [], {"kernel_shape": [3, 3], "pads": [1, 1, 0, 1], "strides": [2, 2]}),
    (
        "mean that counts padding",
        "AveragePool",
        [X],
        [],
        {"kernel_shape": [3, 3], "pads": [1, 1, 0, 1], "count_include_pad": 1},
    ),
    ("largest", "MaxPool", [X - 9], [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("norm", "BatchNormalization", [X], [floats(3), floats(3), floats(3), np.abs(floats(3))], {"epsilon": 1e-2}),
    ("layer norm", "LayerNormalization", [ROWS], [floats(6), floats(6)], {"axis": -1}),
    ("gemm", "Gemm", [ROWS], [floats(4, 6), floats(4)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("lstm", "LSTM", [floats(5, 2, 3)], [floats(1, 16, 3), floats(1, 16, 4), floats(1, 32)], {"hidden_size": 4}),
    (
        "lstm both ways",
        "LSTM",
        [floats(5, 2, 3)],
        [floats(2, 16, 3), floats(2, 16, 4), floats(2, 32)],
        {"hidden_size": 4, "direction": "bidirectional", "activations": ["Sigmoid", "Tanh", "Tanh"] * 2},
    ),
    (
        "gru",
        "GRU",
        [floats(5, 2, 3)],
        [floats(1, 12, 3), floats(1, 12, 4), floats(1, 24)],
        {"hidden_size": 4, "linear_before_reset": 1, "activations": ["Sigmoid", "Tanh"]},
    ),
    ("reshape", "Reshape", [X], [ints(0, -1, 4)], {}),
    ("mean of axes", "ReduceMean", [X], [ints(1, -1)], {"keepdims": 0}),
    ("sum of all", "ReduceSum", [X], [], {}),
    ("place", "ArgMax", [ROWS], [], {"axis": 1, "keepdims": 0}),
    ("squeeze", "Squeeze", [floats(2, 1, 3, 1)], [ints(1, 3)], {}),
    ("unsqueeze", "Unsqueeze", [ROWS], [ints(0, -1)], {}),
    ("gather from the end", "Gather", [X], [ints(-1, 1)], {"axis": 1}),
    ("slice", "Slice", [X], [ints(1, -5), ints(99, -1), ints(2, 3), ints(2, 1)], {}),
    ("pad", "Pad", [X], [ints(0, 0, 1, 2, 0, 0, 3, 0), np.array(0.5, np.float32)], {}),
    ("pad by reflection", "Pad", [X], [ints(0, 0, 1, 2, 0, 0, 3, 0)], {"mode": "reflect"}),
    ("clip", "Clip", [X], [np.array(-0.5, np.float32), np.array(0.5, np.float32)], {}),
    ("cast", "Cast", [X * 9], [], {"to": 7}),
    ("division of integers", "Div", [np.array([[-7, 7]], np.int64)], [ints(2)], {}),
    ("expand", "Expand", [floats(2, 1, 3)], [ints(2, 4, 1)], {}),
    ("transpose", "Transpose", [X], [], {}),
    ("softmax", "Softmax", [X], [], {"axis": 1}),
    ("hard sigmoid", "HardSigmoid", [X], [], {"alpha": 0.3}),
    ("flatten", "Flatten", [X], [], {"axis": 2}),
    ("sum of several", "Sum", [ROWS, ROWS * 2, ROWS * 3], [], {}),
]


def model_of(
    operation: str, inputs: Sequence[Array], constants: Sequence[Array], attributes: dict[str, Any], opset: int = 18
) -> Any:
    from onnx import ValueInfoProto, helper, numpy_helper

    given = [f"x{place}" for place in range(len(inputs))]
    kept = [f"c{place}" for place in range(len(constants))]
    graph = helper.make_graph(
        [helper.make_node(operation, [*given, *kept], ["y"], **attributes)],
        "one",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in zip(given, inputs, strict=True)
        ],
        [ValueInfoProto(name="y")],
        [numpy_helper.from_array(value, name) for name, value in zip(kept, constants, strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def computed(model: Any, inputs: Sequence[Array]) -> Array:
    import torch

    from servable.forge.conversion.onnx_module import OnnxModule

    module = OnnxModule(model, [value.name for value in model.graph.input])
    with torch.no_grad():
        found: Array = module(*map(torch.tensor, inputs))["y"].numpy()
    return found


@pytest.mark.parametrize("case", CASES, ids=[case[0].replace(" ", "-") for case in CASES])
def test_an_operation_answers_as_onnx_runtime_does(case: Case) -> None:
    import onnxruntime

    _, operation, inputs, constants, attributes = case
    model = model_of(operation, inputs, constants, attributes)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {f"x{place}": value for place, value in enumerate(inputs)})

    found = computed(model, inputs)

    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_what_is_made_of_sizes_is_known_before() -> None:
    from onnx import helper

    model = model_of("Identity", [X], [ints(1)], {})
    del model.graph.node[:]
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["x0"], ["sizes"], start=0, end=2),
            helper.make_node("ReduceProd", ["sizes"], ["first"], keepdims=1),
            helper.make_node("Neg", ["c0"], ["rest"]),
            helper.make_node("Concat", ["first", "rest"], ["wanted"], axis=0),
            helper.make_node("Reshape", ["x0", "wanted"], ["y"]),
        ]
    )
    assert computed(model, [X]).tolist() == X.reshape(6, -1).tolist()


@pytest.mark.parametrize(
    ("operation", "inputs", "constants", "attributes", "said"),
    [
        ("Det", [floats(2, 3, 3)], [], {}, "operation Det (y) is not translated"),
        ("Reshape", [X, ints(2, -1)], [], {}, "x1 is computed from values; it must be known before"),
        ("Slice", [X], [ints(-1), ints(-9), ints(3), ints(-1)], {}, "operation Slice (y) goes backwards"),
        ("AveragePool", [X], [], {"kernel_shape": [3, 3], "ceil_mode": 1}, "has ceil_mode 1, which is not translated"),
        (
            "GRU",
            [floats(5, 2, 3)],
            [floats(1, 12, 3), floats(1, 12, 4)],
            {"hidden_size": 4},
            "resets before its product",
        ),
        (
            "LSTM",
            [floats(5, 2, 3)],
            [floats(1, 16, 3), floats(1, 16, 4)],
            {"hidden_size": 4, "activations": ["Sigmoid", "Relu", "Tanh"]},
            "has activations ['Sigmoid', 'Relu', 'Tanh'], which is not translated",
        ),
    ],
)
def test_what_torch_has_not_is_refused_by_name(
    operation: str, inputs: Sequence[Array], constants: Sequence[Array], attributes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ServingError) as refused:
        computed(model_of(operation, inputs, constants, attributes), inputs)
    assert refused.value.code == Code.UNIMPLEMENTED
    assert said in refused.value.message


def test_a_file_that_cannot_be_converted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from servable.forge.conversion import converters
    from servable.forge.conversion.onnx_to_tflite import to_tflite

    monkeypatch.setattr(converters, "missing", lambda _name: "")
    path = tmp_path / "one.onnx"
    model = model_of("Det", [floats(2, 3, 3)], [], {})
    model.graph.output[0].type.tensor_type.elem_type = 1
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ServingError, match=r"one\.onnx: operation Det"):
        to_tflite(Artifact("onnx", path), tmp_path, Task())
    model.graph.output[0].type.tensor_type.elem_type = 8
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ServingError, match="onnx to tflite: y: text is not translated"):
        to_tflite(Artifact("onnx", path), tmp_path, Task())

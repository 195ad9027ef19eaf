from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from servable.engines.onnx_skeleton import read_skeleton
from servable.zoo import catalog


def without_values(model: onnx.ModelProto) -> onnx.ModelProto:
    expected = onnx.ModelProto()
    expected.CopyFrom(model)
    for tensor in expected.graph.initializer:
        for field in (
            "raw_data",
            "float_data",
            "int32_data",
            "int64_data",
            "string_data",
            "double_data",
            "uint64_data",
        ):
            tensor.ClearField(field)
    return expected


def odd_model() -> onnx.ModelProto:
    weights = [
        numpy_helper.from_array(np.arange(1000, dtype=np.float32), "raw"),
        helper.make_tensor("typed", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]),
        helper.make_tensor("ints", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("empty", TensorProto.FLOAT, [0], []),
    ]
    node = helper.make_node("Add", ["x", "raw"], ["y"], doc_string="d" * 300)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1000]) for name in "xy")
    graph = helper.make_graph([node], "odd", [x], [y], weights, doc_string="a graph")
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("name", ["odd", "text_cnn", "lstm_tokens"])
def test_everything_but_the_values_is_there(name: str, tmp_path: Path) -> None:
    if name == "odd":
        path = tmp_path / "model.onnx"
        onnx.save(odd_model(), path)
    else:
        path = catalog.build(name, tmp_path) / "model.onnx"
    model = onnx.load(path)
    skeleton = read_skeleton(path)
    assert onnx.ModelProto.FromString(skeleton) == without_values(model)
    assert len(skeleton) < 20_000


def test_a_file_cut_anywhere_is_noticed_or_lacks_its_end(tmp_path: Path) -> None:
    whole = odd_model().SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            found = onnx.ModelProto.FromString(read_skeleton(path))
        except ValueError as error:
            assert "byte" in str(error)  # noqa: PT017  # most cuts raise, the rest lack the end
        else:
            assert not found.opset_import


@pytest.mark.parametrize("content", [b"\xff" * 20, b"\x07", b"\x3a\x05\x2a\x7f\x00\x00\x00", b"\x0c\x00"])
def test_what_is_no_message_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="at byte"):
        read_skeleton(path)

"""What a SavedModel says about itself, read without TensorFlow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.engines import saved_model_writer as writer
from tests.engines.saved_model_writer import FLOAT, GraphWriter

from servable.core.errors import Code, ServingError
from servable.core.signatures import TensorSpec
from servable.core.tensors import FLOAT32, INT64, STRING
from servable.engines import savedmodel
from servable.engines.graph import Graph, edge
from servable.engines.tensor_proto import to_array
from servable.protos import tensorflow


def test_signatures_have_inputs_by_name_types_shapes_nodes_and_method(tmp_path: Path) -> None:
    graph = GraphWriter()
    graph.signature(
        "named",
        {"z": ("z:0", FLOAT, (-1, 3)), "a": ("a:0", writer.STRING, None)},
        {"scores": ("call:1", writer.INT64, ())},
        "tensorflow/serving/classify",
    )
    found = savedmodel.read(writer.write(tmp_path, graph)).signatures["named"]
    assert list(found.inputs) == ["a", "z"]
    assert found.inputs["a"] == TensorSpec("a", STRING, None, "a:0")
    assert found.inputs["z"] == TensorSpec("z", FLOAT32, (None, 3), "z:0")
    assert list(found.outputs.values()) == [TensorSpec("scores", INT64, (), "call:1")]
    assert found.method_name == "tensorflow/serving/classify"
    assert not found.defaults


def test_defaults_are_arrays(tmp_path: Path) -> None:
    graph = GraphWriter()
    signature = graph.signature("s", {"x": ("x:0", FLOAT, (2,)), "k": ("k:0", writer.INT32, ())}, {})
    signature.defaults["x"].CopyFrom(
        tensorflow.TensorProto(dtype=FLOAT, float_val=[1.5], tensor_shape={"dim": [{"size": 2}]})
    )
    signature.defaults["k"].CopyFrom(tensorflow.TensorProto(dtype=writer.INT32, int_val=[-7]))
    defaults = savedmodel.read(writer.write(tmp_path, graph)).signatures["s"].defaults
    assert defaults["x"].tolist() == [1.5, 1.5]
    assert defaults["k"].shape == ()
    assert defaults["k"].dtype == np.int32
    assert defaults["k"].item() == -7


def test_a_signature_that_gives_no_tensor_is_listed_by_the_name_of_its_type(tmp_path: Path) -> None:
    graph = writer.half_plus_two()
    graph.signature("__saved_model_init_op", {}, {"__saved_model_init_op": ("NoOp", 0, None)}, "")
    found = savedmodel.read(writer.write(tmp_path, graph)).signatures
    assert list(found) == ["__saved_model_init_op", "serving_default"]
    assert found["__saved_model_init_op"].outputs["__saved_model_init_op"].dtype.name == "invalid"


@pytest.mark.rule("flag-11", "savedmodel-1")
def test_the_meta_graph_is_chosen_by_its_exact_set_of_tags(tmp_path: Path) -> None:
    plain, accelerated = GraphWriter("serve"), GraphWriter("serve", "gpu")
    plain.signature("plain", {}, {})
    accelerated.signature("accelerated", {}, {})
    writer.write(tmp_path, accelerated, plain)
    assert list(savedmodel.read(tmp_path).signatures) == ["plain"]
    assert list(savedmodel.read(tmp_path, ("gpu", "serve")).signatures) == ["accelerated"]
    with pytest.raises(ServingError) as failure:
        savedmodel.read(tmp_path, ("train",))
    assert failure.value.code is Code.NOT_FOUND
    assert failure.value.message.startswith(
        "Could not find meta graph def matching supplied tags: { train }. To inspect available tag-sets in the "
        "SavedModel, please use the SavedModel CLI: `saved_model_cli`"
    )
    assert "{ gpu serve }" in failure.value.message


def test_operations_are_those_the_signature_reaches_through_functions_and_branches(tmp_path: Path) -> None:
    graph = writer.half_plus_two()
    graph.node("DecodeJpeg", "unreached", "x")
    library = graph.meta_graph.graph_def.library
    for name, op in (("outer", "If"), ("yes", "Tanh"), ("no", "Relu"), ("effect", "Assert")):
        function = library.function.add()
        function.signature.name = name
        node = function.node_def.add(name="inner", op=op, input=["x"])
        function.node_def.add(name="side", op="PrintV2", input=["x"])
        function.ret["y"] = "inner:y:0"
        if name == "outer":
            node.attr["then_branch"].func.name = "yes"
            node.attr["else_branch"].func.name = "no"
            function.control_ret["side"] = "side"
    graph.node("PartitionedCall", "call", "add", "^logged").attr["f"].func.name = "outer"
    graph.node("NoOp", "logged")
    graph.signature("through", {}, {"y": ("call:0", FLOAT, None)})
    model = savedmodel.read(writer.write(tmp_path, graph))
    assert set(model.operations("serving_default")) == {"Placeholder", "Const", "Mul", "AddV2"}
    assert set(model.operations("through")) == set(model.operations("serving_default")) | {
        "PartitionedCall", "NoOp", "If", "Tanh", "Relu", "PrintV2"
    }  # fmt: skip


def test_edges_and_the_cycles_of_old_loops() -> None:
    assert [edge("a"), edge("a:2"), edge("a:out:3"), edge("^a")] == [
        ("a", 0, False), ("a", 2, False), ("a", 3, False), ("a", 0, True)
    ]  # fmt: skip
    nodes = [
        tensorflow.NodeDef(name="merge", op="Merge", input=["enter", "next"]),
        tensorflow.NodeDef(name="next", op="NextIteration", input=["merge"]),
        tensorflow.NodeDef(name="enter", op="Enter"),
    ]
    graph = Graph(tensorflow.GraphDef(node=nodes))
    assert {node.name for node in graph.reached(["merge:0"])} == {"merge", "next", "enter"}


def test_a_whole_model_without_variables_is_complete(tmp_path: Path) -> None:
    assert savedmodel.missing(writer.write(tmp_path, writer.half_plus_two())) is None


def test_a_graph_cut_at_any_byte_is_noticed(tmp_path: Path) -> None:
    whole = (writer.write(tmp_path, writer.half_plus_two()) / "saved_model.pb").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "saved_model.pb").write_bytes(whole[:length])
        assert str(tmp_path) in (savedmodel.missing(tmp_path) or "")


@pytest.mark.parametrize("by", ["a variable", "a variable in a function", "a restore operation", "a folder"])
def test_variables_that_did_not_come_yet_are_noticed(tmp_path: Path, by: str) -> None:
    graph = writer.half_plus_two()
    if by == "a variable":
        graph.node("VarHandleOp", "v", dtype=FLOAT)
    elif by == "a variable in a function":
        graph.meta_graph.graph_def.library.function.add().node_def.add(name="v", op="VariableV2")
    elif by == "a restore operation":
        graph.meta_graph.saver_def.restore_op_name = "restore"
    else:
        (tmp_path / "variables").mkdir()
    writer.write(tmp_path, graph)
    assert savedmodel.missing(tmp_path) == f"there is no {tmp_path / 'variables' / 'variables.index'}"


def test_an_asset_that_did_not_come_yet_is_noticed(tmp_path: Path) -> None:
    graph = writer.half_plus_two()
    graph.meta_graph.asset_file_def.add(filename="words.txt")
    writer.write(tmp_path, graph)
    assert savedmodel.missing(tmp_path) == f"there is no {tmp_path / 'assets' / 'words.txt'}"
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "words.txt").touch()
    assert savedmodel.missing(tmp_path) is None


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        ({"dtype": 9, "int64_val": [2**40, 2], "tensor_shape": {"dim": [{"size": 3}]}}, [2**40, 2, 2]),
        ({"dtype": 4, "int_val": [300, 1], "tensor_shape": {"dim": [{"size": 1}]}}, [44]),
        ({"dtype": 19, "half_val": [0x3C00], "tensor_shape": {"dim": [{"size": 1}]}}, [1.0]),
        ({"dtype": 7, "string_val": [b"a"], "tensor_shape": {"dim": [{"size": 2}]}}, [b"a", b"a"]),
        ({"dtype": 7, "tensor_shape": {"dim": [{"size": 1}]}}, [b""]),
        ({"dtype": 8, "scomplex_val": [1, -2], "tensor_shape": {"dim": [{"size": 1}]}}, [1 - 2j]),
        ({"dtype": 10, "tensor_shape": {"dim": [{"size": 2}]}}, [False, False]),
        ({"dtype": 23, "uint64_val": [2**64 - 1], "tensor_shape": {"dim": [{"size": 1}]}}, [2**64 - 1]),
        ({"dtype": 1, "tensor_content": b"\0\0\x80\x3f", "tensor_shape": {"dim": [{"size": 1}]}}, [1.0]),
    ],
)
def test_constants_follow_the_rules_of_their_proto(proto: dict[str, object], expected: list[object]) -> None:
    assert to_array(tensorflow.TensorProto(**proto)).tolist() == expected


def test_a_constant_whose_content_does_not_fit_is_data_loss() -> None:
    short = tensorflow.TensorProto(dtype=1, tensor_content=b"\0" * 7, tensor_shape={"dim": [{"size": 2}]})
    negative = tensorflow.TensorProto(dtype=1, tensor_shape={"dim": [{"size": -1}]})
    for proto in (short, negative, tensorflow.TensorProto(dtype=20)):
        with pytest.raises(ServingError) as failure:
            to_array(proto)
        assert failure.value.code is Code.DATA_LOSS

"""What is particular to OpenVINO; the rest is in the engines' contract and in the tests of SavedModels."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from openvino import opset13 as op
from tests.engines import saved_model_writer as writer
from tests.engines.saved_model_writer import INT64, GraphWriter

from servable.core.errors import Code, ServingError
from servable.engines.base import Artifact, EngineOptions, Model
from servable.engines.openvino import OpenVinoEngine, missing_part_of_ir
from servable.engines.openvino_flow import DATA, SMALL, Bounds, Flow, added, merged, selected
from servable.engines.openvino_limits import check
from servable.engines.savedmodel import read
from servable.protos import tensorflow


def put(folder: Path, graph: Any) -> Artifact:
    openvino.save_model(graph, folder / "model.xml", compress_to_fp16=False)
    return Artifact("openvino", folder / "model.xml")


def load(artifact: Artifact, **options: Any) -> Model:
    return OpenVinoEngine().load(artifact, EngineOptions(**options))


def named(node: Any, name: str) -> Any:
    node.output(0).set_names({name})
    return node


def scaled(*sizes: int) -> Any:
    """Return y = x @ W for x of a shape."""
    x = named(op.parameter(sizes, np.float32), "x")
    return openvino.Model([named(op.matmul(x, np.eye(3, dtype=np.float32) * 2, False, False), "y")], [x])


def compiled(model: Any) -> Any:
    return model._programs["serving_default"]._declared._idle[0].infers.get_compiled_model()


def test_streams_share_the_threads_and_answer_calls_at_once(tmp_path: Path) -> None:
    model = load(put(tmp_path, scaled(-1, 3)), intra_op_threads=2, streams=2)
    found = compiled(model)
    assert (found.get_property("NUM_STREAMS"), found.get_property("INFERENCE_NUM_THREADS")) == (2, 2)
    assert model.concurrent
    with ThreadPoolExecutor(2) as pool:  # new shapes in both threads, again and again
        for rows in range(1, 40):
            cuts = [np.full((count, 3), count, np.float32) for count in (rows, rows + 1)]
            answers = pool.map(lambda x: model.run("serving_default", {"x": x}, ("y",))["y"], cuts)
            for cut, answer in zip(cuts, answers, strict=True):
                assert np.array_equal(answer, 2 * cut)


def test_a_saved_model_needs_no_tensorflow(tmp_path: Path) -> None:
    model = load(Artifact("saved_model", writer.write(tmp_path, writer.half_plus_two())))
    for shape in ((3, 1), (1,), (), (2,), (1, 2), (0, 1)):
        x = np.full(shape, 3, np.float32)
        y = model.run("serving_default", {"x": x}, ("y",))["y"]
        assert (y.shape, y.tolist()) == (shape, (x / 2 + 2).tolist())


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_the_precision_asked_for_is_the_precision_computed_in(tmp_path: Path, precision: str) -> None:
    model = load(put(tmp_path, scaled(-1, 3)), precision=precision)
    expected = {"f32": openvino.Type.f32, "bf16": openvino.Type.bf16}[precision]
    assert model.precision == precision
    assert compiled(model).get_property("INFERENCE_PRECISION_HINT") == expected


def test_other_precisions_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="f32 or bf16, not at int8"):
        load(put(tmp_path, scaled(-1, 3)), precision="int8")


def test_threads_are_as_many_as_asked_for_in_one_stream(tmp_path: Path) -> None:
    found = compiled(load(put(tmp_path, scaled(-1, 3)), intra_op_threads=1))
    assert found.get_property("INFERENCE_NUM_THREADS") == 1
    assert found.get_property("NUM_STREAMS") == 1
    assert not found.get_property("ENABLE_CPU_PINNING")


def test_an_inner_dimension_that_nobody_declared_is_not_read_beyond_its_end(tmp_path: Path) -> None:
    model = load(put(tmp_path, scaled(-1, -1)))
    with pytest.raises(ServingError, match=r"x: \[2, 1\] do not fit; expected x: \['\?', '\?'\]") as failure:
        model.run("serving_default", {"x": np.ones((2, 1), np.float32)}, ("y",))
    assert failure.value.code is Code.INVALID_ARGUMENT
    assert model.run("serving_default", {"x": np.ones((2, 3), np.float32)}, ("y",))["y"].tolist() == [[2, 2, 2]] * 2


def test_declared_shapes_of_its_own_models_are_binding(tmp_path: Path) -> None:
    x = named(op.parameter([-1, 3], np.float32), "x")
    model = load(put(tmp_path, openvino.Model([named(op.relu(x), "y")], [x])))
    with pytest.raises(ServingError, match=r"expected x: \['\?', 3\]"):
        model.run("serving_default", {"x": np.ones((2, 4), np.float32)}, ("y",))


def test_a_rank_that_nobody_declared_is_compiled_when_it_comes(tmp_path: Path) -> None:
    x = named(op.parameter(openvino.PartialShape.dynamic(), np.float32), "x")
    model = load(put(tmp_path, openvino.Model([named(op.relu(x), "y")], [x])))
    assert str(model.signatures["serving_default"].inputs["x"]) == "float32[...]"
    for shape in ((), (2,), (2, 3)):
        assert model.run("serving_default", {"x": np.ones(shape, np.float32)}, ("y",))["y"].shape == shape


def test_what_it_cannot_hold_in_its_own_models_is_refused_by_name(tmp_path: Path) -> None:
    x = named(op.parameter([-1], np.float64), "x")
    with pytest.raises(ServingError, match="cannot hold float64 exactly: 'x'"):
        load(put(tmp_path, openvino.Model([named(op.relu(x), "y")], [x])))


def test_an_ir_is_complete_when_its_weights_are_as_long_as_it_says(tmp_path: Path) -> None:
    path = put(tmp_path, scaled(-1, 3)).path
    weights = path.with_suffix(".bin")
    assert missing_part_of_ir(path) is None
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert missing_part_of_ir(path) == f"{weights} has {len(whole) - 1} of at least {len(whole)} bytes"
    weights.unlink()
    assert missing_part_of_ir(path) == f"there is no {weights}"


def test_an_ir_cut_anywhere_or_of_another_kind_is_incomplete(tmp_path: Path) -> None:
    path = put(tmp_path, scaled(-1, 3)).path
    whole = path.read_bytes().rstrip()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert "damaged or not complete" in (missing_part_of_ir(path) or "")
    path.write_text("<html/>")
    assert "its root is <html>" in (missing_part_of_ir(path) or "")


def integers(*nodes: tuple[str, str, tuple[str, ...]]) -> GraphWriter:
    """Return a graph on int64 ids[?], a table of ten rows, and nodes (operation, name, inputs); fetches the last."""
    graph = GraphWriter()
    graph.placeholder("ids", INT64, -1)
    graph.constant("table", np.zeros((10, 2), np.float32), writer.FLOAT)
    for name, number in (("zero", 0), ("one", 1), ("rows", 10)):
        graph.constant(name, np.array(number, np.int64), INT64)
    for operation, name, inputs in nodes:
        graph.node(operation, name, *inputs, T=INT64)
    graph.signature("s", {"ids": ("ids:0", INT64, (-1,))}, {"y": (f"{nodes[-1][1]}:0", INT64, None)})
    return graph


def bounds(folder: Path, graph: GraphWriter) -> Bounds:
    model = read(writer.write(folder, graph))
    return check(model, model.signatures["s"])["ids"]


@pytest.mark.parametrize(
    ("nodes", "low", "high"),
    [
        ([("Identity", "y", ("ids",))], -(2**24), 2**24),
        ([("GatherV2", "y", ("table", "ids", "zero"))], 0, 9),
        ([("GatherV2", "y", ("table", "ids", "one"))], -(2**24), 2**24),
        ([("AddV2", "next", ("ids", "one")), ("GatherV2", "y", ("table", "next", "zero"))], -1, 8),
        ([("ReverseV2", "other", ("ids", "zero")), ("GatherV2", "y", ("table", "other", "zero"))], -(2**24), 2**24),
        (
            [
                ("Less", "negative", ("ids", "zero")),
                ("AddV2", "moved", ("ids", "rows")),
                ("SelectV2", "wrapped", ("negative", "moved", "ids")),
                ("GatherV2", "y", ("table", "wrapped", "zero")),
            ],
            -10,
            9,
        ),
    ],
)
def test_ids_are_bounded_by_the_table_that_they_index(
    tmp_path: Path, nodes: list[tuple[str, str, tuple[str, ...]]], low: int, high: int
) -> None:
    found = bounds(tmp_path, integers(*nodes))
    assert (found.low, found.high) == (low, high)


@pytest.mark.parametrize("nodes", [[("Mul", "y", ("ids", "one"))], [("AddV2", "y", ("ids", "ids"))]])
def test_integers_that_may_grow_are_refused_with_their_operation(
    tmp_path: Path, nodes: list[tuple[str, str, tuple[str, ...]]]
) -> None:
    with pytest.raises(ServingError, match=rf"operation {nodes[0][0]} \(node y\) on int64 that may become too large"):
        bounds(tmp_path, integers(*nodes))


def test_integers_that_come_from_shapes_may_grow(tmp_path: Path) -> None:
    nodes = [("Shape", "shape", ("ids",)), ("Mul", "square", ("shape", "shape")), ("Sum", "y", ("square", "zero"))]
    assert bounds(tmp_path, integers(*((op, name, inputs) for op, name, inputs in nodes))).high == 2**24


def test_integers_that_grow_turn_by_turn_in_a_loop_are_found(tmp_path: Path) -> None:
    graph = integers(("Identity", "kept", ("ids",)))
    library = graph.meta_graph.graph_def.library
    for name, op_name in (("body", "Mul"), ("cond", "Less")):
        function = library.function.add()
        function.signature.name = name
        function.signature.input_arg.add(name="small")
        function.signature.input_arg.add(name="large")
        operation = function.node_def.add(name="op", op=op_name, input=["small", "small"])
        operation.attr["T"].type = INT64
        for output, source in (("a", "large"), ("b", "op:z:0")) if name == "body" else (("go", "op:z:0"),):
            function.signature.output_arg.add(name=output)
            function.ret[output] = source
    loop = graph.node("While", "loop", "one", "ids")
    loop.attr["body"].func.name = "body"
    loop.attr["cond"].func.name = "cond"
    graph.signature("s", {"ids": ("ids:0", INT64, (-1,))}, {"y": ("loop:1", INT64, None)})
    with pytest.raises(ServingError, match="operation Mul"):
        bounds(tmp_path, graph)


def test_looking_at_a_graph_changes_nothing_in_it(tmp_path: Path) -> None:
    graph = integers(("StridedSlice", "cut", ("ids", "zero", "one", "one")), ("Cast", "y", ("cut",)))
    model = read(writer.write(tmp_path, graph))
    before = model.meta_graph.SerializeToString(deterministic=True)
    check(model, model.signatures["s"])
    assert model.meta_graph.SerializeToString(deterministic=True) == before


def test_flows_merge_to_what_holds_for_all() -> None:
    ids = Flow(data=True, origin="ids")
    assert merged([]) == SMALL
    assert merged([ids, ids]) == ids
    assert merged([ids, SMALL]) == DATA
    assert added(ids, Flow(value=(3,))).offset == 3
    assert selected(Flow(negative_of="other"), added(ids, Flow(value=(10,))), ids) == DATA


def test_bounds_name_what_lies_outside() -> None:
    both = Bounds(-5, 5, "wide").within(Bounds(0, 9, "of the table"))
    assert (both.low, both.high) == (0, 5)
    assert both.violation(np.array([0, 5])) is None
    assert both.violation(np.array([], np.int64)) is None
    assert both.violation(np.array([3, 6])) == 6
    assert both.violation(np.array([-1, 3])) == -1


def test_an_input_in_the_middle_of_the_graph_is_refused(tmp_path: Path) -> None:
    graph = writer.half_plus_two()
    graph.signature("s", {"m": ("mul:0", writer.FLOAT, (-1, 1))}, {"y": ("add:0", writer.FLOAT, (-1, 1))})
    model = read(writer.write(tmp_path, graph))
    with pytest.raises(ServingError, match="input 'm' feeds mul:0, which is not a placeholder"):
        check(model, model.signatures["s"])
    assert tensorflow.SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes()).meta_graphs

"""Graphs as TensorBoard and browsers are given them, and how what is drawn is grouped and arranged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.report.browser import CHROMIUM, Browser

from servable.core.errors import ServingError
from servable.engines import frozen_graph
from servable.engines.base import Artifact
from servable.forge.inspection.as_text import as_text, write_text
from servable.forge.inspection.costs import count
from servable.forge.inspection.formats import artifact_at, inspect
from servable.forge.inspection.graph import Graph, Inspection, Node
from servable.forge.inspection.grouping import Box, boxes, live_nodes, span
from servable.forge.inspection.layering import arrange
from servable.forge.inspection.names import scopes
from servable.forge.inspection.page import page, write_page
from servable.forge.inspection.summary import summarize
from servable.forge.inspection.tensorboard import graph_def, write_events
from servable.protos import tensorflow
from servable.protos.tfrecord import read_records

MODELS = Path(__file__).parent / "inspect_models"


def read(name: str) -> Inspection:
    artifact = artifact_at(MODELS / name)
    assert artifact is not None
    return inspect(artifact)


def the_graph(found: Inspection) -> Graph:
    return next(iter(found.graphs.values()))


# -- TensorBoard -------------------------------------------------------------------------------------------------------


def events(folder: Path) -> list[Any]:
    (path,) = folder.glob("events.out.tfevents.*")
    return [tensorflow.Event.FromString(record) for record in read_records(path)]


def test_a_graph_is_written_as_it_is(tmp_path: Path) -> None:
    write_events(read("pictures.pb"), tmp_path / "logs")
    version, graph = events(tmp_path / "logs" / "graph")
    assert version.file_version == "brain.Event:2"
    written = tensorflow.GraphDef.FromString(graph.graph_def)
    given = tensorflow.GraphDef.FromString((MODELS / "pictures.pb").read_bytes())
    assert [(node.name, node.op, list(node.input)) for node in written.node] == [
        (node.name, node.op, list(node.input)) for node in given.node
    ]


def test_values_of_long_constants_are_left_out(tmp_path: Path) -> None:
    write_events(read("tokens"), tmp_path)
    _, graph = events(tmp_path / "saved_model")
    written = tensorflow.GraphDef.FromString(graph.graph_def)
    assert written.library.function
    assert all(node.attr["value"].tensor.ByteSize() <= 512 for node in written.node if "value" in node.attr)
    assert {path.name for path in tmp_path.iterdir()} == {"saved_model", "classify", "serving_default"}


# -- text --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pictures.pb", "tokens", "states.tflite"])
def test_a_graph_as_text_is_read_again(tmp_path: Path, name: str) -> None:
    given = read(name)
    path = write_text(given, tmp_path / "graph.pbtxt")
    found = inspect(Artifact("graph_def", path))
    lines = path.read_text().splitlines()
    assert lines[0].startswith(f"# {given.kind} {name}, ")
    assert any(line.startswith("# serving_default(") for line in lines) or given.kind != "saved_model"
    assert "node {" in lines
    if given.kind == "graph_def":
        assert summarize(the_graph(found)).cost == summarize(the_graph(given)).cost
    # Long values are left out, and an engine does not take that for zeros.
    with pytest.raises(ServingError, match=r"was written to be read: \S+ has no value|is not frozen"):
        frozen_graph.check_frozen(frozen_graph.read(path), path)


def test_several_signatures_stand_side_by_side_in_a_text(tmp_path: Path) -> None:
    found = replace(read("tokens"), kind="tflite")
    text = as_text(found)
    assert 'name: "classify/' in text
    assert 'name: "serving_default/' in text
    assert "for people and servable inspect" in text.lower()


def test_text_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="cannot be written: "):
        write_text(read("pictures.pb"), tmp_path / "absent" / "graph.pbtxt")


@pytest.mark.parametrize("name", ["states.tflite", "pictures.pt2", "tokens.pt2", "tokens"])
def test_other_formats_are_translated_with_names_shapes_and_attributes(name: str) -> None:
    graph = the_graph(read(name))
    made = graph_def(graph)
    names = {node.name for node in made.node}
    assert len(names) == len(made.node)
    for node in made.node:
        assert all(source.partition(":")[0] in names for source in node.input)
    walked = list(graph.walk())
    assert len([node for node in made.node if node.op not in ("Placeholder", "Const")]) == len(
        [node for _, node in walked if node.type not in ("Placeholder", "Const")]
    )


def test_a_translated_node_tells_what_it_is() -> None:
    nodes = {node.name: node for node in graph_def(the_graph(read("pictures.pt2"))).node}
    first = nodes["first/conv2d"]
    assert (first.op, list(first.input)) == ("conv2d", ["x", "first.weight", "first.bias"])
    assert list(first.attr["padding"].list.i) == [1, 1]
    assert [dim.size for dim in first.attr["_output_shapes"].list.shape[0].dim] == [1, 8, 16, 16]


# -- boxes in boxes ----------------------------------------------------------------------------------------------------


def chain(count_: int, prefix: str = "") -> Graph:
    nodes = [
        Node(f"{prefix}step{number}", "Relu", (f"t{number}",), (f"t{number + 1}",), {}) for number in range(count_)
    ]
    return Graph("onnx", tuple(nodes), {}, ("t0",), (f"t{count_}",))


def drawn(graph: Graph) -> Box:
    return boxes(graph, count(graph))


def test_levels_with_too_many_operations_are_cut_where_one_tensor_leads_on() -> None:
    root = drawn(chain(100))
    assert len(root.children) <= 32
    assert len([leaf for leaf in root.leaves() if leaf.kind == "op"]) == 100
    assert all(child.kind == "part" for child in root.children)
    assert len(root.edges) == len(root.children) - 1


def test_groups_are_the_scopes_of_names() -> None:
    root = drawn(the_graph(read("pictures.pt2")))
    names = {child.name: child for child in root.children}
    assert names["block"].kind == "scope"
    assert [leaf.name for leaf in names["block"].leaves()] == ["0/conv2d_1", "1/relu_1"]


def test_what_no_input_reaches_is_not_drawn() -> None:
    graph = the_graph(read("tokens"))
    kinds = {node.type for node in live_nodes(graph)}
    assert "ReadVariableOp" not in kinds
    assert {"MatMul", "While"} & kinds == {"MatMul", "While"}


def test_rows_follow_the_edges_and_long_edges_have_lanes() -> None:
    rows = arrange(4, [(0, 1), (1, 2), (2, 3), (0, 3)], [0, 1, 2, 3])
    assert rows == [[0], [1, -4], [2, -4], [3]]
    assert arrange(3, [(0, 1), (1, 0), (1, 2)], [0, 1, 2]) == [[0], [1], [2]]
    assert arrange(0, [], []) == [[]]


def test_items_stand_where_their_neighbours_are() -> None:
    rows = arrange(6, [(0, 3), (1, 4), (2, 5)], [0, 1, 2, 5, 4, 3])
    assert rows == [[0, 1, 2], [3, 4, 5]]


# -- the page ----------------------------------------------------------------------------------------------------------


def test_a_page_asks_for_nothing_and_holds_no_markup_of_others(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    evil = "</script><script>alert(1)</script>"
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], [evil], name=evil)],
        "evil",
        [helper.make_tensor_value_info("x", kind, [1])],
        [helper.make_tensor_value_info(evil, kind, [1])],
    )
    path = tmp_path / "<evil>.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    text = page(inspect(Artifact("onnx", path)))
    assert text == page(inspect(Artifact("onnx", path)))
    assert text.count("<script") == 2
    assert "alert(1)</script>" not in text
    assert "http:" not in text.replace("http://www.w3.org/2000/svg", "")
    data = text.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(data)["graphs"][0]["root"]["children"][1]["full"] == evil


def test_a_group_is_called_by_its_ends_without_what_both_are_in() -> None:
    assert span("a/b/Conv", "a/c/Relu") == "b/Conv … c/Relu"
    assert span("a/Conv", "a/Conv") == "Conv"
    assert span("Conv", "a/Relu") == "Conv … a/Relu"


def test_what_passes_into_a_function_stands_inside_of_it() -> None:
    assert scopes("Func/call/input/_0") == scopes("call/input/_0")
    assert scopes("Func/x") == ("Func", "x")
    assert scopes("call/Func/x") == ("call", "Func", "x")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    path = write_page(read("tokens"), tmp_path / "tokens.html")
    with Browser() as browser:
        for width in (1300, 390):
            browser.open(path, width)
            assert browser.evaluate("document.querySelectorAll('svg .box').length") > 4
            assert "2,034 parameters" in browser.evaluate("document.getElementById('facts').textContent")
            browser.evaluate(
                "(() => { const search = document.getElementById('search'); search.value = 'matmul while';"
                " search.dispatchEvent(new Event('input')); })()"
            )
            assert browser.evaluate("document.querySelectorAll('#found button').length") == 6
            browser.evaluate("document.querySelector('#found button').click()")
            about = browser.evaluate("document.getElementById('about').innerText")
            assert "MatMul" in about
            assert "runs" in about
            assert "20 times" in about
            assert browser.evaluate("document.querySelector('svg .chosen') !== null")
            assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
            strips = "document.querySelectorAll('main .strip').length"
            assert browser.evaluate(f"dispatchEvent(new Event('beforeprint')) && {strips}") == browser.evaluate(
                "JSON.parse(document.getElementById('data').textContent).graphs[0].root.rows.length"
            )
            assert browser.evaluate(f"dispatchEvent(new Event('afterprint')) && {strips}") == 0
            assert browser.complaints() == []

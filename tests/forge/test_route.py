"""Words of a person become steps: from the newest exact artifact, with as few conversions as will do."""

from __future__ import annotations

import pytest

from servable.core.errors import ServingError
from servable.forge.pipeline.optimized import pareto
from servable.forge.pipeline.route import Node, check_words, find_route, resolver
from servable.forge.steps import Step
from servable.forge.verify import Tolerance

LOSSY = Tolerance(rtol=None, atol=None, cosine=0.9)


def step(name: str, reads: str, writes: str, *, lossy: bool = False) -> Step:
    return Step(name, name, frozenset(reads.split()), writes, "nowhere:nothing", LOSSY if lossy else Tolerance())


TABLE = {
    one.name: one
    for one in (
        step("to-onnx", "saved_model graph_def", "onnx"),
        step("to-openvino", "saved_model onnx", "openvino"),
        step("freeze", "saved_model", "graph_def"),
        step("fold-graph_def", "graph_def", "graph_def"),
        step("fold-onnx", "onnx", "onnx"),
        step("squash-onnx", "onnx", "onnx", lossy=True),
        step("squash-openvino", "openvino", "openvino", lossy=True),
    )
}
GIVEN = Node("given", "saved_model", exact=True)


def names(word: str, *nodes: Node, failed: tuple[tuple[str, str], ...] = ()) -> list[str] | None:
    route = find_route(word, nodes, TABLE, resolver(TABLE), failed)
    return None if route is None else [route.source, *(one.name for one in route.steps)]


def test_a_step_takes_the_newest_artifact_that_it_reads() -> None:
    frozen = Node("freeze", "graph_def", exact=True)
    assert names("freeze", GIVEN) == ["given", "freeze"]
    assert names("fold", GIVEN, frozen) == ["freeze", "fold-graph_def"]
    assert names("fold", GIVEN, frozen, Node("fold", "graph_def", exact=True)) == ["fold", "fold-graph_def"]


def test_conversions_are_put_in_where_they_are_needed() -> None:
    assert names("squash", GIVEN) == ["given", "to-onnx", "squash-onnx"], "ONNX before OpenVINO if both would do"
    assert names("squash-openvino", GIVEN) == ["given", "to-openvino", "squash-openvino"]
    frozen = Node("freeze", "graph_def", exact=True)
    assert names("squash", GIVEN, frozen) == ["freeze", "to-onnx", "squash-onnx"]
    assert names("squash", GIVEN, frozen, Node("onnx", "onnx", exact=True)) == ["onnx", "squash-onnx"]


def test_what_failed_is_gone_round() -> None:
    frozen = Node("freeze", "graph_def", exact=True)
    assert names("squash", GIVEN, frozen, failed=(("freeze", "to-onnx"),)) == ["given", "to-onnx", "squash-onnx"]
    round_about = names("squash", GIVEN, failed=(("given", "to-onnx"),))
    assert round_about is not None
    assert round_about[-1] == "squash-openvino"
    model, openvino = Node("given", "onnx", exact=True), Node("openvino", "openvino", exact=True)
    lost = (("openvino", "squash-openvino"), ("given", "squash-openvino"))
    assert names("squash-openvino", model, openvino, failed=lost) is None, "nor by another conversion to the same"
    assert names("squash", model, openvino, failed=lost) == ["given", "squash-onnx"]
    assert names("fold-onnx", Node("m", "tflite", exact=True)) is None


@pytest.mark.parametrize("words", [[], ["freeze", "freeze"], ["freez"], ["freeze+nothing"]])
def test_words_that_mean_nothing_are_refused_before_anything_is_done(words: list[str]) -> None:
    with pytest.raises(ServingError, match=r"step|twice"):
        check_words(words, TABLE)
    check_words(["freeze", "fold", "freeze+squash", "int8"], TABLE)


def test_the_front_has_what_nothing_beats() -> None:
    points = [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0), (2.5, 2.5), (3.0, 3.0), (2.0, 2.0)]
    assert [points[place] for place in pareto(points)] == [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]
    assert pareto([]) == []

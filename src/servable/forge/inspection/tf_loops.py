"""How often a loop of a TensorFlow graph runs, where its counter, its step and its bound are constants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from servable.engines.graph import Graph, attribute, edge
from servable.engines.tensor_proto import to_array
from servable.forge.inspection.tf_known import Known

_SAME = frozenset({"Identity", "StopGradient", "Cast", "EnsureShape"})


def carried(definitions: Graph, body: str, inputs: Sequence[Known]) -> list[Known]:
    """Return what is known of the loop's variables in every round: values only of those that it hands on unchanged."""
    return [
        known if _handed_on(definitions, body, place) else known.without_value() for place, known in enumerate(inputs)
    ]


def trips(definitions: Graph, condition: str, body: str, inputs: Sequence[Known]) -> int | None:
    """Return how often the body runs; ``None`` where that depends on data or on an unknown bound."""
    names = [argument.name for argument in definitions.functions[condition].signature.input_arg]
    results = list(definitions.functions[condition].ret.values())
    terms = _terms(definitions, condition, results)
    counts = [_until(definitions, condition, body, node, names, inputs) for node in terms]
    known = [count for count in counts if count is not None]
    return min(known) if known and len(known) == len(counts) else None


def _terms(definitions: Graph, function: str, results: Sequence[str]) -> list[Any]:
    """Return the comparisons that all must hold; ``[None]`` where something else decides."""
    terms: list[Any] = []
    waiting = list(results)
    while waiting:
        node = _source(definitions, function, waiting.pop())
        if node is not None and node.op == "LogicalAnd":
            waiting += list(node.input)[:2]
        else:
            terms.append(node if node is not None and node.op in ("Less", "LessEqual", "Greater") else None)
    return terms


def _until(
    definitions: Graph, condition: str, body: str, node: Any, names: Sequence[str], inputs: Sequence[Known]
) -> int | None:
    if node is None:
        return None
    left, right = list(node.input)[:2]
    if node.op == "Greater":
        left, right = right, left
    place = _argument(definitions, condition, left, names)
    if place is None or place >= len(inputs):
        return None
    start, step = _value(inputs[place]), _step(definitions, body, place)
    bound = _bound(definitions, condition, body, right, names, inputs)
    if start is None or bound is None or step is None or step <= 0:
        return None
    return max(0, math.ceil((bound - start + (1 if node.op == "LessEqual" else 0)) / step))


def _bound(
    definitions: Graph, condition: str, body: str, text: str, names: Sequence[str], inputs: Sequence[Known]
) -> int | None:
    place = _argument(definitions, condition, text, names)
    if place is None:
        return _constant(_source(definitions, condition, text))
    if place >= len(inputs) or not _handed_on(definitions, body, place):
        return None
    return _value(inputs[place])


def _step(definitions: Graph, body: str, place: int) -> int | None:
    """Return what a round adds to a variable."""
    function = definitions.functions[body]
    names = [argument.name for argument in function.signature.input_arg]
    result = _result(function, place)
    node = None if result is None else _source(definitions, body, result)
    if node is None or node.op not in ("Add", "AddV2"):
        return None
    left, right = list(node.input)[:2]
    for counter, other in ((left, right), (right, left)):
        if _argument(definitions, body, counter, names) == place:
            return _constant(_source(definitions, body, other))
    return None


def _handed_on(definitions: Graph, body: str, place: int) -> bool:
    function = definitions.functions[body]
    names = [argument.name for argument in function.signature.input_arg]
    result = _result(function, place)
    return result is not None and _argument(definitions, body, result, names) == place


def _result(function: Any, place: int) -> str | None:
    outputs = function.signature.output_arg
    return function.ret.get(outputs[place].name) if place < len(outputs) else None


def _argument(definitions: Graph, function: str, text: str, names: Sequence[str]) -> int | None:
    """Return which argument a tensor is, seen through what changes nothing."""
    nodes = definitions.body(function).nodes
    while (node := nodes.get(edge(text).source)) is not None:
        if node.op not in _SAME or not node.input:
            return None
        text = node.input[0]
    name = edge(text).source
    return names.index(name) if name in names else None


def _source(definitions: Graph, function: str, text: str) -> Any | None:
    """Return the node that makes a tensor, seen through what changes nothing."""
    nodes = definitions.body(function).nodes
    node = nodes.get(edge(text).source)
    while node is not None and node.op in _SAME and node.input:
        node = nodes.get(edge(node.input[0]).source)
    return node


def _constant(node: Any | None) -> int | None:
    if node is None or node.op != "Const":
        return None
    array = to_array(attribute(node, "value").tensor)
    return int(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "iu" else None


def _value(known: Known) -> int | None:
    if known.value is None or known.value.size != 1 or known.value.dtype.kind not in "iu":
        return None
    return int(known.value.reshape(-1)[0])

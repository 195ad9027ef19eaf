"""Sizes that a graph with a fixed batch computes, made constants: TFLite's loops need those of their states.

No optimizer does this: what is fed might have another size than it says. So the graph is asked, twice and with other
values, and what depends on values stays as it is. What elements of lists have free, their first size, is the batch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

from servable.forge.conversion.tensorflow_graphs import Frozen, as_function, with_graph

_ELEMENT_SHAPES: Final = {
    "TensorListReserve": 0,
    "TensorListFromTensor": 1,
    "TensorListStack": 1,
    "TensorListGetItem": 2,
}
"""Operation on a list -> which of its inputs is the shape of an element."""


def settle_sizes(frozen: Frozen, rows: int) -> Frozen:
    """Return the graph, all of whose inputs have fixed shapes, with its sizes as constants."""
    graph = type(frozen.graph)()
    graph.CopyFrom(frozen.graph)
    known = _settled(frozen)
    for node in graph.node:
        if node.name in known:
            node.op = "Const"
            del node.input[:]
            node.attr.clear()
            _set(node, known[node.name])
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        for constant in _element_shapes(nodes):
            value = _tensor_util().MakeNdarray(constant.attr["value"].tensor).copy()
            if value.ndim == 1 and len(value) and value[0] < 0:
                value[0] = rows
                _set(constant, value)
    return with_graph(frozen, graph)


def _settled(frozen: Frozen) -> dict[str, Any]:
    """Return the nodes that give a size which does not depend on values, with that size."""
    names = [node.name for node in frozen.graph.node if node.op == "Shape"]
    if not names:
        return {}
    asked = as_function(frozen.graph, frozen.inputs, [f"{name}:0" for name in names])
    first, second = (_ask(asked, frozen, value) for value in (0, 1))
    return {name: one for name, one, other in zip(names, first, second, strict=True) if one.tolist() == other.tolist()}


def _ask(function: Any, frozen: Frozen, value: int) -> Sequence[Any]:
    tf: Any = importlib.import_module("tensorflow")
    inputs = [tf.fill(spec.shape, tf.cast(value, spec.dtype.name)) for spec in frozen.signature.inputs.values()]
    found = function(*inputs)
    return [one.numpy() for one in (found if isinstance(found, list | tuple) else [found])]


def _element_shapes(nodes: Sequence[Any]) -> Iterator[Any]:
    by_name = {node.name: node for node in nodes}
    for node in nodes:
        if node.op in _ELEMENT_SHAPES:
            source = by_name.get(node.input[_ELEMENT_SHAPES[node.op]].partition(":")[0])
            if source is not None and source.op == "Const":
                yield source


def _set(node: Any, value: Any) -> None:
    proto = _tensor_util().make_tensor_proto(value)
    node.attr["dtype"].type = proto.dtype
    node.attr["value"].tensor.CopyFrom(proto)


def _tensor_util() -> Any:
    return importlib.import_module("tensorflow.python.framework.tensor_util")

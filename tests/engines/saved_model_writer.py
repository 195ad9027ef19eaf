"""Writes SavedModels without TensorFlow, from our own definitions: a graph node by node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from servable.core.tensors import Array
from servable.protos import tensorflow

FLOAT, INT32, INT64, STRING = 1, 3, 9, 7


class GraphWriter:
    """One meta graph."""

    def __init__(self, *tags: str) -> None:
        self.meta_graph = tensorflow.MetaGraphDef()
        self.meta_graph.meta_info_def.tags.extend(tags or ("serve",))

    def node(self, op: str, name: str, *inputs: str, **types: int) -> Any:
        """Add a node; ``types`` are its type attributes. Returns it."""
        node = self.meta_graph.graph_def.node.add(op=op, name=name, input=inputs)
        for attribute, number in types.items():
            node.attr[attribute].type = number
        return node

    def placeholder(self, name: str, dtype: int, *shape: int) -> None:
        set_shape(self.node("Placeholder", name, dtype=dtype).attr["shape"].shape, *shape)

    def constant(self, name: str, value: Array, dtype: int) -> None:
        tensor = self.node("Const", name, dtype=dtype).attr["value"].tensor
        tensor.dtype = dtype
        tensor.tensor_content = value.tobytes()
        set_shape(tensor.tensor_shape, *value.shape)

    def signature(self, name: str, inputs: dict[str, Any], outputs: dict[str, Any], method: str = "m") -> Any:
        """Add a signature; inputs and outputs are alias -> (node, dtype, shape or None)."""
        signature = self.meta_graph.signature_def[name]
        signature.method_name = method
        for given, written in ((inputs, signature.inputs), (outputs, signature.outputs)):
            for alias, (node, dtype, shape) in given.items():
                written[alias].name = node
                written[alias].dtype = dtype
                if shape is None:
                    written[alias].tensor_shape.unknown_rank = True
                else:
                    set_shape(written[alias].tensor_shape, *shape)
        return signature


def set_shape(proto: Any, *shape: int) -> None:
    proto.Clear()
    for size in shape:
        proto.dim.add().size = size


def write(folder: Path, *graphs: GraphWriter) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    saved = tensorflow.SavedModel(saved_model_schema_version=1, meta_graphs=[graph.meta_graph for graph in graphs])
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    return folder


def half_plus_two() -> GraphWriter:
    """Return y = x / 2 + 2 for x[?,1], its numbers constants."""
    graph = GraphWriter()
    graph.placeholder("x", FLOAT, -1, 1)
    graph.constant("half", np.array(0.5, np.float32), FLOAT)
    graph.constant("two", np.array(2, np.float32), FLOAT)
    graph.node("Mul", "mul", "x", "half", T=FLOAT)
    graph.node("AddV2", "add", "mul", "two", T=FLOAT)
    graph.signature(
        "serving_default",
        {"x": ("x:0", FLOAT, (-1, 1))},
        {"y": ("add:0", FLOAT, (-1, 1))},
        "tensorflow/serving/predict",
    )
    return graph

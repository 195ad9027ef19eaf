"""Batch normalization folded into the convolution before it, in a frozen TensorFlow graph.

TensorFlow's own function for this (``optimize_for_inference_lib``) multiplies weights one by one in Python: half a
minute for a ResNet-50. This is the same arithmetic on whole arrays.
"""

from __future__ import annotations

import importlib
from collections import Counter
from typing import Any, Final

import numpy as np

from servable.core.tensors import Array

_NORMS: Final = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
_SUMS: Final = frozenset({"BiasAdd", "Add", "AddV2"})
_OUTPUTS_LAST: Final = {"Conv2D": True, "DepthwiseConv2dNative": False}


def fold_batch_norms(graph: Any, kept: frozenset[str]) -> tuple[Any, int]:
    """Return the graph with ``Conv2D`` [+ bias] + batch normalization as ``Conv2D`` + ``BiasAdd``, and how many went.

    A normalization keeps its name as the ``BiasAdd``, so what reads it need not change. Where the convolution or its
    weights are used elsewhere too, or are ``kept``, nothing is folded.
    """
    folding = _Folding(graph, kept)
    count = sum(folding.fold(node) for node in list(graph.node) if node.op in _NORMS)
    if not count:
        return graph, 0
    result = type(graph)()
    result.CopyFrom(graph)
    del result.node[:]
    result.node.extend(folding.nodes())
    return result, count


class _Folding:
    def __init__(self, graph: Any, kept: frozenset[str]) -> None:
        self._tensor_util: Any = importlib.import_module("tensorflow.python.framework.tensor_util")
        self._by_name = {node.name: node for node in graph.node}
        self._readers = Counter(_source(tensor) for node in graph.node for tensor in node.input)
        self._statistics = {tensor for node in graph.node for tensor in node.input if _port(tensor)}
        self._kept = kept
        self._order = [node.name for node in graph.node]
        self._replaced: dict[str, list[Any]] = {}

    def nodes(self) -> list[Any]:
        """Return all nodes, the folded ones in the place of what they replace."""
        return [node for name in self._order for node in self._replaced.get(name, [self._by_name[name]])]

    def fold(self, norm: Any) -> bool:
        """Fold one normalization if its surroundings allow it."""
        if norm.attr["is_training"].b or any(_source(tensor) == norm.name for tensor in self._statistics):
            return False
        below = self._by_name[_source(norm.input[0])]
        bias: Array | None = None
        between = None
        if below.op in _SUMS:
            between, bias = below, self._constant(below.input[1])
            below = self._by_name[_source(between.input[0])]
            if bias is None or bias.ndim > 1:
                return False
        statistics = [self._constant(tensor) for tensor in norm.input[1:5]]
        weights = self._constant(below.input[1]) if below.op in _OUTPUTS_LAST else None
        if weights is None or any(one is None for one in statistics) or not self._alone(below, between):
            return False
        gamma, beta, mean, variance = (np.asarray(one) for one in statistics)
        scale = gamma / np.sqrt(variance + norm.attr["epsilon"].f)
        offset = beta - (mean - (0 if bias is None else bias)) * scale
        last = _OUTPUTS_LAST[below.op]
        factors = scale if last else scale.reshape(weights.shape[2:])
        self._replace(norm, below, between, weights * factors, offset)
        return True

    def _alone(self, *nodes: Any) -> bool:
        return all(node is None or (self._readers[node.name] == 1 and node.name not in self._kept) for node in nodes)

    def _constant(self, tensor: str) -> Array | None:
        node = self._by_name[_source(tensor)]
        while node.op == "Identity":
            node = self._by_name[_source(node.input[0])]
        if node.op != "Const":
            return None
        array: Array = self._tensor_util.MakeNdarray(node.attr["value"].tensor)
        return array

    def _replace(self, norm: Any, convolution: Any, between: Any, weights: Array, offset: Array) -> None:
        kernel = self._new_constant(f"{convolution.name}/folded", weights.astype(np.float32))
        shift = self._new_constant(f"{norm.name}/offset", offset.astype(np.float32))
        narrow = type(convolution)()
        narrow.CopyFrom(convolution)
        narrow.input[1] = kernel.name
        added = type(norm)()
        added.name, added.op, added.device = norm.name, "BiasAdd", norm.device
        added.input.extend([narrow.name, shift.name])
        added.attr["T"].CopyFrom(convolution.attr["T"])
        added.attr["data_format"].CopyFrom(norm.attr["data_format"])
        self._replaced[convolution.name] = [kernel, narrow]
        self._replaced[norm.name] = [shift, added]
        if between is not None:
            self._replaced[between.name] = []

    def _new_constant(self, name: str, value: Array) -> Any:
        node = type(next(iter(self._by_name.values())))()
        node.name, node.op = name, "Const"
        node.attr["dtype"].type = 1  # DT_FLOAT
        node.attr["value"].tensor.CopyFrom(self._tensor_util.make_tensor_proto(value))
        return node


def _source(tensor: str) -> str:
    """Return the node that a tensor, or a control dependency, comes from."""
    return tensor.removeprefix("^").partition(":")[0]


def _port(tensor: str) -> bool:
    """Return whether it is not a node's first output."""
    return tensor.partition(":")[2] not in ("", "0")

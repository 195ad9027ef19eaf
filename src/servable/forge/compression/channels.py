"""Structured pruning: channels that matter least are cut out of a graph, so that what is left has less to compute.

A channel can go where one layer makes it and one layer reads it. What is added to or joined with others stays whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from servable.core.tensors import Array
from servable.forge.compression.graph import Graph, attribute
from servable.forge.compression.magnitude import strongest

_PASSES: Final = frozenset(
    {
        "AveragePool", "Clip", "Dropout", "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu", "MaxPool",
        "Relu", "Sigmoid", "Tanh",
    }
)  # fmt: skip
"""Operations that treat each channel for itself, and hold nothing about it."""


@dataclass(slots=True)
class _Way:
    """What lies between the layer that makes channels and the one that reads them."""

    norms: list[Any] = field(default_factory=list)
    reader: Any = None
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class Cut:
    """What was done to one layer. ``reason`` says why nothing was."""

    layer: str
    before: int
    after: int
    reason: str = ""


def cut_channels(graph: Graph, share: float) -> list[Cut]:
    """Cut that share of the channels of every layer where it can be done; return what was done, layer by layer."""
    cuts = []
    for node in graph.nodes:
        axis = _made_axis(graph, node)
        if axis is None:
            continue
        name, count = node.input[1], graph.array(node.input[1]).shape[axis]
        way = _Way(stopped="it is kept") if name in graph.kept else _way(graph, node, count)
        if way.reader is None:
            cuts.append(Cut(name, count, count, way.stopped))
            continue
        kept = strongest(_importance(graph, node, axis, way), share)
        _cut(graph, node, axis, way, kept)
        cuts.append(Cut(name, count, len(kept)))
    return cuts


def _made_axis(graph: Graph, node: Any) -> int | None:
    """Return the axis of a layer's kernel that counts what it makes, ``None`` for what is no such layer."""
    if node.op_type not in {"Conv", "Gemm", "MatMul"} or not graph.is_constant(node.input[1]):
        return None
    if graph.array(node.input[1]).ndim < 2 or len(graph.readers(node.input[1])) != 1:
        return None
    if node.op_type == "Conv":
        return 0 if attribute(node, "group", 1) == 1 else None
    if node.op_type == "MatMul":
        return 1 if graph.array(node.input[1]).ndim == 2 else None
    return 0 if attribute(node, "transB", 0) else 1


def _way(graph: Graph, node: Any, count: int) -> _Way:
    way, name = _Way(), node.output[0]
    way.stopped = _unlike(graph, node, count)
    if way.stopped:
        return way
    while True:
        readers = graph.readers(name)
        if name in graph.outputs:
            way.stopped = "it makes an output"
            return way
        if len(readers) != 1:
            way.stopped = f"{len(readers)} operations read what it makes"
            return way
        (following,) = readers
        if _reads_channels(graph, following, name):
            way.reader = following
            return way
        if following.op_type == "BatchNormalization" or _is_bias(graph, following, name):
            way.stopped = _unlike(graph, following, count)
            if way.stopped:
                return way
            way.norms.append(following)
        elif following.op_type not in _PASSES and not (following.op_type == "Flatten" and _flattens(following)):
            way.stopped = f"{following.op_type} reads what it makes"
            return way
        name = following.output[0]


def _unlike(graph: Graph, node: Any, count: int) -> str:
    """Return why the constants that a node has beside its kernel cannot be cut, "" if they can."""
    for name in node.input[1 if node.op_type in {"Add", "Mul", "BatchNormalization"} else 2 :]:
        if not graph.is_constant(name):
            continue
        if len(graph.readers(name)) != 1:
            return f"{name} is read by other layers too"
        if graph.array(name).size not in {1, count}:
            return f"{name} is not one number a channel"
    return ""


def _flattens(node: Any) -> bool:
    return bool(attribute(node, "axis", 1) == 1)


def _reads_channels(graph: Graph, node: Any, name: str) -> bool:
    if node.op_type not in {"Conv", "Gemm", "MatMul"} or node.input[0] != name or not graph.is_constant(node.input[1]):
        return False
    if len(graph.readers(node.input[1])) != 1:
        return False
    return bool(attribute(node, "group", 1) == 1 and attribute(node, "transA", 0) == 0)


def _is_bias(graph: Graph, node: Any, name: str) -> bool:
    """Return whether a node adds or multiplies one number a channel."""
    if node.op_type not in {"Add", "Mul"}:
        return False
    other = node.input[1] if node.input[0] == name else node.input[0]
    return graph.is_constant(other) and sum(size > 1 for size in graph.array(other).shape) == 1


def _importance(graph: Graph, node: Any, axis: int, way: _Way) -> Array:
    """Return how large each channel is: the norm of its kernel, as normalization scales it."""
    kernel = np.moveaxis(graph.array(node.input[1]), axis, 0)
    norm: Array = np.sqrt((kernel.reshape(len(kernel), -1).astype(np.float64) ** 2).sum(axis=1))
    for one in way.norms:
        if one.op_type == "BatchNormalization":
            scale, variance = graph.array(one.input[1]), graph.array(one.input[4])
            norm = norm * np.abs(scale) / np.sqrt(variance + attribute(one, "epsilon", 1e-5))
    return norm


def _cut(graph: Graph, node: Any, axis: int, way: _Way, kept: Array) -> None:
    count = graph.array(node.input[1]).shape[axis]
    graph.set(node.input[1], np.take(graph.array(node.input[1]), kept, axis))
    _cut_vectors(graph, node.input[2:], count, kept)
    for one in way.norms:
        _cut_vectors(graph, [name for name in one.input if graph.is_constant(name)], count, kept)
    reader = way.reader
    kernel = graph.array(reader.input[1])
    read_axis = 1 if reader.op_type == "Conv" or attribute(reader, "transB", 0) else 0
    # After a flattening each channel has as many rows as it had places.
    places = kernel.shape[read_axis] // count
    rows = (kept[:, np.newaxis] * places + np.arange(places)).reshape(-1)
    graph.set(reader.input[1], np.take(kernel, rows, read_axis))


def _cut_vectors(graph: Graph, names: Any, count: int, kept: Array) -> None:
    for name in names:
        array = graph.array(name)
        axes = [axis for axis, size in enumerate(array.shape) if size == count]
        if axes:
            graph.set(name, np.take(array, kept, axes[0]))

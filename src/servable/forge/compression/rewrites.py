"""Graphs whose kernels are stored in another way: as indices into a few values, or as two thin factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from servable.core.tensors import Array
from servable.forge.compression.codebook import share_values
from servable.forge.compression.factors import split
from servable.forge.compression.graph import Graph, attribute, node_of

_SMALLEST = 256
"""Kernels of fewer weights are left: what is stored beside them would be more."""


@dataclass(frozen=True, slots=True)
class Split:
    """A layer that became two; ``before`` and ``after`` count weights."""

    kernel: str
    rank: int
    before: int
    after: int


def cluster(graph: Graph, clusters: int) -> dict[str, int]:
    """Store every kernel as bytes that point into a codebook of its own; return its values by kernel.

    The file is a quarter, and engines unfold it when they load it.
    """
    import onnx

    found, unfold = {}, []
    for name, kernel in graph.kernels().items():
        if kernel.size < _SMALLEST:
            continue
        book, indices = share_values(kernel, clusters)
        graph.set(f"{name}/codebook", book)
        graph.set(f"{name}/indices", indices)
        unfold.append(node_of("Cast", [f"{name}/indices"], f"{name}/places", to=onnx.TensorProto.INT32))
        unfold.append(node_of("Gather", [f"{name}/codebook", f"{name}/places"], f"{name}/shared", axis=0))
        for node in graph.readers(name):
            _read_instead(node, name, f"{name}/shared")
        found[name] = len(book)
    graph.insert_first(unfold)
    return found


def factorize(graph: Graph, energy: float) -> list[Split]:
    """Make two layers of each one for which that saves weights: their product keeps that share of its squares."""
    done = []
    kernels = graph.kernels()
    for node in graph.nodes:
        name = node.input[1] if len(node.input) > 1 else ""
        if name not in kernels or kernels[name].size < _SMALLEST or len(graph.readers(name)) != 1:
            continue
        fresh = {"Conv": _thin_conv, "Gemm": _thin_gemm, "MatMul": _thin_matmul}.get(node.op_type, _none)(
            graph, node, kernels[name], energy
        )
        if fresh is not None:
            rank, nodes = fresh
            graph.replace(node, nodes)
            after = sum(graph.array(one).size for one in (f"{name}/first", f"{name}/second"))
            done.append(Split(name, rank, kernels[name].size, after))
    return done


_Thin = tuple[int, list[Any]]


def _none(_graph: Graph, _node: Any, _kernel: Array, _energy: float) -> _Thin | None:
    return None


def _thin_conv(graph: Graph, node: Any, kernel: Array, energy: float) -> _Thin | None:
    """A convolution to few channels, and one of 1 x 1 from these to all."""
    if attribute(node, "group", 1) != 1:
        return None
    found = split(kernel.reshape(len(kernel), -1), energy)
    if found is None:
        return None
    left, right = found
    name, between = node.input[1], f"{node.output[0]}/thin"
    first = graph.set(f"{name}/first", right.reshape(-1, *kernel.shape[1:]))
    second = graph.set(f"{name}/second", left.reshape(*left.shape, *(1,) * (kernel.ndim - 2)))
    kept = {
        key: value
        for key in ("auto_pad", "dilations", "kernel_shape", "pads", "strides")
        if (value := attribute(node, key)) is not None
    }
    return left.shape[1], [
        node_of("Conv", [node.input[0], first], between, **kept),
        node_of("Conv", [between, second, *node.input[2:]], node.output[0]),
    ]


def _thin_gemm(graph: Graph, node: Any, kernel: Array, energy: float) -> _Thin | None:
    if attribute(node, "transA", 0):
        return None
    matrix = kernel.T if attribute(node, "transB", 0) else kernel
    thin = _thin_product(graph, node, np.float32(attribute(node, "alpha", 1.0)) * matrix, energy)
    if thin is None:
        return None
    rank, (first, second) = thin
    last = node_of("Gemm", [*second.input, *node.input[2:]], node.output[0], beta=attribute(node, "beta", 1.0))
    return rank, [first, last]


def _thin_matmul(graph: Graph, node: Any, kernel: Array, energy: float) -> _Thin | None:
    return _thin_product(graph, node, kernel, energy) if kernel.ndim == 2 else None


def _thin_product(graph: Graph, node: Any, matrix: Array, energy: float) -> _Thin | None:
    found = split(matrix, energy)
    if found is None:
        return None
    left, right = found
    name, between = node.input[1], f"{node.output[0]}/thin"
    first, second = graph.set(f"{name}/first", left), graph.set(f"{name}/second", right)
    return left.shape[1], [
        node_of("MatMul", [node.input[0], first], between),
        node_of("MatMul", [between, second], node.output[0]),
    ]


def _read_instead(node: Any, name: str, fresh: str) -> None:
    for place, one in enumerate(node.input):
        if one == name:
            node.input[place] = fresh

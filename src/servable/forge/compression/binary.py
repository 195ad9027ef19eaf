"""Networks of signs: layers between the first and the last whose weights and inputs are +1 or -1, times a scale.

``binarize`` puts marked signs into a graph, which a training can learn through. What is made of it then: plain ONNX
(``lower``), OpenVINO's own binary layers (``binary_openvino``), or a model in numpy that counts bits (``packed``).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from servable.core.errors import failed_precondition
from servable.core.tensors import Array
from servable.forge.compression.graph import BINARIZE, Graph, attribute, node_of

_ACTIVATIONS: Final = frozenset({"Clip", "LeakyRelu", "Relu", "Sigmoid", "Tanh"})
"""Operations before a sign that it makes up for: what is above zero after most of them says little."""
_BETWEEN: Final = frozenset(
    {"AveragePool", "MaxPool", "GlobalAveragePool", "Flatten", "Reshape", "Dropout", "Identity", "Transpose"}
)


def binarize(graph: Graph) -> list[str]:
    """Make the layers between the first and the last binary, for a training; return their kernels.

    What a sign is taken of is normalized first, if it was not, and no activation comes between. FAILED_PRECONDITION
    if no layer is left.
    """
    layers = [node for node in graph.nodes if node.op_type in {"Conv", "Gemm", "MatMul"} and _kernel(graph, node)]
    done = []
    for node in layers[1:-1]:
        name = node.input[1]
        if not _can_be_binary(graph, node):
            continue
        source = _ready_for_signs(graph, node)
        kernel = graph.array(name)
        # Outputs of a kernel come first in a convolution, and last in a product.
        inward = tuple(range(1, kernel.ndim)) if node.op_type == "Conv" else _inward(node)
        scale = np.abs(kernel).mean(axis=inward) * np.float32(attribute(node, "alpha", 1.0))
        graph.set(f"{name}/scale", _for_each_output(node, scale))
        signs, product = f"{node.output[0]}/signs", f"{node.output[0]}/product"
        fresh = [
            node_of(BINARIZE, [source], signs),
            node_of(BINARIZE, [name], f"{name}/signs", axes=inward),
            _layer(node, signs, f"{name}/signs", product),
            node_of("Mul", [product, f"{name}/scale"], node.output[0] if len(node.input) < 3 else f"{product}/scaled"),
        ]
        if len(node.input) > 2:
            bias = graph.array(node.input[2]) * np.float32(attribute(node, "beta", 1.0))
            flat = graph.set(f"{name}/bias", _for_each_output(node, bias))
            fresh.append(node_of("Add", [f"{product}/scaled", flat], node.output[0]))
        graph.replace(node, fresh)
        done.append(name)
    if not done:
        raise failed_precondition(
            "no layer can be binary: there have to be convolutions without groups or dilations, or matrix products, "
            "between the first and the last"
        )
    return done


def lower(graph: Graph) -> None:
    """Make plain ONNX of marked signs: kernels of +1 and -1, and a comparison for what comes in."""
    zero = graph.set("binary/zero", np.zeros((), np.float32))
    plus, minus = (
        graph.set(f"binary/{word}", np.array(sign, np.float32)) for word, sign in (("plus", 1), ("minus", -1))
    )
    for node in graph.nodes:
        if node.op_type != BINARIZE:
            continue
        source, signs = node.input[0], node.output[0]
        if graph.is_constant(source):
            graph.set(signs, np.where(is_plus(graph.array(source)), np.float32(1), np.float32(-1)))
            graph.replace(node, [])
        else:
            above = node_of("Greater", [source, zero], f"{signs}/above")
            graph.replace(node, [above, node_of("Where", [f"{signs}/above", plus, minus], signs)])


def is_plus(values: Array) -> Array:
    """Return where the sign is +1: above zero, in every form of the network."""
    above: Array = values > 0
    return above


def _kernel(graph: Graph, node: Any) -> bool:
    return graph.is_constant(node.input[1]) and graph.array(node.input[1]).ndim >= 2


def _inward(node: Any) -> tuple[int, ...]:
    return (1,) if attribute(node, "transB", 0) else (0,)


def _for_each_output(node: Any, values: Array) -> Array:
    shaped: Array = values.reshape(1, -1, 1, 1) if node.op_type == "Conv" else values.reshape(-1)
    return shaped


def _can_be_binary(graph: Graph, node: Any) -> bool:
    if (
        node.input[1] in graph.kept
        or len(graph.readers(node.input[1])) != 1
        or not all(graph.is_constant(name) for name in node.input[2:])
    ):
        return False
    kernel = graph.array(node.input[1])
    if kernel.dtype != np.float32:
        return False
    if node.op_type == "Conv":
        plain = attribute(node, "group", 1) == 1 and kernel.ndim == 4
        dense = set(attribute(node, "dilations", [1])) == {1}
        return bool(plain and dense and attribute(node, "auto_pad", b"NOTSET") in {b"NOTSET", b"VALID"})
    return kernel.ndim == 2 and not attribute(node, "transA", 0)


def _ready_for_signs(graph: Graph, node: Any) -> str:
    """Take the activation before a layer away and see to a normalization there; return the tensor to take signs of."""
    source: str = node.input[0]
    name = source
    normalized = False
    while (maker := graph.maker(name)) is not None and len(graph.readers(name)) == 1:
        if maker.op_type in _ACTIVATIONS:
            graph.replace(maker, [node_of("Identity", [maker.input[0]], name)])
        elif maker.op_type == "BatchNormalization":
            normalized = True
            break
        elif maker.op_type not in _BETWEEN:
            break
        name = maker.input[0]
    # A product may have rows of any rank before its last axis: there a normalization would take another for channels.
    if normalized or node.op_type == "MatMul":
        return source
    count = graph.array(node.input[1]).shape[1 if node.op_type == "Conv" or attribute(node, "transB", 0) else 0]
    normal = f"{node.output[0]}/normal"
    parts = {"gamma": np.ones, "beta": np.zeros, "mean": np.zeros, "variance": np.ones}
    constants = [graph.set(f"{normal}/{part}", make(count, np.float32)) for part, make in parts.items()]
    graph.replace(node, [node_of("BatchNormalization", [source, *constants], normal), node])
    return normal


def _layer(node: Any, signs: str, kernel: str, product: str) -> Any:
    if node.op_type == "Conv":
        pads = [0] * 4 if attribute(node, "auto_pad") == b"VALID" else attribute(node, "pads", [0] * 4)
        return node_of("Conv", [signs, kernel], product, strides=attribute(node, "strides", [1, 1]), pads=pads)
    if node.op_type == "MatMul":
        return node_of("MatMul", [signs, kernel], product)
    return node_of("Gemm", [signs, kernel], product, transB=attribute(node, "transB", 0))

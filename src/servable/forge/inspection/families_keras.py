"""Which rule counts which layer of Keras. A layer's inputs are its data, then its weights in Keras's order."""

from __future__ import annotations

import math
from collections.abc import Mapping

from servable.forge.inspection.costs import (
    Cost,
    Rule,
    UncountedError,
    adds_all,
    attends,
    convolves,
    each,
    each_input,
    free,
    has,
    moves,
    multiplies,
    out_count,
    out_shape,
    pools,
    recurs,
    scales,
    shape_at,
    spreads,
    traffic,
)
from servable.forge.inspection.graph import Graph, Node

_ACTIVATIONS = {"linear": 0, "softmax": 5, "log_softmax": 5, "gelu": 4, "silu": 2, "swish": 2, "mish": 2}


def activated(rule: Rule) -> Rule:
    """Return the rule of a layer with the activation that it may end with."""

    def both(graph: Graph, node: Node) -> Cost:
        return rule(graph, node) + Cost(others=_activation(node) * out_count(graph, node))

    return both


def _activation(node: Node) -> int:
    name = node.attributes.get("activation")
    return 0 if name is None else _ACTIVATIONS.get(str(name), 1)


def _activates(graph: Graph, node: Node) -> Cost:
    return Cost(others=_activation(node) * out_count(graph, node), bytes=traffic(graph, node))


def _looks_up(graph: Graph, node: Node) -> Cost:
    made = out_count(graph, node)
    itemsize = 4 if not has(node, 1) else (graph.tensors[node.inputs[1]].dtype.itemsize or 4)
    return Cost(bytes=made // max(1, out_shape(graph, node)[-1]) * 4 + 2 * made * itemsize)


def _separates(graph: Graph, node: Node) -> Cost:
    """Each channel by itself, then all channels of each place."""
    deep, across = shape_at(graph, node, 1), shape_at(graph, node, 2)
    made = out_count(graph, node)
    places = made // across[-1]
    biased = made if has(node, 3) else 0
    return Cost(places * math.prod(deep) + made * across[-2], biased, traffic(graph, node))


def _recurs_both_ways(graph: Graph, node: Node) -> Cost:
    """Forward and backward: each has a kernel, a recurrent kernel and a bias."""
    per_unit = {"LSTM": 13, "GRU": 11, "SimpleRNN": 2}.get(str(node.attributes.get("layer")))
    if per_unit is None:
        raise UncountedError("it runs a layer that is not counted")
    shapes = [shape_at(graph, node, place) for place in range(1, len(node.inputs))]
    # GRU's bias has two dimensions, too: kernels are every third of them.
    matrices = [shape for place, shape in enumerate(shapes) if place % 3 < 2]
    if len(shapes) != 6:
        raise UncountedError("it does not have the six weights of two directions")
    steps = math.prod(shape_at(graph, node, 0)[:-1])
    units = matrices[1][0] + matrices[3][0]
    return Cost(steps * sum(map(math.prod, matrices)), steps * units * per_unit, traffic(graph, node))


def _table(rules: Mapping[Rule, str]) -> dict[str, Rule]:
    return {name: rule for rule, names in rules.items() for name in names.split()}


KERAS = _table(
    {
        free: "InputLayer Flatten Reshape Dropout SpatialDropout1D SpatialDropout2D GaussianNoise GaussianDropout "
        "AlphaDropout ActivityRegularization Identity Masking Rename",
        moves: "Concatenate Permute RepeatVector ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D "
        "UpSampling1D UpSampling2D UpSampling3D",
        each(1): "ReLU LeakyReLU PReLU ELU",
        each(5): "Softmax",
        each(8): "LayerNormalization GroupNormalization UnitNormalization RMSNormalization",
        each_input(1): "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D "
        "GlobalMaxPooling2D GlobalMaxPooling3D",
        adds_all: "Add Subtract Multiply Average Maximum Minimum",
        scales: "BatchNormalization Rescaling Normalization",
        _activates: "Activation",
        _looks_up: "Embedding",
        _separates: "SeparableConv1D SeparableConv2D",
        attends: "Attention",
        activated(convolves((-1,))): "Conv1D Conv2D Conv3D",
        activated(convolves((-2, -1))): "DepthwiseConv1D DepthwiseConv2D",
        activated(spreads(0, 1, (-1,), 2)): "Conv1DTranspose Conv2DTranspose Conv3DTranspose",
        activated(multiplies(bias=2)): "Dense",
        pools("pool_size"): "MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D",
        _recurs_both_ways: "Bidirectional",
        recurs((1, 2), 13): "LSTM",
        recurs((1, 2), 11): "GRU",
        recurs((1, 2), 2): "SimpleRNN",
    }
)

"""The image models as ONNX graphs. Pictures come in as TensorFlow has them, channels last; ONNX wants them first."""

from __future__ import annotations

import numpy as np

from servable.core.tensors import Array
from servable.zoo import image_plans as plans
from servable.zoo.image_reference import Weights
from servable.zoo.onnx_graph import Graph

_CHANNELS_FIRST = [0, 3, 1, 2]


def simple_cnn(graph: Graph, weights: Weights) -> None:
    """Add ``simple_cnn``: pictures ``input``, sigmoids ``output``."""
    maps = graph.add("Transpose", "input", out="channels_first", perm=_CHANNELS_FIRST)
    last = len(plans.SIMPLE_STAGES)
    for stage in range(1, last + 1):
        for place in (1, 2):
            name = f"conv{stage}_{place}"
            maps = graph.add("Conv", maps, _kernel(graph, weights, f"{name}_kernel"), out=name)
            maps = graph.add("Relu", _normalize(graph, weights, name, maps), out=f"{name}_active")
        size = plans.SIMPLE_LAST if stage == last else 2
        stride = 1 if stage == last else 2
        maps = graph.add("AveragePool", maps, out=f"pool{stage}", kernel_shape=[size, size], strides=[stride, stride])
    hidden = _dense(graph, weights, graph.add("Flatten", maps, out="flat", axis=1), "hidden")
    active = graph.add("Relu", _normalize(graph, weights, "hidden", hidden), out="hidden_active")
    graph.add("Sigmoid", _dense(graph, weights, active, "head"), out="output")


def resnet50(graph: Graph, weights: Weights) -> None:
    """Add ``resnet50``: pixels ``images`` from 0 to 255, ``scores``. Decoding and resizing are done before."""
    mean = graph.constant("pixel_mean", np.array(plans.PIXEL_MEAN, dtype=np.float32))
    deviation = graph.constant("pixel_deviation", np.array(plans.PIXEL_DEVIATION, dtype=np.float32))
    centred = graph.add("Sub", "images", mean, out="centred")
    scaled = graph.add("Div", centred, deviation, out="scaled")
    maps = graph.add("Transpose", scaled, out="channels_first", perm=_CHANNELS_FIRST)
    maps = _step(graph, weights, "_conv1", maps, stride=2, border=3, active=True)
    maps = graph.add("MaxPool", maps, out="pool1", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, _, count in plans.RESNET_STAGES:
        for place, block in enumerate(plans.blocks(stage, count)):
            maps = _block(graph, weights, block, maps, shrinks=stage > 2 and place == 0, projects=place == 0)
    means = graph.add("GlobalAveragePool", maps, out="means")
    logits = _dense(graph, weights, graph.add("Flatten", means, out="features", axis=1), "dense_1")
    graph.add("Sigmoid", logits, out="scores")


def _block(graph: Graph, weights: Weights, name: str, maps: str, *, shrinks: bool, projects: bool) -> str:
    stride = 2 if shrinks else 1
    inner = _step(graph, weights, f"{name}_branch2a", maps, stride=stride, active=True)
    inner = _step(graph, weights, f"{name}_branch2b", inner, border=1, active=True)
    inner = _step(graph, weights, f"{name}_branch2c", inner)
    beside = _step(graph, weights, f"{name}_branch1", maps, stride=stride) if projects else maps
    return graph.add("Relu", graph.add("Add", inner, beside, out=f"sum{name}"), out=f"block{name}")


def _step(
    graph: Graph, weights: Weights, name: str, maps: str, *, stride: int = 1, border: int = 0, active: bool = False
) -> str:
    kernel = _kernel(graph, weights, f"res{name}_kernel")
    maps = graph.add("Conv", maps, kernel, out=f"res{name}", strides=[stride, stride], pads=[border] * 4)
    maps = _normalize(graph, weights, f"bn{name}", maps)
    return graph.add("Relu", maps, out=f"active{name}") if active else maps


def _kernel(graph: Graph, weights: Weights, name: str) -> str:
    """Add a kernel [height, width, in, out] as [out, in, height, width]."""
    kernel: Array = weights[name].transpose(3, 2, 0, 1)
    return graph.constant(name, kernel)


def _normalize(graph: Graph, weights: Weights, name: str, maps: str) -> str:
    parts = (f"{name}_{part}" for part in ("gamma", "beta", "mean", "variance"))
    constants = [graph.constant(part, weights[part]) for part in parts]
    return graph.add("BatchNormalization", maps, *constants, out=f"{name}_normal", epsilon=plans.NORM_EPSILON)


def _dense(graph: Graph, weights: Weights, features: str, name: str) -> str:
    constants = [graph.constant(f"{name}_{part}", weights[f"{name}_{part}"]) for part in ("kernel", "bias")]
    return graph.add("Gemm", features, *constants, out=f"{name}_dense")

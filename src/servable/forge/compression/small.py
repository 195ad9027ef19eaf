"""A small convolution network as an ONNX graph, of any width: what the report compresses, and its students."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from servable.core.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from servable.core.tensors import FLOAT32, Array
from servable.zoo.labelled_pictures import CLASSES, Look, labelled_pictures
from servable.zoo.onnx_graph import Graph

SIZE: Final = 32
WIDTHS: Final = (16, 32, 64, 64, 128)
"""Feature maps of each convolution, 3 x 3 without padding; a mean of 2 x 2 follows the second and the fourth."""
HIDDEN: Final = 128
FAINT: Final = Look(period=(4.5, 9.0), strength=(12.0, 70.0), grain=(2.0, 18.0), cluttered=False)
"""Pictures that a network of this size is right about in nine of ten cases."""
_POOLED: Final = (2, 4)
_EPSILON: Final = 1e-3


def write_small_cnn(path: Path, seed: int, width: float = 1.0) -> Path:
    """Write the network with drawn weights; ``width`` is a share of its feature maps."""
    import onnx

    graph, rng = Graph(onnx), np.random.default_rng(seed)
    maps = graph.add("Transpose", "input", out="channels_first", perm=[0, 3, 1, 2])
    before = 3
    for number, full in enumerate(WIDTHS, start=1):
        after = max(1, round(full * width))
        kernel = graph.constant(f"conv{number}_kernel", _draw(rng, after, before, 3, 3))
        maps = graph.add("Conv", maps, kernel, out=f"conv{number}")
        maps = graph.add("Relu", _normalize(graph, maps, f"conv{number}", after), out=f"conv{number}_active")
        if number in _POOLED:
            maps = graph.add("AveragePool", maps, out=f"pool{number}", kernel_shape=[2, 2], strides=[2, 2])
        before = after
    # A dense layer over all places, not their mean: it is what a factorization is for.
    flat, places = graph.add("Flatten", maps, out="flat", axis=1), 9
    hidden = max(1, round(HIDDEN * width))
    dense = graph.add(
        "MatMul", flat, graph.constant("hidden_kernel", _draw(rng, hidden, places * before).T), out="hidden"
    )
    active = graph.add("Relu", _normalize(graph, dense, "hidden", hidden), out="hidden_active")
    kernel = graph.constant("head_kernel", _draw(rng, len(CLASSES), hidden).T)
    bias = graph.constant("head_bias", np.zeros(len(CLASSES), np.float32))
    graph.add("Softmax", graph.add("Gemm", active, kernel, bias, out="logits"), out="probs", axis=1)
    model = graph.model("small_cnn", _signature())
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def small_pictures(count: int, seed: int, look: Look = FAINT) -> tuple[dict[str, Array], Array]:
    """Return inputs of the network and their classes."""
    pixels, labels = labelled_pictures(count, SIZE, seed, look)
    return {"input": pixels.astype(np.float32) / np.float32(255)}, labels


def _signature() -> Signature:
    given = TensorSpec("input", FLOAT32, (None, SIZE, SIZE, 3))
    found = TensorSpec("probs", FLOAT32, (None, len(CLASSES)))
    return Signature(DEFAULT_SIGNATURE, {given.name: given}, {found.name: found})


def _draw(rng: np.random.Generator, *shape: int) -> Array:
    """Draw by He's rule; what is made comes first in the shape."""
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2.0 / np.prod(shape[1:])))


def _normalize(graph: Graph, maps: str, name: str, count: int) -> str:
    parts: dict[str, Any] = {"gamma": np.ones, "beta": np.zeros, "mean": np.zeros, "variance": np.ones}
    constants = [graph.constant(f"{name}_{part}", make(count, np.float32)) for part, make in parts.items()]
    return graph.add("BatchNormalization", maps, *constants, out=f"{name}_normal", epsilon=_EPSILON)

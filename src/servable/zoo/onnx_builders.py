"""The example models as ONNX graphs, written node by node. Needs the ``onnx`` package and no framework.

Of several exact forms each takes the one that ONNX Runtime runs fastest: a text convolution is one channel in two
dimensions (in one dimension it wants a transpose and is slower), an LSTM reads embeddings gathered in order of time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from servable.core.errors import failed_precondition
from servable.core.signatures import Signature
from servable.core.tensors import Array
from servable.zoo import image_onnx, sentiment
from servable.zoo import weights as w
from servable.zoo.onnx_graph import Graph


def write_onnx(name: str, signature: Signature, weights: w.Weights, directory: Path) -> None:
    """Write ``model.onnx`` into an existing directory. The same weights give the same bytes."""
    (directory / "model.onnx").write_bytes(onnx_bytes(name, signature, weights))


def onnx_bytes(name: str, signature: Signature, weights: w.Weights) -> bytes:
    """Return a checked ONNX file. Any tensor of the graph can be an output of ``signature``."""
    try:
        import onnx
        import onnx.checker
    except ImportError as error:
        raise failed_precondition(
            f"building an ONNX model needs the onnx package: pip install 'servable[zoo]' ({error})"
        ) from error
    graph = Graph(onnx)
    _BUILD[name](graph, weights)
    model = graph.model(name, signature)
    onnx.checker.check_model(model, full_check=True)
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def _half_plus_two(graph: Graph, weights: w.Weights) -> None:
    half = graph.add("Mul", "x", graph.constant("a", weights["a"]), out="half")
    graph.add("Add", half, graph.constant("b", weights["b"]), out="y")


def _noop(graph: Graph, weights: w.Weights) -> None:
    numbers = graph.add("Cast", "tokens", out="numbers", to=graph.float_type)
    _dense(graph, numbers, weights["kernel"], weights["bias"], out="scores")


def _text_cnn_small(graph: Graph, weights: w.Weights) -> None:
    embedded = graph.add("Gather", graph.constant("embedding", weights["embedding"]), "tokens", out="embedded")
    image = graph.add("Unsqueeze", embedded, graph.axis(1), out="image")
    pooled = []
    for width in w.SMALL_WIDTHS:
        prefix = f"conv{width}"
        bias = graph.constant(f"{prefix}_bias", weights[f"{prefix}_bias"])
        maps = graph.add("Conv", image, _image_kernel(graph, weights, prefix), bias, out=prefix)
        pooled.append(_pool(graph, maps))
    _softmax_head(graph, weights, _features(graph, pooled))


def _lstm_tokens(graph: Graph, weights: w.Weights) -> None:
    # Transposing the token numbers costs nothing beside transposing their embeddings.
    by_time = graph.add("Transpose", "tokens", out="by_time", perm=[1, 0])
    sequence = graph.add("Gather", graph.constant("embedding", weights["embedding"]), by_time, out="embedded")
    _softmax_head(graph, weights, _last_state(graph, weights, sequence, w.LSTM_LAYERS))


def _sentiment(graph: Graph, weights: w.Weights) -> None:
    by_time = graph.add("Transpose", "vectors", out="by_time", perm=[1, 0, 2])
    _softmax_head(graph, weights, _last_state(graph, weights, by_time, sentiment.LAYERS))


def _text_cnn(graph: Graph, weights: w.Weights) -> None:
    positions = graph.constant("positions", weights["positions"])
    parts = [
        graph.add("Gather", graph.constant("embedding", weights["embedding"]), "input_ids", out="embedded"),
        graph.add("Gather", positions, "e1_mas", out="position1"),
        graph.add("Gather", positions, "e2_mas", out="position2"),
    ]
    joined = graph.add("Concat", *parts, out="joined", axis=2)
    image = graph.add("Unsqueeze", joined, graph.axis(1), out="image")
    pooled = []
    for width in w.RELATION_WIDTHS:
        maps = graph.add("Conv", image, _image_kernel(graph, weights, f"conv{width}"), out=f"conv{width}")
        pooled.append(_pool(graph, _normalize(graph, weights, maps, width)))
    hidden = _dense(graph, _features(graph, pooled), weights["hidden_kernel"], weights["hidden_bias"], out="hidden")
    logits = _softmax_head(graph, weights, graph.add("Tanh", hidden, out="activated"))
    graph.add("ArgMax", logits, out="labels", axis=1, keepdims=0)


_BUILD: dict[str, Callable[[Graph, w.Weights], None]] = {
    "half_plus_two": _half_plus_two,
    "lstm_tokens": _lstm_tokens,
    "noop": _noop,
    "resnet50": image_onnx.resnet50,
    "resnet50_fitted": image_onnx.resnet50,
    "sentiment": _sentiment,
    "simple_cnn": image_onnx.simple_cnn,
    "simple_cnn_fitted": image_onnx.simple_cnn,
    "text_cnn": _text_cnn,
    "text_cnn_small": _text_cnn_small,
}


def _image_kernel(graph: Graph, weights: w.Weights, prefix: str) -> str:
    """Add a kernel [width, in, out] as [out, 1, width, in]: it slides over an image of one channel."""
    kernel = weights[f"{prefix}_kernel"].transpose(2, 0, 1)[:, np.newaxis]
    return graph.constant(f"{prefix}_kernel", kernel)


def _normalize(graph: Graph, weights: w.Weights, maps: str, width: int) -> str:
    """Add batch normalization and the bias that follows it. ONNX Runtime folds both into the convolution."""
    constants = [
        graph.constant(f"norm{width}_{part}", weights[f"norm{width}_{part}"])
        for part in ("gamma", "beta", "mean", "variance")
    ]
    normal = graph.add("BatchNormalization", maps, *constants, out=f"norm{width}", epsilon=w.NORM_EPSILON)
    bias = graph.constant(f"conv{width}_bias", weights[f"conv{width}_bias"].reshape(1, -1, 1, 1))
    return graph.add("Add", normal, bias, out=f"biased{width}")


def _pool(graph: Graph, maps: str) -> str:
    active = graph.add("Relu", maps, out=f"{maps}_relu")
    return graph.add("GlobalMaxPool", active, out=f"{maps}_max")


def _features(graph: Graph, pooled: list[str]) -> str:
    joined = graph.add("Concat", *pooled, out="pooled", axis=1)
    return graph.add("Flatten", joined, out="features", axis=1)


def _dense(graph: Graph, features: str, kernel: Array, bias: Array, *, out: str) -> str:
    product = graph.add("MatMul", features, graph.constant(f"{out}_kernel", kernel), out=f"{out}_product")
    return graph.add("Add", product, graph.constant(f"{out}_bias", bias), out=out)


def _softmax_head(graph: Graph, weights: w.Weights, features: str) -> str:
    logits = _dense(graph, features, weights["head_kernel"], weights["head_bias"], out="logits")
    graph.add("Softmax", logits, out="probs", axis=1)
    return logits


def _last_state(graph: Graph, weights: w.Weights, sequence: str, layers: int) -> str:
    """Add layers over [time, batch, in]; return the last state of the last one, [batch, units]."""
    for layer in range(layers - 1):
        states = _lstm(graph, weights, sequence, f"lstm{layer}", skip=0)
        sequence = graph.add("Squeeze", states, graph.axis(1), out=f"sequence{layer}")
    last = _lstm(graph, weights, sequence, f"lstm{layers - 1}", skip=1)
    return graph.add("Squeeze", last, graph.axis(0), out="features")


def _lstm(graph: Graph, weights: w.Weights, sequence: str, prefix: str, *, skip: int) -> str:
    """Add one layer over [time, batch, in]: all its states, or with ``skip`` 1 only the last one."""
    bias = _onnx_gates(weights[f"{prefix}_bias"])
    inputs = [
        graph.constant(f"{prefix}_kernel", _onnx_gates(weights[f"{prefix}_kernel"])),
        graph.constant(f"{prefix}_recurrent", _onnx_gates(weights[f"{prefix}_recurrent"])),
        # ONNX adds one bias for the input and one for the state; TensorFlow has the first only.
        graph.constant(f"{prefix}_bias", np.concatenate([bias, np.zeros_like(bias)], axis=1)),
    ]
    return graph.add("LSTM", sequence, *inputs, out=prefix, skip=skip, hidden_size=len(weights[f"{prefix}_recurrent"]))


def _onnx_gates(kernel: Array) -> Array:
    """Turn [in, gates input-forget-cell-output] into ONNX's [1, gates input-output-forget-cell, in]; biases too."""
    enter, forget, cell, leave = np.split(kernel, 4, axis=-1)
    return np.concatenate([enter, leave, forget, cell], axis=-1).T[np.newaxis]

"""What the example models must answer: a plain numpy forward pass in float64, independent of every framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from servable.core.tensors import Array
from servable.zoo import image_reference, sentiment
from servable.zoo import weights as w

_ROWS_AT_ONCE = 32
"""A row of text_cnn takes about 5 MB while it is computed."""
_PICTURES_AT_ONCE = 4
"""A picture of resnet50 takes about 30 MB."""


def forward(name: str, weights: w.Weights, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Compute all outputs of one example model, in the artifact's own dtypes. ``IndexError``: an id without a row."""
    exact = {key: value.astype(np.float64) for key, value in weights.items()}
    first = next(iter(inputs.values()))
    step = _PICTURES_AT_ONCE if first.ndim == 4 else _ROWS_AT_ONCE
    parts = [
        _FORWARD[name](exact, {key: value[start : start + step] for key, value in inputs.items()})
        for start in range(0, max(len(first), 1), step)
    ]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _half_plus_two(weights: w.Weights, inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"y": _float32(weights["a"] * inputs["x"].astype(np.float64) + weights["b"])}


def _noop(weights: w.Weights, inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"scores": _float32(inputs["tokens"].astype(np.float64) @ weights["kernel"] + weights["bias"])}


def _text_cnn_small(weights: w.Weights, inputs: Mapping[str, Array]) -> dict[str, Array]:
    embedded = _look_up(weights["embedding"], inputs["tokens"])
    pooled = []
    for width in w.SMALL_WIDTHS:
        maps = _convolve(embedded, weights[f"conv{width}_kernel"]) + weights[f"conv{width}_bias"]
        pooled.append(np.maximum(maps, 0.0).max(axis=1))
    return {"probs": _float32(_softmax(_head(weights, np.concatenate(pooled, axis=1))))}


def _lstm_tokens(weights: w.Weights, inputs: Mapping[str, Array]) -> dict[str, Array]:
    sequence = _look_up(weights["embedding"], inputs["tokens"])
    return {"probs": _float32(_softmax(_head(weights, _last_state(weights, sequence, w.LSTM_LAYERS))))}


def _sentiment(weights: w.Weights, inputs: Mapping[str, Array]) -> dict[str, Array]:
    vectors = inputs["vectors"].astype(np.float64)
    logits = _head(weights, _last_state(weights, vectors, sentiment.LAYERS))
    return {"logits": _float32(logits), "probs": _float32(_softmax(logits))}


def _text_cnn(weights: w.Weights, inputs: Mapping[str, Array]) -> dict[str, Array]:
    features = np.concatenate(
        [
            _look_up(weights["embedding"], inputs["input_ids"]),
            _look_up(weights["positions"], inputs["e1_mas"]),
            _look_up(weights["positions"], inputs["e2_mas"]),
        ],
        axis=2,
    )
    pooled = []
    for width in w.RELATION_WIDTHS:
        mean, variance, gamma, beta = (weights[f"norm{width}_{part}"] for part in ("mean", "variance", "gamma", "beta"))
        maps = _convolve(features, weights[f"conv{width}_kernel"])
        normal = (maps - mean) / np.sqrt(variance + w.NORM_EPSILON) * gamma + beta
        pooled.append(np.maximum(normal + weights[f"conv{width}_bias"], 0.0).max(axis=1))
    hidden = np.tanh(np.concatenate(pooled, axis=1) @ weights["hidden_kernel"] + weights["hidden_bias"])
    logits = _head(weights, hidden)
    return {"labels": logits.argmax(axis=1).astype(np.int64), "probs": _float32(_softmax(logits))}


_FORWARD: dict[str, Callable[[w.Weights, Mapping[str, Array]], dict[str, Array]]] = {
    "half_plus_two": _half_plus_two,
    "lstm_tokens": _lstm_tokens,
    "noop": _noop,
    "resnet50": image_reference.resnet50,
    "resnet50_fitted": image_reference.resnet50,
    "sentiment": _sentiment,
    "simple_cnn": image_reference.simple_cnn,
    "simple_cnn_fitted": image_reference.simple_cnn,
    "text_cnn": _text_cnn,
    "text_cnn_small": _text_cnn_small,
}


def _look_up(table: Array, ids: Array) -> Array:
    """Return the rows of a table; ``IndexError`` outside of it, below too, where numpy would count from the end."""
    if ids.min(initial=0) < 0:
        raise IndexError(f"index {ids.min()} is below 0")
    found: Array = table[ids]
    return found


def _convolve(sequence: Array, kernel: Array) -> Array:
    """Convolve [rows, time, in] with [width, in, out], without padding: [rows, time - width + 1, out]."""
    width, _, maps = kernel.shape
    steps = sequence.shape[1] - width + 1
    products = _multiply(sequence, kernel.transpose(1, 0, 2).reshape(-1, width * maps))
    return sum(
        (products[:, offset : offset + steps, offset * maps : (offset + 1) * maps] for offset in range(1, width)),
        start=products[:, :steps, :maps],
    )


def _multiply(sequence: Array, kernel: Array) -> Array:
    """Return ``sequence @ kernel`` as one product of two matrices: numpy would make one for each row of the batch."""
    rows, steps, size = sequence.shape
    product: Array = sequence.reshape(rows * steps, size) @ kernel
    return product.reshape(rows, steps, kernel.shape[1])


def _last_state(weights: w.Weights, sequence: Array, layers: int) -> Array:
    for layer in range(layers):
        sequence = _lstm(sequence, *(weights[f"lstm{layer}_{part}"] for part in ("kernel", "recurrent", "bias")))
    return sequence[:, -1]


def _lstm(sequence: Array, kernel: Array, recurrent: Array, bias: Array) -> Array:
    rows, steps, _ = sequence.shape
    hidden = cell = np.zeros((rows, len(recurrent)))
    projected = _multiply(sequence, kernel) + bias
    states = np.empty((rows, steps, len(recurrent)))
    for step in range(steps):
        gates = projected[:, step] + hidden @ recurrent
        enter, forget, candidate, leave = np.split(gates, 4, axis=1)
        cell = _sigmoid(forget) * cell + _sigmoid(enter) * np.tanh(candidate)
        hidden = _sigmoid(leave) * np.tanh(cell)
        states[:, step] = hidden
    return states


def _head(weights: w.Weights, features: Array) -> Array:
    logits: Array = features @ weights["head_kernel"] + weights["head_bias"]
    return logits


def _sigmoid(value: Array) -> Array:
    # By tanh: exp of a large negative number would warn.
    result: Array = 0.5 * (1.0 + np.tanh(0.5 * value))
    return result


def _softmax(logits: Array) -> Array:
    powers: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    total: Array = powers.sum(axis=1, keepdims=True)
    return powers / total


def _float32(value: Array) -> Array:
    return value.astype(np.float32)

"""What the image models must answer: a plain numpy forward pass, in the precision of the weights that it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from servable.core.tensors import Array
from servable.zoo import image_plans as plans

Weights = Mapping[str, Array]
Normalize = Callable[[str, Array], Array]
"""Batch normalization by the statistics of that name, over all axes of the maps but the last."""


def by_statistics(weights: Weights) -> Normalize:
    """Return batch normalization as it is after training."""

    def normalize(name: str, maps: Array) -> Array:
        gamma, beta, mean, variance = (weights[f"{name}_{part}"] for part in ("gamma", "beta", "mean", "variance"))
        scale = gamma / np.sqrt(variance + plans.NORM_EPSILON)
        normal: Array = maps * scale + (beta - mean * scale)
        return normal

    return normalize


def simple_cnn(weights: Weights, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return a sigmoid for each class for pictures [n, 224, 224, 3]."""
    features = simple_features(weights, _as_weights(inputs["input"], weights), by_statistics(weights))
    logits = features @ weights["head_kernel"] + weights["head_bias"]
    return {"output": _sigmoid(logits).astype(np.float32)}


def simple_features(weights: Weights, maps: Array, normalize: Normalize) -> Array:
    """Return what the last layer sees: [n, 512]."""
    for stage in range(1, len(plans.SIMPLE_STAGES) + 1):
        for layer in (f"conv{stage}_1", f"conv{stage}_2"):
            maps = _relu(normalize(layer, convolve(maps, weights[f"{layer}_kernel"])))
        maps = _halve(maps) if stage < len(plans.SIMPLE_STAGES) else maps
    hidden = maps.mean(axis=(1, 2)) @ weights["hidden_kernel"] + weights["hidden_bias"]
    return _relu(normalize("hidden", hidden))


def resnet50(weights: Weights, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return the scores of pictures [n, 256, 256, 3] with values from 0 to 255."""
    features = resnet_features(weights, _as_weights(inputs["images"], weights), by_statistics(weights))
    return {"scores": _sigmoid(features @ weights["dense_1_kernel"] + weights["dense_1_bias"]).astype(np.float32)}


def resnet_features(weights: Weights, pixels: Array, normalize: Normalize) -> Array:
    """Return what the last layer sees: [n, 2048]."""

    def step(name: str, maps: Array, stride: int = 1) -> Array:
        return normalize(f"bn{name}", convolve(maps, weights[f"res{name}_kernel"], stride))

    mean, deviation = (np.array(values, pixels.dtype) for values in (plans.PIXEL_MEAN, plans.PIXEL_DEVIATION))
    maps = _relu(step("_conv1", _pad((pixels - mean) / deviation, 3), stride=2))
    maps = _largest_of_nine(_pad(maps, 1))
    for stage, _, count in plans.RESNET_STAGES:
        for block in plans.blocks(stage, count):
            first = block.endswith("a")
            stride = 2 if first and stage > 2 else 1
            inner = _relu(step(f"{block}_branch2a", maps, stride))
            inner = _relu(step(f"{block}_branch2b", _pad(inner, 1)))
            shortcut = step(f"{block}_branch1", maps, stride) if first else maps
            maps = _relu(step(f"{block}_branch2c", inner) + shortcut)
    features: Array = maps.mean(axis=(1, 2))
    return features


def convolve(maps: Array, kernel: Array, stride: int = 1) -> Array:
    """Convolve [n, height, width, in] with [height, width, in, out], without padding."""
    tall, wide, _, after = kernel.shape
    rows, height, width = maps.shape[0], (maps.shape[1] - tall) // stride + 1, (maps.shape[2] - wide) // stride + 1
    result = np.zeros((rows * height * width, after), dtype=maps.dtype)
    for y, x in np.ndindex(tall, wide):
        seen = maps[:, y : y + stride * (height - 1) + 1 : stride, x : x + stride * (width - 1) + 1 : stride]
        # One product of two matrices: of four dimensions numpy would make one for each line of a picture.
        result += seen.reshape(len(result), -1) @ kernel[y, x]
    return result.reshape(rows, height, width, after)


def _as_weights(pictures: Array, weights: Weights) -> Array:
    return pictures.astype(weights["head_kernel" if "head_kernel" in weights else "dense_1_kernel"].dtype)


def _pad(maps: Array, border: int) -> Array:
    return np.pad(maps, ((0, 0), (border, border), (border, border), (0, 0)))


def _relu(maps: Array) -> Array:
    active: Array = np.maximum(maps, 0)
    return active


def _halve(maps: Array) -> Array:
    """Return the means of 2 x 2; a last odd line or column is left out."""
    rows, height, width, channels = maps.shape
    even = maps[:, : height // 2 * 2, : width // 2 * 2]
    halved: Array = even.reshape(rows, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
    return halved


def _largest_of_nine(maps: Array) -> Array:
    """Return the maxima of 3 x 3, at every second place."""
    windows = np.lib.stride_tricks.sliding_window_view(maps, (3, 3), axis=(1, 2))[:, ::2, ::2]
    largest: Array = windows.max(axis=(-2, -1))
    return largest


def _sigmoid(value: Array) -> Array:
    result: Array = 0.5 * (1.0 + np.tanh(0.5 * value))
    return result

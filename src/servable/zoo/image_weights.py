"""Weights of the image models: kernels from a seed, statistics of batch normalization from what they do to pictures.

Without such statistics a deep network of random kernels answers any two pictures alike.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from servable.core.tensors import Array
from servable.zoo import image_plans as plans
from servable.zoo import image_reference as reference
from servable.zoo.pictures import pictures

_SPREAD = 1.5
"""Deviation of what goes into the last sigmoid, over the pictures seen."""


def simple_cnn(rng: np.random.Generator) -> dict[str, Array]:
    """Draw ``simple_cnn``."""
    weights = {}
    for layer, before, after in plans.simple_layers():
        weights[f"{layer}_kernel"] = _kernel(rng, 3, 3, before, after)
    maps = plans.SIMPLE_STAGES[-1][-1]
    weights["hidden_kernel"] = _kernel(rng, maps, plans.SIMPLE_HIDDEN)
    weights["hidden_bias"] = _normal(rng, plans.SIMPLE_HIDDEN, 0.1)
    seen = pictures(12, plans.SIMPLE_SIZE, plans.SIMPLE_SIZE, rng).astype(np.float32) / np.float32(255)
    features = reference.simple_features(weights, seen, _observe(weights, rng))
    return weights | _head(rng, features, plans.SIMPLE_CLASSES, "head")


def resnet50(rng: np.random.Generator) -> dict[str, Array]:
    """Draw ``resnet50``: 25.6 million numbers."""
    weights = {"res_conv1_kernel": _kernel(rng, 7, 7, plans.CHANNELS, plans.RESNET_STEM)}
    before = plans.RESNET_STEM
    for stage, maps, count in plans.RESNET_STAGES:
        after = maps * plans.RESNET_EXPANSION
        for block in plans.blocks(stage, count):
            if block.endswith("a"):
                weights[f"res{block}_branch1_kernel"] = _kernel(rng, 1, 1, before, after)
            weights[f"res{block}_branch2a_kernel"] = _kernel(rng, 1, 1, before, maps)
            weights[f"res{block}_branch2b_kernel"] = _kernel(rng, 3, 3, maps, maps)
            weights[f"res{block}_branch2c_kernel"] = _kernel(rng, 1, 1, maps, after)
            before = after
    # A quarter of the pixels tells the statistics well enough, in a quarter of the time.
    seen = pictures(8, plans.RESNET_SIZE, plans.RESNET_SIZE, rng)[:, ::2, ::2].astype(np.float32)
    features = reference.resnet_features(weights, seen, _observe(weights, rng))
    return weights | _head(rng, features, 1, "dense_1")


def _normal(rng: np.random.Generator, size: int, std: float) -> Array:
    return rng.standard_normal(size, dtype=np.float32) * np.float32(std)


def _kernel(rng: np.random.Generator, *shape: int) -> Array:
    """Draw by He's rule: the scale survives a ReLU."""
    gain = np.float32(np.sqrt(2.0 / np.prod(shape[:-1])))
    return rng.standard_normal(shape, dtype=np.float32) * gain


def _observe(weights: dict[str, Array], rng: np.random.Generator) -> reference.Normalize:
    """Return a normalization that sets the statistics of a layer to those of the maps that it is given."""
    normalize = reference.by_statistics(weights)

    def observe(name: str, maps: Array) -> Array:
        over = tuple(range(maps.ndim - 1))
        # Blocks add their result to what they were given; smaller ones keep a sum of sixteen in bounds.
        gain = 0.5 if name.endswith("branch2c") else 1.0
        weights[f"{name}_gamma"] = gain * rng.uniform(0.9, 1.1, maps.shape[-1]).astype(np.float32)
        weights[f"{name}_beta"] = _normal(rng, maps.shape[-1], 0.1)
        weights[f"{name}_mean"] = _coarse(maps.mean(axis=over, dtype=np.float64))
        weights[f"{name}_variance"] = _coarse(maps.var(axis=over, dtype=np.float64))
        return normalize(name, maps)

    return observe


def _head(rng: np.random.Generator, features: Array, classes: int, name: str) -> dict[str, Array]:
    """Draw the last layer such that the answers to the pictures seen lie around one half, and far apart."""
    kernel = _kernel(rng, features.shape[1], classes)
    kernel *= _coarse(_SPREAD / (features @ kernel).std(axis=0, dtype=np.float64))
    return {f"{name}_kernel": kernel, f"{name}_bias": _coarse(-(features @ kernel).mean(axis=0, dtype=np.float64))}


def _coarse(values: Array) -> Array:
    """Round to eight binary digits: machines that sum in another order still draw the same weights."""
    fraction, exponent = np.frexp(values)
    rounded: Array = np.ldexp(np.rint(fraction * 256) / 256, exponent).astype(np.float32)
    return rounded


DRAW: dict[str, Callable[[np.random.Generator], dict[str, Array]]] = {"resnet50": resnet50, "simple_cnn": simple_cnn}

"""Weights of the example models: drawn once from a seed, read by every builder and by the reference.

Layouts are those of TensorFlow: a convolution is [width, in, out], an LSTM kernel is [in, 4 x units] in the gate order
input, forget, cell, output. Scales keep every layer in its lively range, so that an answer follows its input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from servable.core.progress import Progress, unheard
from servable.core.tensors import Array
from servable.zoo import image_weights, sentiment

Weights = Mapping[str, Array]

TOKENS = 50
"""Length of a row of the small text models."""
VOCABULARY = 20_000
EMBEDDING = 128
SMALL_WIDTHS = (3, 4, 5)
MAPS = 128
"""Feature maps of each convolution, in both text convolution models."""
CLASSES = 2
LSTM_LAYERS = 3
LSTM_UNITS = 128

RELATION_TOKENS = 500
RELATION_VOCABULARY = 500
POSITIONS = 5
POSITION_EMBEDDING = 32
RELATION_FEATURES = EMBEDDING + 2 * POSITION_EMBEDDING
RELATION_WIDTHS = (2, 3, 4)
RELATION_CLASSES = 3
NORM_EPSILON = 1e-3


def _normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> Array:
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(std)


def _kernel(rng: np.random.Generator, shape: tuple[int, ...], gain: float = 1.0) -> Array:
    """Draw a kernel whose products keep the scale of their input: all axes but the last are summed over."""
    return _normal(rng, shape, gain / float(np.sqrt(np.prod(shape[:-1]))))


def _head(rng: np.random.Generator, features: int, classes: int, gain: float) -> dict[str, Array]:
    """Draw the last layer. Its columns are centred: features share a large mean that would drown them."""
    kernel = _kernel(rng, (features, classes), gain)
    kernel -= kernel.mean(axis=0, keepdims=True)
    return {"head_kernel": kernel, "head_bias": _normal(rng, (classes,), 0.1)}


def _half_plus_two(_rng: np.random.Generator) -> dict[str, Array]:
    return {"a": np.array(0.5, dtype=np.float32), "b": np.array(2.0, dtype=np.float32)}


def _noop(rng: np.random.Generator) -> dict[str, Array]:
    # Token numbers are large: the kernel brings them back to scores of about one.
    return {
        "kernel": _kernel(rng, (TOKENS, CLASSES), 1 / VOCABULARY),
        "bias": _normal(rng, (CLASSES,), 0.1),
    }


def _text_cnn_small(rng: np.random.Generator) -> dict[str, Array]:
    weights = {"embedding": _normal(rng, (VOCABULARY, EMBEDDING), 0.5)}
    for width in SMALL_WIDTHS:
        weights[f"conv{width}_kernel"] = _kernel(rng, (width, EMBEDDING, MAPS))
        weights[f"conv{width}_bias"] = _normal(rng, (MAPS,), 0.1)
    return weights | _head(rng, len(SMALL_WIDTHS) * MAPS, CLASSES, gain=3.0)


def _lstm_tokens(rng: np.random.Generator) -> dict[str, Array]:
    weights = {"embedding": _normal(rng, (VOCABULARY, EMBEDDING), 1.0)}
    size = EMBEDDING
    for layer in range(LSTM_LAYERS):
        weights[f"lstm{layer}_kernel"] = _kernel(rng, (size, 4 * LSTM_UNITS), 1.5)
        weights[f"lstm{layer}_recurrent"] = _kernel(rng, (LSTM_UNITS, 4 * LSTM_UNITS))
        weights[f"lstm{layer}_bias"] = _normal(rng, (4 * LSTM_UNITS,), 0.1)
        size = LSTM_UNITS
    return weights | _head(rng, LSTM_UNITS, CLASSES, gain=4.0)


def _text_cnn(rng: np.random.Generator) -> dict[str, Array]:
    weights = {
        "embedding": _normal(rng, (RELATION_VOCABULARY, EMBEDDING), 0.5),
        "positions": _normal(rng, (POSITIONS, POSITION_EMBEDDING), 0.5),
    }
    # Batch normalization holds the statistics that training would have left: masks are 0 or 1, any token is as likely.
    tokens, masks = (weights[name].astype(np.float64) for name in ("embedding", "positions"))
    masks = masks[:2]
    means = np.concatenate([tokens.mean(axis=0), masks.mean(axis=0), masks.mean(axis=0)])
    variances = np.concatenate([tokens.var(axis=0), masks.var(axis=0), masks.var(axis=0)])
    for width in RELATION_WIDTHS:
        kernel = _kernel(rng, (width, RELATION_FEATURES, MAPS))
        weights[f"conv{width}_kernel"] = kernel
        weights[f"norm{width}_mean"] = (means @ kernel.sum(axis=0)).astype(np.float32)
        weights[f"norm{width}_variance"] = (variances @ np.square(kernel).sum(axis=0)).astype(np.float32)
        weights[f"norm{width}_gamma"] = rng.uniform(0.45, 0.55, MAPS).astype(np.float32)
        weights[f"norm{width}_beta"] = _normal(rng, (MAPS,), 0.02)
        weights[f"conv{width}_bias"] = _normal(rng, (MAPS,), 0.02)
    features = len(RELATION_WIDTHS) * MAPS
    hidden = _kernel(rng, (features, features), 3.0)
    weights["hidden_kernel"] = hidden - hidden.mean(axis=0, keepdims=True)
    weights["hidden_bias"] = _normal(rng, (features,), 0.1)
    return weights | _head(rng, features, RELATION_CLASSES, gain=3.0)


_KEPT = 4
_RECENT: dict[tuple[str, int], Weights] = {}
"""The models that were asked for last, in that order."""
_DRAW: dict[str, Callable[[np.random.Generator], dict[str, Array]]] = {
    "half_plus_two": _half_plus_two,
    "lstm_tokens": _lstm_tokens,
    "noop": _noop,
    "text_cnn": _text_cnn,
    "text_cnn_small": _text_cnn_small,
} | image_weights.DRAW


def weights_of(name: str, seed: int, report: Progress = unheard) -> Weights:
    """Return the weights of one example model, float32 and read-only. The same seed gives the same bytes.

    Those of ``sentiment`` are trained and those of ``*_fitted`` fitted, which takes up to a minute: ``report`` is told
    how it goes.
    """
    found = _RECENT.pop((name, seed), None)
    if found is None:
        drawn = _make(name, seed, report)
        for array in drawn.values():
            array.setflags(write=False)
        found = MappingProxyType(drawn)
    _RECENT[name, seed] = found
    while len(_RECENT) > _KEPT:
        del _RECENT[next(iter(_RECENT))]
    return found


def _make(name: str, seed: int, report: Progress) -> dict[str, Array]:
    # A fit runs a graph, whose builder reads this module.
    from servable.zoo import fitted

    if name in fitted.COURSES:
        return fitted.fitted_weights(name, weights_of(fitted.COURSES[name].base, seed, report), seed, report)
    rng = np.random.default_rng(seed)
    return sentiment.train(rng, report).weights if name == "sentiment" else _DRAW[name](rng)

"""The example models as Keras models: their code alone, or filled with the weights that every other builder reads.

A function without arguments is the code of one model, as ``servable.zoo.keras_builders:lstm_tokens`` names it: what it
returns knows nothing yet, and takes its weights from a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from servable.core.errors import not_found
from servable.zoo import corpus, sentiment
from servable.zoo import image_plans as plans
from servable.zoo import weights as w
from servable.zoo.frameworks import check_backend, tensorflow_and_keras


def build(name: str, weights: w.Weights) -> Any:
    """Return a Keras model with these weights; NOT_FOUND names those that there are. Imports TensorFlow."""
    if name not in MODELS:
        raise not_found(f"no example model {name!r} is written in Keras; there are {', '.join(sorted(MODELS))}")
    # Only what was trained here comes in more than one size.
    units = (len(weights["lstm0_recurrent"]),) if name == "sentiment" else ()
    model = MODELS[name](*units)
    for layer in model.layers:
        values = [weights[key] for key in _names(name, layer)]
        if values:
            layer.set_weights([value.reshape(own.shape) for value, own in zip(values, layer.weights, strict=True)])
    return model


def half_plus_two() -> Any:
    """Return one dense layer."""
    keras = _keras("half_plus_two")
    x = keras.Input((1,), name="x")
    return keras.Model({"x": x}, {"y": keras.layers.Dense(1, name="line")(x)}, name="half_plus_two")


def text_cnn_small() -> Any:
    """Return convolutions of three widths over embedded tokens."""
    keras = _keras("text_cnn_small")
    layers = keras.layers
    tokens = keras.Input((w.TOKENS,), dtype="int32", name="tokens")
    embedded = layers.Embedding(w.VOCABULARY, w.EMBEDDING, name="embedding")(tokens)
    pooled = [
        layers.GlobalMaxPooling1D(name=f"max{width}")(
            layers.Conv1D(w.MAPS, width, activation="relu", name=f"conv{width}")(embedded)
        )
        for width in w.SMALL_WIDTHS
    ]
    features = layers.Concatenate(name="features")(pooled)
    head = layers.Dense(w.CLASSES, activation="softmax", name="head")
    return keras.Model({"tokens": tokens}, {"probs": head(features)}, name="text_cnn_small")


def lstm_tokens() -> Any:
    """Return three LSTM layers over embedded tokens."""
    keras = _keras("lstm_tokens")
    layers = keras.layers
    tokens = keras.Input((w.TOKENS,), dtype="int32", name="tokens")
    sequence = layers.Embedding(w.VOCABULARY, w.EMBEDDING, name="embedding")(tokens)
    for layer in range(w.LSTM_LAYERS):
        inner = layer < w.LSTM_LAYERS - 1
        sequence = layers.LSTM(w.LSTM_UNITS, return_sequences=inner, name=f"lstm{layer}")(sequence)
    head = layers.Dense(w.CLASSES, activation="softmax", name="head")
    return keras.Model({"tokens": tokens}, {"probs": head(sequence)}, name="lstm_tokens")


def sentiment_lstm(units: int = sentiment.Course().units) -> Any:
    """Return three LSTM layers over word vectors: the code of ``sentiment``."""
    keras = _keras("sentiment")
    layers = keras.layers
    sequence = vectors = keras.Input((None, corpus.VECTOR), name="vectors")
    for layer in range(sentiment.LAYERS):
        inner = layer < sentiment.LAYERS - 1
        sequence = layers.LSTM(units, return_sequences=inner, name=f"lstm{layer}")(sequence)
    logits = layers.Dense(sentiment.CLASSES, name="head")(sequence)
    outputs = {"logits": logits, "probs": layers.Softmax(name="probs")(logits)}
    return keras.Model({"vectors": vectors}, outputs, name="sentiment")


def simple_cnn() -> Any:
    """Return eight convolutions with batch normalization, and two dense layers."""
    keras = _keras("simple_cnn")
    layers = keras.layers
    maps = pictures = keras.Input((plans.SIMPLE_SIZE, plans.SIMPLE_SIZE, plans.CHANNELS), name="input")
    last = len(plans.SIMPLE_STAGES)
    for stage, widths in enumerate(plans.SIMPLE_STAGES, start=1):
        for place, width in enumerate(widths, start=1):
            name = f"conv{stage}_{place}"
            maps = layers.Conv2D(width, 3, use_bias=False, name=name)(maps)
            maps = layers.BatchNormalization(epsilon=plans.NORM_EPSILON, name=f"{name}_norm")(maps)
            maps = layers.ReLU(name=f"{name}_active")(maps)
        size = plans.SIMPLE_LAST if stage == last else 2
        maps = layers.AveragePooling2D(size, strides=1 if stage == last else 2, name=f"pool{stage}")(maps)
    hidden = layers.Dense(plans.SIMPLE_HIDDEN, name="hidden")(layers.Flatten(name="flat")(maps))
    hidden = layers.BatchNormalization(epsilon=plans.NORM_EPSILON, name="hidden_norm")(hidden)
    hidden = layers.ReLU(name="hidden_active")(hidden)
    scores = layers.Dense(plans.SIMPLE_CLASSES, activation="sigmoid", name="head")(hidden)
    return keras.Model({"input": pictures}, {"output": scores}, name="simple_cnn")


MODELS: dict[str, Callable[..., Any]] = {
    "half_plus_two": half_plus_two,
    "lstm_tokens": lstm_tokens,
    "sentiment": sentiment_lstm,
    "simple_cnn": simple_cnn,
    "text_cnn_small": text_cnn_small,
}
"""Name -> code of every example model that is written in Keras."""

_PARTS = {
    "BatchNormalization": ("gamma", "beta", "mean", "variance"),
    "Conv1D": ("kernel", "bias"),
    "Conv2D": ("kernel",),
    "Dense": ("kernel", "bias"),
    "LSTM": ("kernel", "recurrent", "bias"),
}
"""Kind of layer -> its weights, in the order in which Keras holds them."""


def _names(model: str, layer: Any) -> list[str]:
    """Return what the weights of a layer are called among those of its model."""
    if model == "half_plus_two":
        return ["a", "b"] if layer.weights else []
    if type(layer).__name__ == "Embedding":
        return [str(layer.name)]
    return [f"{layer.name.removesuffix('_norm')}_{part}" for part in _PARTS.get(type(layer).__name__, ())]


def _keras(model: str) -> Any:
    _, keras = tensorflow_and_keras(f"building {model} in Keras")
    check_backend(keras, f"building {model} in Keras")
    return keras

"""The example models as SavedModels, in the form in which a user of TensorFlow would have written them.

The text models of our own are Keras models, exported with named endpoints; the others are modules of plain operations.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from servable.core.errors import not_found
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.zoo import image_tf, keras_builders
from servable.zoo import weights as w
from servable.zoo.frameworks import check_backend, tensorflow_and_keras

_KERAS = frozenset({"lstm_tokens", "sentiment", "text_cnn_small"})


def write_saved_model(name: str, signature: Signature, weights: w.Weights, directory: Path) -> None:
    """Write a SavedModel with that signature, also as the default one. Imports TensorFlow: seconds, 600 MB."""
    tf, keras = tensorflow_and_keras("building a SavedModel")
    specs = {
        spec.name: tf.TensorSpec(spec.shape, spec.dtype.name, name=spec.name) for spec in signature.inputs.values()
    }
    if name in _KERAS:
        check_backend(keras, f"building {name} as a SavedModel")
        _export_keras(keras, keras_builders.build(name, weights), signature, specs, directory)
    else:
        _save_module(tf, name, signature, specs, weights, directory)


def build_module(name: str, weights: w.Weights) -> Any:
    """Return a ``tf.Module`` of plain operations; its ``serve`` takes the inputs by name and returns a dict of outputs.

    NOT_FOUND names those that there are.
    """
    if name not in _OPERATIONS:
        raise not_found(f"no example model {name!r} is a tf.Module; there are {', '.join(sorted(_OPERATIONS))}")
    tf, _ = tensorflow_and_keras("building a tf.Module")
    module = tf.Module()
    module.weights = {key: tf.Variable(value, name=key) for key, value in weights.items()}

    def serve(**inputs: Any) -> dict[str, Any]:
        return _OPERATIONS[name](tf, module.weights, **inputs)

    module.serve = tf.function(serve)
    return module


def _export_keras(keras: Any, model: Any, signature: Signature, specs: dict[str, Any], directory: Path) -> None:
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(signature.name, lambda inputs: model(inputs, training=False), input_signature=[specs])
    archive.write_out(str(directory), verbose=False)


def _save_module(
    tf: Any, name: str, signature: Signature, specs: dict[str, Any], weights: w.Weights, directory: Path
) -> None:
    module = build_module(name, weights)
    concrete = module.serve.get_concrete_function(**specs)
    names = (signature.name, DEFAULT_SIGNATURE)
    tf.saved_model.save(module, str(directory), signatures=dict.fromkeys(names, concrete))


def _half_plus_two(tf: Any, weights: dict[str, Any], x: Any) -> dict[str, Any]:
    return {"y": weights["a"] * x + weights["b"]}


def _noop(tf: Any, weights: dict[str, Any], tokens: Any) -> dict[str, Any]:
    return {"scores": tf.matmul(tf.cast(tokens, tf.float32), weights["kernel"]) + weights["bias"]}


def _text_cnn(tf: Any, weights: dict[str, Any], input_ids: Any, e1_mas: Any, e2_mas: Any) -> dict[str, Any]:
    joined = tf.concat(
        [
            tf.gather(weights["embedding"], input_ids),
            tf.gather(weights["positions"], e1_mas),
            tf.gather(weights["positions"], e2_mas),
        ],
        axis=2,
    )
    # Features as channels: as the breadth of one channel, TensorFlow takes four times as long for a single row.
    image = tf.expand_dims(joined, 2)
    pooled = [_text_cnn_branch(tf, weights, image, width) for width in w.RELATION_WIDTHS]
    hidden = tf.tanh(tf.matmul(tf.concat(pooled, axis=1), weights["hidden_kernel"]) + weights["hidden_bias"])
    logits = tf.matmul(hidden, weights["head_kernel"]) + weights["head_bias"]
    return {"labels": tf.argmax(logits, axis=1), "probs": tf.nn.softmax(logits)}


def _text_cnn_branch(tf: Any, weights: dict[str, Any], image: Any, width: int) -> Any:
    """Convolve an image [n, time, 1, features]; return the maxima over time, [n, maps]."""
    kernel = tf.expand_dims(weights[f"conv{width}_kernel"], 1)
    maps = tf.nn.conv2d(image, kernel, strides=1, padding="VALID")
    normal, _, _ = tf.compat.v1.nn.fused_batch_norm(
        maps,
        weights[f"norm{width}_gamma"],
        weights[f"norm{width}_beta"],
        weights[f"norm{width}_mean"],
        weights[f"norm{width}_variance"],
        epsilon=w.NORM_EPSILON,
        is_training=False,
    )
    active = tf.nn.relu(tf.nn.bias_add(normal, weights[f"conv{width}_bias"]))
    return tf.reduce_max(active, axis=[1, 2])


_OPERATIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "half_plus_two": _half_plus_two,
    "noop": _noop,
    "resnet50": image_tf.resnet50,
    "resnet50_fitted": image_tf.resnet50_fitted,
    "simple_cnn": image_tf.simple_cnn,
    "simple_cnn_fitted": image_tf.simple_cnn,
    "text_cnn": _text_cnn,
}
